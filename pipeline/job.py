"""The whole job: corpus, inspection, plan, shards, and the files about the dataset.

    job.run(job.Settings(input_dir=("/data/TIMIT",), output_dir="/data/timit-2mix"))

does what `python -m pipeline.preprocess` does.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from pipeline import errors, inspection, job_settings, plan, schema
from pipeline.beam import progress
from pipeline.corpora import corpus, mixture_list
from pipeline.dataset import dataset, inspection_cache, ownership, shards, summary, utterance_shards
from pipeline.io import atomic, storage
from pipeline.job_settings import Settings

# About how fast one core works, in recordings read and in seconds of audio written per second:
# decides whether worker processes are worth their start, and which shards are begun first.
_RECORDINGS_PER_SECOND = 200.0
_MIXTURE_SECONDS_PER_SECOND = 500.0
_UTTERANCE_SECONDS_PER_SECOND = 2000.0
# Fewer unusable recordings than that are never too many.
_BAD_ALWAYS_ALLOWED = 10


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
    try:
        return _Job(job_settings.absolute(settings), beam_flags, say, verbose).run()
    finally:
        # Where the workers were threads of this process.
        shards.forget()


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
        self._connect()
        self._table = corpus.read(
            settings.input_dir, settings.manifest, include_sa=settings.include_sa
        )
        self._listed = self._read_list()
        listed = (self._list_digest, len(self._listed[0].utterance_ids)) if self._listed else None
        self._config = job_settings.config(settings, self._table.utterances, listed)
        for line in summary.corpus_lines(self._table):
            self._say(line)
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
            ownership.refuse_others(folder)
            if not settings.overwrite:
                dataset.remove_leftovers(folder)
            work = storage.join(folder, dataset.WORK_FOLDER)
            try:
                info = self._make(work)
            except BaseException as error:
                # What is whole stays for the next attempt; what was found out, unless a person has
                # to mend something first, perhaps a recording.
                interrupted = isinstance(error, errors.WorkerLostError | KeyboardInterrupt)
                with contextlib.suppress(Exception):
                    dataset.remove_leftovers(folder)
                    if not interrupted:
                        atomic.remove_folder(work)
                raise
            atomic.remove_folder(work)
            return info

    def _connect(self) -> None:
        """Whether the object stores that are named can be reached shows before all else."""
        settings = self._settings
        places = (*settings.input_dir, *settings.manifest, settings.output_dir)
        remote = [path for path in (*places, settings.mixture_list or "") if "://" in path]
        if remote:
            from pipeline.beam import runners
            from pipeline.io import objects

            objects.connect(remote, runners.parse(self._beam_flags))

    def _already_done(self) -> dataset.DatasetInfo | None:
        folder = self._settings.output_dir
        if self._settings.overwrite or not dataset.is_whole(folder):
            return None
        info = dataset.read(folder)
        differences = dataset.differences(info.config, self._config)
        if not differences and dataset.moved(info.config, self._config):
            self._say(f"{folder}: made of recordings in another place; comparing them with these")
            differences = [] if self._has_plan_of(info) else ["recordings: others than those"]
        if differences:
            raise dataset.DatasetError(
                f"{folder}: holds a finished dataset of other settings ({'; '.join(differences)}); "
                "--overwrite replaces it, or choose another --output_dir"
            )
        rejected = info.counts.get("rejected", 0)
        again = f", and looks again at the {rejected} in {schema.REJECTED_FILE}" if rejected else ""
        self._say(
            f"{folder}: already done with the same settings; --overwrite makes it anew{again}"
        )
        return info

    def _has_plan_of(self, info: dataset.DatasetInfo) -> bool:
        """Whether the recordings that are there now give the same plan, checksums included."""
        with self._passing_work_folder() as work:
            shard_plans = self._plan(self._inspect(work)[0])
        clean = info.utterances.plan_digest if info.utterances else plan.digest([])
        digests = (plan.digest(shard_plans), plan.digest(self._utterance_plans))
        return digests == (info.plan_digest, clean)

    def _make(self, work: str) -> dataset.DatasetInfo:
        folder = self._settings.output_dir
        facts, rejections = self._inspect(work)
        self._refuse_bad(facts, rejections)
        shard_plans = self._plan(facts)
        self._refuse_small_disk(shard_plans)
        # A dataset that is to be replaced stays whole until nothing is left that may be refused.
        dataset.remove_marker(folder)
        if self._settings.overwrite:
            dataset.remove_leftovers(folder, ())
        resumed = bool(dataset.shard_names(folder))
        statistics = self._write(work, shard_plans)
        sidecars = [shards.read(shard, folder) for shard in shard_plans]
        clean = [utterance_shards.read(shard, folder) for shard in self._utterance_plans]
        written: list[shards.AnySidecar] = [*sidecars, *clean]
        versions = shards.common_versions(written)
        plans = self._with_clean(shard_plans)
        infos = {
            storage.join(folder, shard.path): sidecar.shard
            for shard, sidecar in zip(plans, written, strict=True)
        }
        shards.check_files(infos, contents=resumed)
        dataset.remove_leftovers(folder, [shard.path for shard in plans])
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
            versions=versions,
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            counts={
                "recordings": len(facts) + len(rejections),
                "rejected": len(rejections),
                "too_short": sum(fact.num_samples < self._min_samples for fact in facts),
                "cut": self._num_cut(facts),
                "dropped": len(dropped),
            },
            utterances=summary.utterances(clean, self._utterance_plans, self._settings.sample_rate),
        )
        index = utterance_shards.index_csv(clean) if clean else None
        rejected = summary.rejected_csv(rejections)
        dataset.finish(folder, info, mixture_list.to_csv(kept), rejected, index)
        for line in summary.finished(info):
            self._say(line)
        seconds = ", ".join(f"{step} {value:.1f} s" for step, value in self._seconds.items())
        self._say(f"{folder}: done ({seconds})")
        return info

    def _dry_run(self) -> None:
        settings = self._settings
        with self._passing_work_folder() as work:
            facts, rejections = self._inspect(work)
            self._refuse_bad(facts, rejections)
            shard_plans = self._plan(facts)
        for line in summary.planned(
            self._mixtures,
            shard_plans,
            self._utterance_plans,
            settings.masks,
            settings.sample_rate,
            self._num_cut(facts),
        ):
            self._say(line)

    @contextlib.contextmanager
    def _passing_work_folder(self) -> Iterator[str]:
        """For what is done without touching the dataset's folder."""
        from pipeline.beam import runners

        folder = self._settings.output_dir
        if runners.is_on_this_machine(runners.parse(self._beam_flags)):
            work = tempfile.mkdtemp()
        elif folder:
            # Where the workers, on whatever machine, would find the dataset's.
            work = atomic.beside(folder)
        else:
            raise errors.UserError(
                "--dry_run needs --output_dir where workers are on other machines: what they find "
                "out goes through a folder beside it"
            )
        try:
            yield work
        finally:
            atomic.remove_folder(work)

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

    def _inspect(self, work: str) -> tuple[list[inspection.Facts], list[corpus.Rejection]]:
        from pipeline.beam import runners, transforms

        wanted: Iterable[corpus.Utterance] = self._table.utterances
        if self._listed is not None:
            named = {u for mixture in self._listed for u in mixture.utterance_ids}
            wanted = [u for u in wanted if u.id in named]
        utterances = list(wanted)
        # Those of a job that was interrupted are in the folder still.
        known = inspection_cache.keep(
            work, () if self._settings.overwrite else utterances, self._settings.sample_rate
        )
        if known:
            self._say(f"{len(known):,d} recordings were inspected before and have not changed")
        new = [u for u in utterances if u.id not in known]
        pieces = transforms.write_utterances(work, new)
        step = transforms.Inspect(work, self._settings.sample_rate, pieces)
        with (
            self._timed("inspect"),
            progress.Bar(
                storage.join(work, transforms.INSPECTED), len(new), "inspect", "recordings"
            ),
        ):
            runners.run(
                self._beam_flags,
                "inspect",
                lambda pipeline: pipeline | "Inspect" >> step,
                len(new) / _RECORDINGS_PER_SECOND,
                self._verbose,
            )
        facts, rejections = inspection_cache.read(work)
        if len(facts) + len(rejections) != len(utterances):
            raise errors.UserError(
                f"{len(utterances)} recordings went into the inspection, but "
                f"{len(facts) + len(rejections)} came out; run the same command again"
            )
        shared: list[corpus.Rejection] = []
        # A list of mixtures has decided what is used.
        if self._listed is None:
            facts, shared = inspection.reject_shared(facts)
        return facts, sorted({*rejections, *shared, *self._table.rejections})

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
            atomic.write_text(path, summary.rejected_csv(rejections))
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

    @property
    def _max_samples(self) -> int:
        return math.floor(self._settings.max_seconds * self._settings.sample_rate)

    def _num_cut(self, facts: Iterable[inspection.Facts]) -> int:
        return sum(fact.num_samples > self._max_samples for fact in facts)

    def _plan(self, facts: Sequence[inspection.Facts]) -> list[plan.ShardPlan]:
        settings = self._settings
        with self._timed("plan"):
            if self._listed is not None:
                assert settings.mixture_list is not None
                mixture_list.check(self._listed, facts, settings.mixture_list, self._max_samples)
                self._mixtures = self._listed
                of_train = {
                    utterance
                    for mixture in self._listed
                    if mixture.split == utterance_shards.SPLIT
                    for utterance in mixture.utterance_ids
                }
            else:
                mixing = dataclasses.replace(
                    settings.mixing, min_samples=self._min_samples, max_samples=self._max_samples
                )
                splits = corpus.assign_splits(
                    self._table.utterances, settings.valid_fraction, settings.mixing.num_sources
                )
                self._say_without_valid(splits)
                self._mixtures = plan.make(facts, splits, mixing)
                of_train = {
                    fact.utterance.id
                    for fact in facts
                    if splits[fact.utterance.speaker] == utterance_shards.SPLIT
                    and fact.num_samples >= self._min_samples
                }
            self._utterance_plans = utterance_shards.make_plans(
                facts,
                of_train if settings.utterances else (),
                sample_rate=settings.sample_rate,
                num_shards=settings.num_shards,
                seed=settings.mixing.seed,
                max_samples=self._max_samples,
            )
            return plan.make_shards(
                self._mixtures,
                facts,
                sample_rate=settings.sample_rate,
                masks=settings.masks,
                num_shards=settings.num_shards,
                seed=settings.mixing.seed,
            )

    def _say_without_valid(self, splits: Mapping[str, str]) -> None:
        """Where there are too few speakers for a split that was asked for."""
        of_train = sum(split == "train" for split in splits.values())
        if of_train and "valid" not in splits.values() and self._settings.valid_fraction > 0:
            voices = self._settings.mixing.num_sources
            self._say(
                f"no valid split: {of_train} speakers are too few to take {voices} of them from "
                "train"
            )

    def _with_clean(
        self, shard_plans: Iterable[plan.ShardPlan]
    ) -> list[utterance_shards.AnyShardPlan]:
        return [*shard_plans, *self._utterance_plans]

    def _refuse_small_disk(self, shard_plans: Iterable[plan.ShardPlan]) -> None:
        folder = self._settings.output_dir
        if storage.is_remote(folder):
            return
        needed = sum(plan.record_bytes(m, self._settings.masks) for m in self._mixtures)
        needed += sum(utterance_shards.planned_bytes(shard) for shard in self._utterance_plans)
        # Shards that are there stay, or are removed before.
        replaced = dataset.shard_names(folder) if self._settings.overwrite else ()
        for name in replaced or [shard.path for shard in self._with_clean(shard_plans)]:
            path = storage.join(folder, name)
            needed -= os.path.getsize(path) if os.path.isfile(path) else 0
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise errors.UserError(
                f"{folder}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; free "
                "some space, or choose another --output_dir"
            )

    def _write(
        self, work: str, shard_plans: Sequence[plan.ShardPlan]
    ) -> tuple[float, float] | None:
        """Writes all shards; gives mean and deviation."""
        from pipeline.beam import runners, transforms

        transforms.write_plans(work, self._with_clean(shard_plans))
        rate = self._settings.sample_rate
        seconds = {
            shard.path: sum(m.num_samples for m in shard.mixtures)
            / (rate * _MIXTURE_SECONDS_PER_SECOND)
            for shard in shard_plans
        } | {
            shard.path: shard.num_samples / (rate * _UTTERANCE_SECONDS_PER_SECOND)
            for shard in self._utterance_plans
        }
        longest_first = sorted(seconds, key=lambda path: (-seconds[path], path))
        step = transforms.WriteShards(work, self._settings.output_dir, longest_first)
        records = len(self._mixtures) + sum(len(s.utterances) for s in self._utterance_plans)
        with (
            self._timed("write"),
            progress.Bar(storage.join(work, transforms.WRITTEN), records, "write", "records"),
        ):
            runners.run(
                self._beam_flags,
                "write",
                lambda pipeline: pipeline | "Write" >> step,
                sum(seconds.values()),
                self._verbose,
            )
        return transforms.read_statistics(work)

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[step] = time.monotonic() - start
