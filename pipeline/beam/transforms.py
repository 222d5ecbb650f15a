"""The steps of the Beam job as transforms: inspect recordings, write shards, merge statistics.

Only small elements pass between workers: an utterance's line, a recording's facts, a shard's name,
a histogram. Tables and plans are in the dataset's work folder, so neither the graph nor a worker's
memory grows with the corpus.
"""

import contextlib
import functools
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.portability import common_urns
from apache_beam.transforms import util

from pipeline import errors, inspection
from pipeline.beam import progress
from pipeline.corpora import corpus
from pipeline.dataset import (
    histogram,
    inspection_cache,
    mixture_shards,
    recordings,
    shards,
    utterance_shards,
)
from pipeline.io import atomic, storage, stored_json, threads

# Utterances per file: keeps the graph, and what a worker reads at once, small.
_PIECE = 10_000
STATISTICS_FILE = "statistics.json"
INSPECTED, WRITTEN = "inspected", "written"
_BEGIN, _END = "[[error: ", " :error]]"
# A shard plan of either recipe.
_ShardPlan: TypeAlias = shards.ShardPlan[Any]
_MESSAGE = re.compile(f"{re.escape(_BEGIN)}(.*?){re.escape(_END)}", re.DOTALL)


class Inspect(beam.PTransform):
    """Reads the table of utterances in the work folder and writes facts and rejections there."""

    def __init__(self, work: str, sample_rate: int, pieces: Sequence[str]) -> None:
        """Sets the work folder, the dataset's rate in Hz, and the names of the table's pieces."""
        super().__init__()
        self._work, self._sample_rate, self._pieces = work, sample_rate, pieces

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Returns nothing useful: the results are in the work folder."""
        return (
            pipeline
            | "Pieces" >> beam.Create(self._pieces)
            # Beam's own source of text takes a pattern, but a name may contain a [.
            | "ReadUtterances" >> beam.FlatMap(read_utterances, self._work)
            | "Spread" >> beam.Reshuffle()
            | "InspectOne" >> beam.ParDo(InspectFn(self._work, self._sample_rate))
        )


class WriteShards(beam.PTransform):
    """Writes the shards of the plans in the work folder, and the train split's statistics there.

    Shards of mixtures and of clean utterances are processed side by side.
    """

    def __init__(self, work: str, folder: str, paths: Sequence[str]) -> None:
        """Sets the work folder, the dataset's folder, and the paths of the shards in it.

        The shards that take longest to write come first.
        """
        super().__init__()
        self._work, self._folder, self._paths = work, folder, paths

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Returns nothing useful."""
        return (
            pipeline
            | "Shards" >> beam.Create(list(enumerate(self._paths)), reshuffle=False)
            | "Spread" >> SpreadByNumber()
            | "WriteOne" >> beam.ParDo(WriteShardFn(self._work, self._folder))
            | "MergeHistograms" >> beam.CombineGlobally(MergeHistograms())
            | "WriteStatistics" >> beam.Map(write_statistics, self._work)
        )


class SpreadByNumber(beam.PTransform):
    """Distributes pairs of number and value evenly over the workers.

    Flink, Spark and Dataflow know `beam.Reshuffle` by its name and deal elements out in turn. The
    local runner groups them by key, and `beam.Reshuffle` would take random ones: some workers would
    get twice as many as others.
    """

    def expand(self, pcoll: beam.PCollection) -> beam.PCollection:
        """Returns the same pairs."""
        return pcoll | util.ReshufflePerKey()

    def to_runner_api_parameter(self, context: object) -> tuple[str, None]:
        """Returns the name of `beam.Reshuffle`."""
        return common_urns.composites.RESHUFFLE.urn, None


class InspectFn(beam.DoFn):
    """Inspects the recording in a line of the table (`dataset.inspection_cache`)."""

    def __init__(self, work: str, sample_rate: int) -> None:
        """Sets the work folder and the dataset's rate in Hz."""
        super().__init__()
        self._work, self._sample_rate = work, sample_rate
        self._good = beam.metrics.Metrics.counter("pipeline", "recordings_usable")
        self._bad = beam.metrics.Metrics.counter("pipeline", "recordings_rejected")

    def start_bundle(self) -> None:
        """Starts a new file of findings."""
        self._found: list[inspection_cache.Finding] = []
        self._since = time.monotonic()

    def process(self, line: str) -> None:
        """Inspects one recording."""
        with _one_line():
            utterance = stored_json.loads(line, corpus.Utterance)
            # Taken before inspecting, so that a file that changes meanwhile is inspected again.
            stamp = inspection_cache.stamp(utterance.path)
            # If the same process writes mixtures, it need not decode the recording again.
            keep = functools.partial(
                recordings.keep, sample_rate=self._sample_rate, path=utterance.path, stamp=stamp
            )
            found = inspection.inspect(utterance, self._sample_rate, keep if stamp else None)
            self._found.append(inspection_cache.Finding.of(found, stamp))
            (self._good if isinstance(found, inspection.Facts) else self._bad).inc()
            _tick(self._work, INSPECTED)
            if time.monotonic() - self._since > inspection_cache.FLUSH_SECONDS:
                self.finish_bundle()
                self.start_bundle()

    def finish_bundle(self) -> None:
        """Writes the findings."""
        if self._found:
            with _one_line():
                inspection_cache.write(self._work, self._sample_rate, self._found)


class WriteShardFn(beam.DoFn):
    """Writes a shard, given its number and path, unless the file already exists.

    Yields (split, histogram) for a shard of mixtures, nothing for one of utterances.
    """

    def __init__(self, work: str, folder: str) -> None:
        """Sets the work folder and the dataset's folder."""
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
    """Computes the train split's mean and deviation from (split, histogram), in any order."""

    def create_accumulator(self) -> np.ndarray:
        """Returns an empty histogram."""
        return np.zeros(histogram.NUM_CODES, np.int64)

    def add_input(self, accumulator: np.ndarray, element: tuple[str, np.ndarray]) -> np.ndarray:
        """Adds the histogram of one shard if it is of train."""
        split, counts = element
        return accumulator + counts if split == "train" else accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        """Returns the sum of histograms."""
        return np.sum(list(accumulators), axis=0, dtype=np.int64)

    def extract_output(self, accumulator: np.ndarray) -> tuple[float, float] | None:
        """Returns mean and deviation, or None if train is empty."""
        return histogram.mean_and_deviation(accumulator)


def write_utterances(work: str, utterances: Sequence[corpus.Utterance]) -> list[str]:
    """Writes the table that `Inspect` reads, in pieces; returns their names."""
    names: list[str] = []
    for start in range(0, len(utterances), _PIECE):
        part = utterances[start : start + _PIECE]
        names.append(f"utterances-{len(names):05d}.jsonl")
        lines = "".join(map(stored_json.dumps, part))
        atomic.write_text(storage.join(work, names[-1]), lines)
    return names


def read_utterances(name: str, work: str) -> list[str]:
    """Returns the lines of a piece of the table, one for each utterance."""
    with _one_line():
        return storage.read_bytes(storage.join(work, name)).decode("utf-8").split("\n")[:-1]


def write_plans(work: str, plans: Iterable[shards.Columns]) -> dict[str, str]:
    """Writes the plans that `WriteShards` reads; returns each shard's digest by path."""
    atomic.make_folder(storage.join(work, utterance_shards.Columns.FOLDER))

    def write_one(shard: shards.Columns) -> tuple[str, str]:
        atomic.write_text(storage.join(work, f"{shard.path}.plan"), stored_json.dumps(shard))
        return shard.path, shard.digest

    return dict(threads.in_order(write_one, plans))


def read_plan(work: str, path: str) -> _ShardPlan:
    """Reads the plan of one shard as `write_plans` wrote it."""
    text = storage.read_bytes(storage.join(work, f"{path}.plan"))
    if path.startswith(utterance_shards.Columns.FOLDER):
        return utterance_shards.ShardPlan.of(stored_json.loads(text, utterance_shards.Columns))
    return mixture_shards.ShardPlan.of(stored_json.loads(text, mixture_shards.Columns))


def write_statistics(statistics: tuple[float, float] | None, work: str) -> None:
    """Writes mean and deviation."""
    with _one_line():
        atomic.write_text(storage.join(work, STATISTICS_FILE), json.dumps(statistics))


def read_statistics(work: str) -> tuple[float, float] | None:
    """Reads mean and deviation; None if there is no train split."""
    statistics = json.loads(storage.read_bytes(storage.join(work, STATISTICS_FILE)))
    return None if statistics is None else (statistics[0], statistics[1])


def message(error: BaseException) -> str | None:
    """Returns the one-line message that a worker put into a runner's exception, if any."""
    match = _MESSAGE.search(str(error))
    return match[1] if match else None


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Marks errors that the user can fix, so they can be found in the runner's exception."""
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
    # A function of its own, since tracebacks quote the line with `raise`.
    return errors.UserError(f"{_BEGIN}{line}{_END}")


def _tick(work: str, what: str, count: int = 1) -> None:
    """Adds to the progress bar's count."""
    progress.tick(storage.join(work, what), count)
