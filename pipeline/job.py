"""The whole job: corpus, inspection, plan, shards, and the files about the dataset.

    job.run(job.Settings(input_dir=("/data/TIMIT",), output_dir="/data/timit-2mix"))

does the same as `python -m pipeline.preprocess`. Each step is a function from values to a value:

    read_source → Source → inspect → Inspected → make_plan → Planned → write → Written → finish
"""

import contextlib
import dataclasses
import datetime
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import errors, fact_table, job_settings, plan, schema
from pipeline.beam import progress
from pipeline.corpora import corpus, mixture_list
from pipeline.dataset import (
    dataset,
    inspection_cache,
    mixture_shards,
    ownership,
    recordings,
    shards,
    summary,
    utterance_shards,
)
from pipeline.io import atomic, object_lock, storage
from pipeline.job_settings import Settings

# Approximate number of recordings that one core inspects per second; used to decide whether to
# start worker processes.
_RECORDINGS_PER_SECOND = 200.0
# This number of unusable recordings is always accepted.
_BAD_ALWAYS_ALLOWED = 10


@dataclasses.dataclass(frozen=True)
class Job:
    """The arguments that all steps share.

    Attributes:
        settings: the job's settings, with absolute paths.
        beam_flags: Beam's own flags.
        say: called with each line of the summary.
        verbose: show Beam's messages.
        seconds: duration of each step, filled in by `timed`.
    """

    settings: Settings
    beam_flags: Sequence[str] = ()
    say: Callable[[str], None] = print
    verbose: bool = False
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Records the duration of the `with` block."""
        start = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - start


@dataclasses.dataclass(frozen=True)
class Source:
    """The source of a dataset.

    Attributes:
        table: the recordings.
        listed: the mixtures of `Settings.mixture_list`; None if they are drawn.
        config: the settings that determine the dataset's content.
    """

    table: corpus.Corpus
    listed: list[plan.Mixture] | None
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Inspected:
    """The result of the inspection: facts by utterance id, rejections by path."""

    facts: fact_table.FactTable
    rejections: list[corpus.Rejection]


@dataclasses.dataclass(frozen=True)
class Planned:
    """All mixtures, and the shards of mixtures and of clean utterances."""

    mixtures: plan.Mixtures
    of_mixtures: shards.Plans[mixture_shards.ShardPlan]
    of_utterances: shards.Plans[utterance_shards.ShardPlan]

    @property
    def paths(self) -> list[str]:
        """Paths of all shards in the dataset's folder."""
        return [*self.of_mixtures.paths, *self.of_utterances.paths]


@dataclasses.dataclass(frozen=True)
class Written:
    """The content of the shards' side-cars, in the order of the plan.

    Attributes:
        mixtures: side-cars of the shards of mixtures, without histograms.
        utterances: all shards of clean utterances.
        mean: of the train split's log-magnitudes; None without train.
        deviation: standard deviation of the same; None without train.
        mixtures_digest: digest of the plans of the shards of mixtures.
        utterances_digest: digest of the plans of the shards of clean utterances.
    """

    mixtures: list[mixture_shards.Counts]
    utterances: utterance_shards.Totals
    mean: float | None
    deviation: float | None
    mixtures_digest: str
    utterances_digest: str


def run(
    settings: Settings,
    beam_flags: Sequence[str] = (),
    say: Callable[[str], None] = print,
    verbose: bool = False,
) -> dataset.DatasetInfo | None:
    """Makes a dataset, unless it already exists.

    Args:
        settings: the job's settings.
        beam_flags: Beam's own flags.
        say: called with each line of the summary.
        verbose: show Beam's messages.

    Returns:
        The dataset's info; None with `dry_run`.

    Raises:
        UserError: an error that the user can fix; nothing that looks complete is left.
    """
    job = Job(job_settings.absolute(settings), beam_flags, say, verbose)
    try:
        connect(job)
        source = read_source(job.settings)
        for line in summary.corpus_lines(source.table):
            say(line)
        if settings.dry_run:
            dry_run(job, source)
            return None
        done = find_done(job, source)
        if done:
            return done
        with dataset.lock(job.settings.output_dir):
            # Another job may have finished before this one got the lock.
            return find_done(job, source) or make(job, source)
    finally:
        # Needed if the workers were threads of this process.
        recordings.forget()


def make(job: Job, source: Source) -> dataset.DatasetInfo:
    """Makes the dataset; the caller holds the lock."""
    folder = job.settings.output_dir
    ownership.refuse_others(folder)
    if not job.settings.overwrite:
        dataset.remove_leftovers(folder)
    with work_folder(folder) as work:
        inspected = inspect(job, source, work)
        refuse_bad(job.settings, inspected)
        planned = make_plan(job, source, inspected)
        refuse_small_disk(job.settings, planned)
        written = write(job, planned, work)
        return finish(job, source, inspected, planned, written)


def dry_run(job: Job, source: Source) -> None:
    """Prints what would be made."""
    with passing_folder(job) as work:
        inspected = inspect(job, source, work)
        refuse_bad(job.settings, inspected)
        planned = make_plan(job, source, inspected)
    clean = [np.unique(inspected.facts.speakers[rows]) for rows in planned.of_utterances.rows]
    for line in summary.planned(
        planned.mixtures,
        planned.of_mixtures,
        planned.of_utterances,
        len(set().union(*(speakers.tolist() for speakers in clean))),
        _num_cut(job.settings, inspected),
    ):
        job.say(line)


def connect(job: Job) -> None:
    """Checks first of all that the object stores in the settings are accessible."""
    settings = job.settings
    places = (*settings.input_dir, *settings.manifest, settings.output_dir)
    remote = [path for path in (*places, settings.mixture_list or "") if "://" in path]
    if remote:
        from pipeline.beam import runners
        from pipeline.io import objects

        objects.connect(remote, runners.parse(job.beam_flags))


def read_source(settings: Settings) -> Source:
    """Reads the table of recordings, and the list of mixtures if there is one."""
    table = corpus.read(settings.input_dir, settings.manifest, include_sa=settings.include_sa)
    path = settings.mixture_list
    if path is None:
        return Source(table, None, job_settings.config(settings, table.utterances))
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UserError(f"{path}: not UTF-8: {error.reason}") from error
    listed = mixture_list.from_csv(text, path)
    about = (hashlib.sha256(text.encode()).hexdigest(), len(listed[0].utterance_ids))
    return Source(table, listed, job_settings.config(settings, table.utterances, about))


def find_done(job: Job, source: Source) -> dataset.DatasetInfo | None:
    """Returns the existing dataset if it has the same settings and is not to be replaced.

    Raises:
        DatasetError: it has other settings.
    """
    folder = job.settings.output_dir
    if job.settings.overwrite or not dataset.is_whole(folder):
        return None
    info = dataset.read(folder)
    differences = dataset.differences(info.config, source.config)
    if not differences and dataset.moved(info.config, source.config):
        job.say(f"{folder}: made of recordings in another place; comparing them with these")
        if not _has_same_plan(job, source, info):
            differences = ["recordings: others than those"]
    if differences:
        raise dataset.DatasetError(
            f"{folder}: holds a finished dataset of other settings ({'; '.join(differences)}); "
            "--overwrite replaces it, or choose another --output_dir"
        )
    rejected = info.counts.get("rejected", 0)
    again = f", and looks again at the {rejected} in {schema.REJECTED_FILE}" if rejected else ""
    job.say(f"{folder}: already done with the same settings; --overwrite makes it anew{again}")
    return info


def inspect(job: Job, source: Source, work: str) -> Inspected:
    """Inspects all recordings that are needed, with a Beam job.

    Args:
        job: the job.
        source: source of the dataset.
        work: folder, which may contain findings of an interrupted job.

    Raises:
        UserError: the Beam job failed.
    """
    from pipeline.beam import runners, transforms

    settings = job.settings
    utterances = source.table.utterances
    if source.listed is not None:
        named = {u for mixture in source.listed for u in mixture.utterance_ids}
        utterances = utterances.where(np.array([name in named for name in utterances.ids]))
    if settings.overwrite:
        atomic.remove_folder(work)
    known = inspection_cache.keep(work, utterances, settings.sample_rate)
    if known.any():
        job.say(f"{known.sum():,d} recordings were inspected before and have not changed")
    new = utterances.where(~known)
    pieces = transforms.write_utterances(work, new)
    step = transforms.Inspect(work, settings.sample_rate, pieces)
    counted = storage.join(work, transforms.INSPECTED)
    with job.timed("inspect"), progress.Bar(counted, len(new), "inspect", "recordings"):
        runners.run(
            job.beam_flags,
            "inspect",
            lambda pipeline: pipeline | "Inspect" >> step,
            len(new) / _RECORDINGS_PER_SECOND,
            job.verbose,
        )
    facts, rejections = inspection_cache.read(work, utterances)
    found = len(facts) + len(rejections)
    if found != len(utterances):
        raise errors.UserError(
            f"{len(utterances)} recordings went into the inspection, but {found} came out; run the "
            "same command again"
        )
    for line in summary.reading_lines(facts.noted()):
        job.say(line)
    shared: list[corpus.Rejection] = []
    # A list of mixtures already determines which recordings are used.
    if source.listed is None:
        facts, shared = fact_table.reject_shared(facts)
    return Inspected(facts, sorted({*rejections, *shared, *source.table.rejections}))


def refuse_bad(settings: Settings, inspected: Inspected) -> None:
    """Raises `UserError` if too few recordings are usable, and lists the bad ones in a file.

    A finished dataset, which was to be replaced, keeps its own list.
    """
    rejections, bad = inspected.rejections, len(inspected.rejections)
    total = len(inspected.facts) + bad
    too_many = bad > _BAD_ALWAYS_ALLOWED and bad > settings.max_bad_fraction * total
    if inspected.facts and not too_many:
        return
    first = f"the first is {rejections[0].path}: {rejections[0].reason}" if bad else ""
    if not settings.dry_run and not dataset.is_whole(settings.output_dir):
        path = storage.join(settings.output_dir, schema.REJECTED_FILE)
        atomic.write_text(path, summary.rejected_csv(rejections))
        first = f"{path} lists them; {first}"
    if not inspected.facts:
        raise errors.UserError(f"none of {total} recordings can be used; {first}")
    raise errors.UserError(
        f"{bad} of {total} recordings cannot be used, more than "
        f"--max_bad_fraction={settings.max_bad_fraction:g} allows; {first}"
    )


def make_plan(job: Job, source: Source, inspected: Inspected) -> Planned:
    """Plans all shards: a pure function of settings, source and facts.

    Raises:
        UserError: no mixtures can be made of these recordings, or not those of the list.
    """
    settings, facts = job.settings, inspected.facts
    with job.timed("plan"):
        if source.listed is not None:
            assert settings.mixture_list is not None
            mixture_list.check(source.listed, facts, settings.mixture_list, settings.max_samples)
            mixtures = plan.Mixtures.listed(source.listed, facts)
            of_train = np.zeros(len(facts), bool)
            train = mixtures.splits == schema.SPLITS.index(utterance_shards.SPLIT)
            of_train[mixtures.voices[train].ravel()] = True
        else:
            mixing = dataclasses.replace(
                settings.mixing,
                min_samples=settings.min_samples,
                max_samples=settings.max_samples,
            )
            splits = corpus.assign_splits(
                source.table.utterances, settings.valid_fraction, settings.mixing.num_sources
            )
            _say_without_valid(job, splits)
            mixtures = plan.make(facts, splits, mixing)
            names = facts.speaker_names
            of_train = np.array([splits[name] == utterance_shards.SPLIT for name in names])
            of_train = of_train[facts.speakers] & (facts.num_samples >= settings.min_samples)
        clean = utterance_shards.make_plans(
            facts,
            of_train & settings.utterances,
            sample_rate=settings.sample_rate,
            num_shards=settings.num_shards,
            seed=settings.mixing.seed,
            max_samples=settings.max_samples,
        )
        dealt = mixture_shards.make_plans(
            mixtures,
            sample_rate=settings.sample_rate,
            masks=settings.masks,
            num_shards=settings.num_shards,
            seed=settings.mixing.seed,
        )
        return Planned(mixtures, dealt, clean)


def refuse_small_disk(settings: Settings, planned: Planned) -> None:
    """Raises `UserError` if the planned dataset does not fit on the local disk."""
    folder = settings.output_dir
    if storage.is_remote(folder):
        return
    needed = planned.of_mixtures.num_bytes + planned.of_utterances.num_bytes
    # Existing shards are kept, or removed before writing.
    replaced = dataset.shard_names(folder) if settings.overwrite else ()
    for name in replaced or planned.paths:
        path = storage.join(folder, name)
        needed -= os.path.getsize(path) if os.path.isfile(path) else 0
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise errors.UserError(
            f"{folder}: {needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free; free "
            "some space, or choose another --output_dir"
        )


def write(job: Job, planned: Planned, work: str) -> Written:
    """Writes all shards that do not exist yet, with a Beam job, and compares them with the plan.

    Args:
        job: the job.
        planned: what to write.
        work: the work folder.

    Raises:
        UserError: the Beam job failed, or a shard is not as planned.
    """
    from pipeline.beam import runners, transforms

    folder = job.settings.output_dir
    # A dataset that is to be replaced stays complete until all checks have passed.
    dataset.remove_marker(folder)
    if job.settings.overwrite:
        dataset.remove_leftovers(folder, ())
    resumed = bool(dataset.shard_names(folder))
    of_mixtures = transforms.write_plans(work, planned.of_mixtures.columns())
    of_utterances = transforms.write_plans(work, planned.of_utterances.columns())
    seconds = planned.of_mixtures.seconds_of_work | planned.of_utterances.seconds_of_work
    longest_first = sorted(seconds, key=lambda path: (-seconds[path], path))
    step = transforms.WriteShards(work, folder, longest_first)
    counted = storage.join(work, transforms.WRITTEN)
    records = planned.of_mixtures.num_records + planned.of_utterances.num_records
    with job.timed("write"), progress.Bar(counted, records, "write", "records"):
        runners.run(
            job.beam_flags,
            "write",
            lambda pipeline: pipeline | "Write" >> step,
            sum(seconds.values()),
            job.verbose,
        )
    statistics = transforms.read_statistics(work)
    return read_back(folder, of_mixtures, of_utterances, statistics, contents=resumed)


def read_back(
    folder: str,
    of_mixtures: Mapping[str, str],
    of_utterances: Mapping[str, str],
    statistics: tuple[float, float] | None,
    contents: bool,
) -> Written:
    """Reads the side-cars of all shards, and writes the utterances' index meanwhile.

    Args:
        folder: the dataset's folder.
        of_mixtures: digests of the plans of mixtures, by the shard's path in the folder.
        of_utterances: digests of the plans of clean utterances, likewise.
        statistics: mean and deviation of the train split.
        contents: compare the contents of the shards with the side-cars, not only their sizes.

    Raises:
        UserError: a shard is not as planned.
    """
    mixtures = list(shards.read_sidecars(folder, of_mixtures, mixture_shards.Counts))
    clean = utterance_shards.Totals()
    if of_utterances:
        path = storage.join(folder, f"{schema.UTTERANCES_FOLDER}/{schema.UTTERANCES_INDEX_FILE}")
        sidecars = shards.read_sidecars(folder, of_utterances, utterance_shards.Sidecar)
        clean = utterance_shards.write_index(path, sidecars)
    places = [storage.join(folder, path) for path in (*of_mixtures, *of_utterances)]
    infos = [sidecar.shard for sidecar in (*mixtures, *clean.sidecars)]
    shards.check_files(dict(zip(places, infos, strict=True)), contents)
    digests = map(shards.digest, (of_mixtures.values(), of_utterances.values()))
    return Written(mixtures, clean, *(statistics or (None, None)), *digests)


def finish(
    job: Job, source: Source, inspected: Inspected, planned: Planned, written: Written
) -> dataset.DatasetInfo:
    """Removes files of other datasets, and writes the files about this one, the marker last.

    Raises:
        UserError: shards were written with different versions of libraries.
    """
    settings, folder = job.settings, job.settings.output_dir
    versions = shards.common_versions([*written.mixtures, *written.utterances.sidecars])
    dataset.remove_leftovers(folder, planned.paths)
    dropped = {mixture for sidecar in written.mixtures for mixture in sidecar.dropped}
    kept = planned.mixtures.without(dropped)
    facts, rejections = inspected.facts, inspected.rejections
    info = dataset.DatasetInfo(
        schema_version=schema.SCHEMA_VERSION,
        config=source.config,
        splits=summary.splits(kept, written.mixtures, settings.sample_rate),
        mean=written.mean,
        deviation=written.deviation,
        active_level_db=summary.train_level_db(written.mixtures),
        plan_digest=written.mixtures_digest,
        versions=versions,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        counts={
            "recordings": len(facts) + len(rejections),
            "rejected": len(rejections),
            "too_short": int((facts.num_samples < settings.min_samples).sum()),
            "cut": _num_cut(settings, inspected),
            "dropped": len(dropped),
        },
        utterances=summary.utterances(
            written.utterances, written.utterances_digest, settings.sample_rate
        ),
    )
    rejected = summary.rejected_csv(rejections)
    dataset.finish(folder, info, mixture_list.to_csv_in_parts(kept), rejected)
    for line in summary.finished(info):
        job.say(line)
    seconds = ", ".join(f"{step} {value:.1f} s" for step, value in job.seconds.items())
    job.say(f"{folder}: done ({seconds})")
    return info


@contextlib.contextmanager
def work_folder(folder: str) -> Iterator[str]:
    """Yields the work folder in a dataset's folder, and removes it when the job has succeeded.

    If the job fails, complete shards are kept for the next attempt. Findings about recordings are
    only kept if the job was interrupted, since otherwise the user may have to fix a recording.
    """
    work = storage.join(folder, dataset.WORK_FOLDER)
    try:
        yield work
    except object_lock.LostError:
        # The folder and everything in it now belong to another job.
        raise
    except BaseException as error:
        interrupted = isinstance(error, errors.WorkerLostError | KeyboardInterrupt)
        with contextlib.suppress(Exception):
            dataset.remove_leftovers(folder)
            if not interrupted:
                atomic.remove_folder(work)
        raise
    atomic.remove_folder(work)


@contextlib.contextmanager
def passing_folder(job: Job) -> Iterator[str]:
    """Yields a work folder for steps that do not touch the dataset's folder."""
    from pipeline.beam import runners

    folder = job.settings.output_dir
    if runners.is_on_this_machine(runners.parse(job.beam_flags)):
        work = tempfile.mkdtemp()
    elif folder:
        # Workers on any machine can access a folder beside the dataset's.
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


def _has_same_plan(job: Job, source: Source, info: dataset.DatasetInfo) -> bool:
    """Returns whether the current recordings give the same plan, including checksums."""
    with passing_folder(job) as work:
        planned = make_plan(job, source, inspect(job, source, work))
    clean = info.utterances.plan_digest if info.utterances else shards.digest([])
    of_mixtures = shards.digest(shard.digest for shard in planned.of_mixtures.columns())
    of_utterances = shards.digest(shard.digest for shard in planned.of_utterances.columns())
    return (of_mixtures, of_utterances) == (info.plan_digest, clean)


def _say_without_valid(job: Job, splits: Mapping[str, str]) -> None:
    """Prints a line if there are too few speakers for a valid split that was asked for."""
    of_train = sum(split == "train" for split in splits.values())
    if of_train and "valid" not in splits.values() and job.settings.valid_fraction > 0:
        voices = job.settings.mixing.num_sources
        job.say(
            f"no valid split: {of_train} speakers are too few to take {voices} of them from train"
        )


def _num_cut(settings: Settings, inspected: Inspected) -> int:
    return int((inspected.facts.num_samples > settings.max_samples).sum())
