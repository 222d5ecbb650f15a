"""The whole job: corpus, inspection, plan, shards, and the files about the dataset.

    job.run(job.Settings(input_dir=("/data/TIMIT",), output_dir="/data/timit-2mix"))

does what `python -m pipeline.preprocess` does.
"""

import contextlib
import csv
import dataclasses
import datetime
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pipeline import (
    corpus,
    dataset,
    errors,
    inspection,
    mixture_list,
    output,
    plan,
    progress,
    schema,
    shards,
    storage,
    summary,
)

# About how fast one core works, in bytes of recordings read and seconds of mixture made per second:
# decides only whether worker processes are worth their start.
_RECORDINGS_PER_SECOND = 200.0
_MIXTURE_SECONDS_PER_SECOND = 500.0
# Fewer unusable recordings than that are never too many.
_BAD_ALWAYS_ALLOWED = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command's flags say; their help has more.

    Attributes:
        input_dir: folders of recordings.
        manifest: CSV files.
        output_dir: the dataset's folder; may be empty with `dry_run`.
        include_sa: keep TIMIT's SA1 and SA2.
        sample_rate: of the dataset, Hz.
        masks: that are stored.
        num_shards: of each split.
        valid_fraction: of the train speakers, where no split is declared valid.
        min_seconds: shorter utterances are left out.
        mixing: how mixtures are drawn (its `min_samples` follows from `min_seconds`).
        mixture_list: a `mixtures.csv` that takes the place of drawing.
        max_bad_fraction: more unusable recordings, and more than ten, are a failure.
        dry_run: stop after the plan.
        overwrite: replace a finished dataset.
    """

    input_dir: tuple[str, ...] = ()
    manifest: tuple[str, ...] = ()
    output_dir: str = ""
    include_sa: bool = False
    sample_rate: int = schema.DEFAULT_SAMPLE_RATE
    masks: tuple[str, ...] = schema.MASKS
    num_shards: int = 8
    valid_fraction: float = 0.1
    min_seconds: float = 1.0
    mixing: plan.Settings = dataclasses.field(default_factory=plan.Settings)
    mixture_list: str | None = None
    max_bad_fraction: float = 0.01
    dry_run: bool = False
    overwrite: bool = False


def run(
    settings: Settings,
    beam_flags: Sequence[str] = (),
    say: Callable[[str], None] = print,
    verbose: bool = False,
) -> dataset.DatasetInfo | None:
    """Makes a dataset, or says that it is there.

    Args:
        settings: what is wanted.
        beam_flags: Beam's own.
        say: gets the lines of the summary.
        verbose: let Beam say what it does.

    Returns:
        The dataset's info; None with `dry_run`.

    Raises:
        UserError: something a person can mend; nothing that looks whole is left.
    """
    return _Job(settings, beam_flags, say, verbose).run()


class _Job:
    def __init__(
        self,
        settings: Settings,
        beam_flags: Sequence[str],
        say: Callable[[str], None],
        verbose: bool,
    ) -> None:
        self._settings = settings
        self._beam_flags = beam_flags
        self._say = say
        self._verbose = verbose
        self._seconds: dict[str, float] = {}

    def run(self) -> dataset.DatasetInfo | None:
        settings = self._settings
        self._table = corpus.read(
            settings.input_dir, settings.manifest, include_sa=settings.include_sa
        )
        self._listed = self._read_list()
        self._config = self._make_config()
        self._say_corpus()
        if settings.dry_run:
            self._dry_run()
            return None
        folder = settings.output_dir
        done = self._already_done()
        if done:
            return done
        with dataset.lock(folder):
            # Another job may have ended between the question and the lock.
            done = self._already_done()
            if done:
                return done
            dataset.remove_marker(folder)
            dataset.remove_leftovers(folder, () if settings.overwrite else output.names(folder))
            work = storage.join(folder, dataset.WORK_FOLDER)
            output.remove_folder(work)
            output.make_folder(work)
            try:
                return self._make(work)
            finally:
                output.remove_folder(work)

    def _already_done(self) -> dataset.DatasetInfo | None:
        folder = self._settings.output_dir
        if self._settings.overwrite or not dataset.is_whole(folder):
            return None
        info = dataset.read(folder)
        differences = dataset.differences(info.config, self._config)
        if differences:
            raise dataset.DatasetError(
                f"{folder}: holds a finished dataset of other settings ({'; '.join(differences)}); "
                "--overwrite replaces it, or choose another --output_dir"
            )
        self._say(f"{folder}: already done with the same settings; --overwrite makes it anew")
        return info

    def _make(self, work: str) -> dataset.DatasetInfo:
        folder = self._settings.output_dir
        facts, rejections = self._inspect(work)
        self._refuse_bad(facts, rejections)
        shard_plans = self._plan(facts)
        self._refuse_small_disk(shard_plans)
        sidecars, statistics = self._write(work, shard_plans)
        dataset.remove_leftovers(folder, [str(shard.name) for shard in shard_plans])
        dropped = {mixture for sidecar in sidecars for mixture in sidecar.dropped}
        kept = [m for m in self._mixtures if m.id not in dropped]
        mean, deviation = statistics or (None, None)
        info = dataset.DatasetInfo(
            schema_version=schema.SCHEMA_VERSION,
            config=self._config,
            splits=summary.splits(kept, sidecars, self._settings.sample_rate),
            mean=mean,
            deviation=deviation,
            active_level_db=summary.train_level_db(sidecars),
            plan_digest=plan.digest(shard_plans),
            versions=summary.versions(),
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            counts={
                "recordings": len(facts) + len(rejections),
                "rejected": len(rejections),
                "too_short": sum(fact.num_samples < self._min_samples for fact in facts),
                "dropped": len(dropped),
            },
        )
        dataset.finish(folder, info, mixture_list.to_csv(kept), _rejected_csv(rejections))
        for line in summary.finished(info):
            self._say(line)
        seconds = ", ".join(f"{step} {value:.1f} s" for step, value in self._seconds.items())
        self._say(f"{folder}: done ({seconds})")
        return info

    def _dry_run(self) -> None:
        settings, folder = self._settings, self._settings.output_dir
        remote = storage.is_remote(folder)
        work = storage.join(folder, "_dry_run") if remote else tempfile.mkdtemp()
        try:
            facts, rejections = self._inspect(work)
            self._refuse_bad(facts, rejections)
            shard_plans = self._plan(facts)
        finally:
            output.remove_folder(work)
        for line in summary.planned(
            self._mixtures, shard_plans, settings.masks, settings.sample_rate
        ):
            self._say(line)

    def _read_list(self) -> list[plan.Mixture] | None:
        path = self._settings.mixture_list
        if path is None:
            return None
        try:
            text = storage.read_bytes(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise errors.UserError(f"{path}: not UTF-8: {error.reason}") from error
        self._list_digest = hashlib.sha256(text.encode()).hexdigest()
        return mixture_list.from_csv(text, path)

    def _make_config(self) -> dict[str, Any]:
        """The settings that decide what is in the dataset."""
        settings = self._settings
        table = [[u.id, u.speaker, u.sex, u.split] for u in self._table.utterances]
        config: dict[str, Any] = {
            "input_dir": [_absolute(path) for path in settings.input_dir],
            "manifest": [_absolute(path) for path in settings.manifest],
            "corpus": hashlib.sha256(json.dumps(table).encode()).hexdigest(),
            "include_sa": settings.include_sa,
            "sample_rate": settings.sample_rate,
            "masks": list(settings.masks),
            "num_shards": settings.num_shards,
            "seed": settings.mixing.seed,
        }
        if self._listed is not None:
            num_sources = len(self._listed[0].utterance_ids)
            return {**config, "mixture_list": self._list_digest, "num_sources": num_sources}
        mixing = dataclasses.asdict(settings.mixing)
        del mixing["min_samples"]
        return {
            **config,
            **mixing,
            "min_seconds": settings.min_seconds,
            "valid_fraction": settings.valid_fraction,
        }

    def _inspect(self, work: str) -> tuple[list[inspection.Facts], list[corpus.Rejection]]:
        from pipeline import runners, transforms

        wanted: Iterable[corpus.Utterance] = self._table.utterances
        if self._listed is not None:
            named = {u for mixture in self._listed for u in mixture.utterance_ids}
            wanted = [u for u in wanted if u.id in named]
        utterances = list(wanted)
        transforms.write_utterances(work, utterances)
        step = transforms.Inspect(work, self._settings.sample_rate)
        with (
            self._timed("inspect"),
            progress.Bar(
                os.path.join(work, transforms.INSPECTED), len(utterances), "inspect", "recordings"
            ),
        ):
            runners.run(
                self._beam_flags,
                "inspect",
                lambda pipeline: pipeline | "Inspect" >> step,
                len(utterances) / _RECORDINGS_PER_SECOND,
                self._verbose,
            )
        facts, rejections = transforms.read_facts(work)
        if len(facts) + len(rejections) != len(utterances):
            raise errors.UserError(
                f"{len(utterances)} recordings went into the inspection, but "
                f"{len(facts) + len(rejections)} came out; run the same command again"
            )
        return facts, sorted({*rejections, *self._table.rejections})

    def _refuse_bad(
        self, facts: Sequence[inspection.Facts], rejections: Sequence[corpus.Rejection]
    ) -> None:
        settings, bad = self._settings, len(rejections)
        total = len(facts) + bad
        too_many = bad > _BAD_ALWAYS_ALLOWED and bad > settings.max_bad_fraction * total
        if facts and not too_many:
            return
        first = f"the first is {rejections[0].path}: {rejections[0].reason}" if bad else ""
        if not settings.dry_run:
            path = storage.join(settings.output_dir, schema.REJECTED_FILE)
            output.write_text(path, _rejected_csv(rejections))
            first = f"{path} lists them; {first}"
        if not facts:
            raise errors.UserError(f"none of {total} recordings can be used; {first}")
        raise errors.UserError(
            f"{bad} of {total} recordings cannot be used, more than "
            f"--max_bad_fraction={settings.max_bad_fraction:g} allows; {first}"
        )

    @property
    def _min_samples(self) -> int:
        if self._listed is not None:
            return 1
        return max(1, math.ceil(self._settings.min_seconds * self._settings.sample_rate))

    def _plan(self, facts: Sequence[inspection.Facts]) -> list[plan.ShardPlan]:
        settings = self._settings
        with self._timed("plan"):
            if self._listed is not None:
                assert settings.mixture_list is not None
                mixture_list.check(self._listed, facts, settings.mixture_list)
                self._mixtures = self._listed
            else:
                mixing = dataclasses.replace(settings.mixing, min_samples=self._min_samples)
                splits = corpus.assign_splits(self._table.utterances, settings.valid_fraction)
                self._mixtures = plan.make(facts, splits, mixing)
            return plan.make_shards(
                self._mixtures,
                facts,
                sample_rate=settings.sample_rate,
                masks=settings.masks,
                num_shards=settings.num_shards,
                seed=settings.mixing.seed,
            )

    def _refuse_small_disk(self, shard_plans: Iterable[plan.ShardPlan]) -> None:
        folder = self._settings.output_dir
        if storage.is_remote(folder):
            return
        needed = sum(plan.record_bytes(m, self._settings.masks) for m in self._mixtures)
        for shard in shard_plans:
            path = storage.join(folder, str(shard.name))
            needed -= os.path.getsize(path) if os.path.isfile(path) else 0
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise errors.UserError(
                f"{folder}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; free "
                "some space, or choose another --output_dir"
            )

    def _write(
        self, work: str, shard_plans: Sequence[plan.ShardPlan]
    ) -> tuple[list[shards.Sidecar], tuple[float, float] | None]:
        from pipeline import runners, transforms

        folder = self._settings.output_dir
        for shard in shard_plans:
            transforms.write_plan(work, shard)
        samples = {
            str(shard.name): sum(m.num_samples for m in shard.mixtures) for shard in shard_plans
        }
        largest_first = sorted(samples, key=lambda name: (-samples[name], name))
        seconds = sum(samples.values()) / self._settings.sample_rate
        step = transforms.WriteShards(work, folder, largest_first)
        with (
            self._timed("write"),
            progress.Bar(
                os.path.join(work, transforms.MIXED), len(self._mixtures), "write", "mixtures"
            ),
        ):
            runners.run(
                self._beam_flags,
                "write",
                lambda pipeline: pipeline | "Write" >> step,
                seconds / _MIXTURE_SECONDS_PER_SECOND,
                self._verbose,
            )
        return [_read_sidecar(shard, folder) for shard in shard_plans], (
            transforms.read_statistics(work)
        )

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[step] = time.monotonic() - start

    def _say_corpus(self) -> None:
        for path, kind in self._table.kinds:
            self._say(f"{path}: {_KINDS.get(kind, kind)}")
        speakers = len({u.speaker for u in self._table.utterances})
        self._say(f"{len(self._table.utterances):,d} recordings of {speakers:,d} speakers")


_KINDS = {
    "timit": "TIMIT",
    "subsets": "speakers' folders below subsets",
    "speakers": "speakers' folders",
    "manifest": "a manifest",
}


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)


def _read_sidecar(shard: plan.ShardPlan, folder: str) -> shards.Sidecar:
    path = storage.join(folder, shard.name.sidecar)
    try:
        sidecar = shards.Sidecar.from_json(storage.read_bytes(path).decode("utf-8"))
        if sidecar.plan_digest == shard.digest:
            return sidecar
        reason = "it is of another plan; did another job write here?"
    except ValueError as error:
        reason = str(error)
    raise errors.UserError(f"{path}: {reason}; run the same command again")


def _rejected_csv(rejections: Iterable[corpus.Rejection]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows([rejection.path, rejection.reason] for rejection in rejections)
    return text.getvalue()
