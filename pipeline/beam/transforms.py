"""The steps of the Beam job as transforms: inspect recordings, write shards, merge statistics.

What passes between workers is small: an utterance's line, a recording's facts, a shard's name, a
histogram. Tables and plans lie in the dataset's work folder, so that neither the graph nor a
worker's memory grows with the corpus.
"""

import contextlib
import dataclasses
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.transforms import util

from pipeline import errors, inspection
from pipeline.beam import progress
from pipeline.corpora import corpus
from pipeline.dataset import (
    histogram,
    inspection_cache,
    mixture_shards,
    shards,
    utterance_shards,
)
from pipeline.io import atomic, storage, stored_json

# Of so many utterances: what the graph holds, and a worker reads at once, stays small.
_PIECE = 10_000
STATISTICS_FILE = "statistics.json"
INSPECTED, WRITTEN = "inspected", "written"
_BEGIN, _END = "[[error: ", " :error]]"
# Of either recipe.
_ShardPlan: TypeAlias = shards.ShardPlan[Any]
_MESSAGE = re.compile(f"{re.escape(_BEGIN)}(.*?){re.escape(_END)}", re.DOTALL)


class Inspect(beam.PTransform):
    """The table of utterances in the work folder to facts and rejections, in the same place."""

    def __init__(self, work: str, sample_rate: int, pieces: Sequence[str]) -> None:
        """Takes the work folder, the dataset's rate in Hz, and the names of the table's pieces."""
        super().__init__()
        self._work, self._sample_rate, self._pieces = work, sample_rate, pieces

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Gives nothing: what is found lies in the work folder."""
        return (
            pipeline
            | "Pieces" >> beam.Create(self._pieces)
            # Not Beam's own source of text: that takes a pattern, and a name may have a [ in it.
            | "ReadUtterances" >> beam.FlatMap(read_utterances, self._work)
            | "Spread" >> beam.Reshuffle()
            | "InspectOne" >> beam.ParDo(InspectFn(self._work, self._sample_rate))
        )


class WriteShards(beam.PTransform):
    """The plans in the work folder to shards, and the train split's statistics beside the plans.

    Shards of mixtures and of clean utterances are elements side by side.
    """

    def __init__(self, work: str, folder: str, paths: Sequence[str]) -> None:
        """Takes the work folder, the dataset's, and the shards' paths in that, the longest first.

        How long it takes to write them is meant.
        """
        super().__init__()
        self._work, self._folder, self._paths = work, folder, paths

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Gives nothing of use."""
        return (
            pipeline
            | "Shards" >> beam.Create(list(enumerate(self._paths)), reshuffle=False)
            # By number, not at random: runners then deal large and small ones out evenly.
            | "Spread" >> util.ReshufflePerKey()
            | "WriteOne" >> beam.ParDo(WriteShardFn(self._work, self._folder))
            | "MergeHistograms" >> beam.CombineGlobally(MergeHistograms())
            | "WriteStatistics" >> beam.Map(write_statistics, self._work)
        )


class InspectFn(beam.DoFn):
    """One line of the table to a finding in the work folder (`dataset.inspection_cache`)."""

    def __init__(self, work: str, sample_rate: int) -> None:
        """Takes the work folder, and the dataset's rate in Hz."""
        super().__init__()
        self._work, self._sample_rate = work, sample_rate
        self._good = beam.metrics.Metrics.counter("pipeline", "recordings_usable")
        self._bad = beam.metrics.Metrics.counter("pipeline", "recordings_rejected")

    def start_bundle(self) -> None:
        """Begins a file."""
        self._found: list[inspection_cache.Finding] = []
        self._since = time.monotonic()

    def process(self, line: str) -> None:
        """Looks at one recording."""
        with _one_line():
            utterance = corpus.Utterance(**json.loads(line))
            # Before the look: what changes meanwhile is looked at again.
            stamp = inspection_cache.stamp(utterance.path)
            found = inspection.inspect(utterance, self._sample_rate)
            self._found.append(inspection_cache.Finding(utterance, found, stamp))
            (self._good if isinstance(found, inspection.Facts) else self._bad).inc()
            _tick(self._work, INSPECTED)
            if time.monotonic() - self._since > inspection_cache.FLUSH_SECONDS:
                self.finish_bundle()
                self.start_bundle()

    def finish_bundle(self) -> None:
        """Writes what was found."""
        if self._found:
            with _one_line():
                inspection_cache.write(self._work, self._sample_rate, self._found)


class WriteShardFn(beam.DoFn):
    """A shard's number and path to its file, unless that is there.

    Yields (split, histogram) for a shard of mixtures, nothing for one of utterances.
    """

    def __init__(self, work: str, folder: str) -> None:
        """Takes the work folder and the dataset's."""
        super().__init__()
        self._work, self._folder = work, folder
        self._written = beam.metrics.Metrics.counter("pipeline", "shards_written")
        self._found = beam.metrics.Metrics.counter("pipeline", "shards_found")
        self._utterances = beam.metrics.Metrics.counter("pipeline", "utterances")
        self._mixtures = beam.metrics.Metrics.counter("pipeline", "mixtures")
        self._dropped = beam.metrics.Metrics.counter("pipeline", "mixtures_dropped")

    def process(self, element: tuple[int, str]) -> Iterator[tuple[str, np.ndarray]]:
        """Yields one pair or nothing."""
        with _one_line():
            shard = read_plan(self._work, element[1])
            sidecar = shards.find(shard, self._folder)
            if sidecar is None:
                sidecar = shards.write(shard, self._folder, lambda: _tick(self._work, WRITTEN))
                self._written.inc()
            else:
                _tick(self._work, WRITTEN, shard.num_records)
                self._found.inc()
        if not isinstance(sidecar, mixture_shards.Sidecar):
            self._utterances.inc(sidecar.shard.records)
            return
        self._mixtures.inc(sidecar.shard.records)
        self._dropped.inc(len(sidecar.dropped))
        yield shard.name.split, sidecar.log_magnitude_codes.to_array()


class MergeHistograms(beam.CombineFn):
    """(split, histogram) to the train split's mean and deviation, the same in whatever order."""

    def create_accumulator(self) -> np.ndarray:
        """Gives an empty histogram."""
        return np.zeros(histogram.NUM_CODES, np.int64)

    def add_input(self, accumulator: np.ndarray, element: tuple[str, np.ndarray]) -> np.ndarray:
        """Adds one shard's, if it is of train."""
        split, counts = element
        return accumulator + counts if split == "train" else accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        """Gives their sum."""
        return np.sum(list(accumulators), axis=0, dtype=np.int64)

    def extract_output(self, accumulator: np.ndarray) -> tuple[float, float] | None:
        """Gives mean and deviation, or None where train has nothing."""
        return histogram.mean_and_deviation(accumulator)


def write_utterances(work: str, utterances: Sequence[corpus.Utterance]) -> list[str]:
    """Writes the table that `Inspect` reads, in pieces; gives their names."""
    names: list[str] = []
    for start in range(0, len(utterances), _PIECE):
        part = utterances[start : start + _PIECE]
        lines = (json.dumps(dataclasses.asdict(utterance)) + "\n" for utterance in part)
        names.append(f"utterances-{len(names):05d}.jsonl")
        atomic.write_text(storage.join(work, names[-1]), "".join(lines))
    return names


def read_utterances(name: str, work: str) -> list[str]:
    """The lines of a piece of the table, one for each utterance."""
    with _one_line():
        return storage.read_bytes(storage.join(work, name)).decode("utf-8").split("\n")[:-1]


def write_plans(work: str, plans: Iterable[shards.Columns]) -> dict[str, str]:
    """Writes what `WriteShards` reads; gives each shard's digest, by its path."""
    atomic.make_folder(storage.join(work, utterance_shards.Columns.FOLDER))
    digests = {}
    for shard in plans:
        atomic.write_text(storage.join(work, f"{shard.path}.plan"), stored_json.dumps(shard))
        digests[shard.path] = shard.digest
    return digests


def read_plan(work: str, path: str) -> _ShardPlan:
    """Reads what `write_plans` has written for one shard."""
    text = storage.read_bytes(storage.join(work, f"{path}.plan"))
    if path.startswith(utterance_shards.Columns.FOLDER):
        return utterance_shards.ShardPlan.of(stored_json.loads(text, utterance_shards.Columns))
    return mixture_shards.ShardPlan.of(stored_json.loads(text, mixture_shards.Columns))


def write_statistics(statistics: tuple[float, float] | None, work: str) -> None:
    """Writes mean and deviation."""
    with _one_line():
        atomic.write_text(storage.join(work, STATISTICS_FILE), json.dumps(statistics))


def read_statistics(work: str) -> tuple[float, float] | None:
    """Reads mean and deviation; None where there is no train split."""
    statistics = json.loads(storage.read_bytes(storage.join(work, STATISTICS_FILE)))
    return None if statistics is None else (statistics[0], statistics[1])


def message(error: BaseException) -> str | None:
    """The one line for a person in what a runner raised, if a worker has put it there."""
    match = _MESSAGE.search(str(error))
    return match[1] if match else None


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Marks what a person can mend, so that it is found in what the runner makes of it."""
    try:
        yield
    except errors.UserError as error:
        raise _marked(str(error)) from error
    except OSError as error:
        raise _marked(errors.explain_os_error(error)) from error
    except MemoryError as error:
        raise _marked(
            "a worker lacks memory; take fewer workers, or a lower --max_seconds"
        ) from error


def _marked(line: str) -> errors.UserError:
    # Not where it is raised: tracebacks quote that line.
    return errors.UserError(f"{_BEGIN}{line}{_END}")


def _tick(work: str, what: str, count: int = 1) -> None:
    """Counts for the progress bar."""
    progress.tick(storage.join(work, what), count)
