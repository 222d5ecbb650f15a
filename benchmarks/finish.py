"""Measures what the launching process does after the last shard, until the marker.

    python -m benchmarks.finish --shards=1000,10000 --save

Each size runs in its own process. The shards are made up: their side-cars have the size of those
of 300-MB shards (a histogram of 13,000 codes), the files themselves hold a few bytes. There are as
many shards of clean utterances as of mixtures. Steps: write the plans for the workers, read the
side-cars, compare the files, write the files about the dataset. `--latency` delays each reading and
writing of a small file by the time that an object store takes to answer.
"""

import contextlib
import functools
import logging
import pathlib
import resource
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
from absl import flags

from benchmarks import fresh, made_up, measure
from pipeline import cli, job, plan, schema
from pipeline.dataset import dataset, histogram, mixture_shards, utterance_shards
from pipeline.io import atomic, storage, stored_json

_SHARDS = flags.DEFINE_list("shards", ["1000", "10000"], "Numbers of shards of mixtures.")
_RECORDS = flags.DEFINE_integer("records", 10, "Records of a shard.", lower_bound=1)
_LATENCY = flags.DEFINE_float("latency", 0.0, "Seconds until a store answers.", lower_bound=0.0)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/finish.json.")

_RATE = schema.DEFAULT_SAMPLE_RATE
# The codes that occur in an hour of log-magnitudes.
_CODES = 13_000


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    figures: dict[str, list[float]] = {}
    facts: dict[str, Any] = {"records of a shard": _RECORDS.value, "latency, s": _LATENCY.value}
    for count in map(int, _SHARDS.value):
        found = fresh.in_a_process(measure_one, count, _RECORDS.value, _LATENCY.value)
        figures[f"{count:,d} shards of each kind"] = [sum(found["seconds"].values())]
        facts[f"{count:,d} shards of each kind"] = found
    measure.report("finish", "seconds", figures, {}, facts, _SAVE.value)


def measure_one(count: int, records: int, latency: float) -> dict[str, Any]:
    # Beam warns about optional packages, unless there is a handler.
    logging.getLogger().addHandler(logging.NullHandler())
    from pipeline.beam import transforms

    seconds: dict[str, float] = {}
    table = made_up.facts(count * records)
    mixtures = plan.make(
        table, dict.fromkeys(table.speaker_names, "train"), plan.Settings(min_samples=_RATE)
    )
    options: dict[str, Any] = {"sample_rate": _RATE, "num_shards": count, "seed": 0}
    planned = job.Planned(
        mixtures,
        mixture_shards.make_plans(mixtures, masks=schema.MASKS, **options),
        utterance_shards.make_plans(table, **options),
    )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        work = storage.join(folder, dataset.WORK_FOLDER)
        with _slow(latency):
            start = time.perf_counter()
            digests = [
                transforms.write_plans(work, plans.columns())
                for plans in (planned.of_mixtures, planned.of_utterances)
            ]
            seconds["write plans"] = round(time.perf_counter() - start, 2)
        _write_shards(pathlib.Path(folder), planned, *digests)
        before = _memory()
        with _slow(latency):
            start = time.perf_counter()
            written = job.read_back(folder, *digests, (-3.4, 0.9), contents=False)
            seconds["read side-cars and compare files"] = round(time.perf_counter() - start, 2)
            start = time.perf_counter()
            settings = job.Settings(output_dir=folder)
            job.finish(
                job.Job(settings, say=lambda _: None),
                types.SimpleNamespace(config={"sample_rate": _RATE}),
                job.Inspected(table, []),
                planned,
                written,
            )
            seconds["write files about the dataset"] = round(time.perf_counter() - start, 2)
    return {"seconds": seconds, "memory before, MB": before, "peak memory, MB": _memory()}


@contextlib.contextmanager
def _slow(latency: float) -> Iterator[None]:
    """Delays reading and writing of small files."""
    read, write = storage.read_bytes, atomic.write_text

    def slow(function: Callable[..., Any], *arguments: Any) -> Any:
        time.sleep(latency)
        return function(*arguments)

    storage.read_bytes = functools.partial(slow, read)  # type: ignore[assignment]
    atomic.write_text = functools.partial(slow, write)  # type: ignore[assignment]
    try:
        yield
    finally:
        storage.read_bytes, atomic.write_text = read, write


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _write_shards(
    folder: pathlib.Path,
    planned: job.Planned,
    of_mixtures: dict[str, str],
    of_utterances: dict[str, str],
) -> None:
    """Writes small files, and the side-cars that large ones would have."""
    random = np.random.default_rng(0)
    counts = np.zeros(histogram.NUM_CODES, np.int64)
    counts[random.permutation(2**15)[:_CODES] + 2**15] = random.integers(1, 20_000, _CODES)
    codes = msgspec.Raw(stored_json.dumps(histogram.Codes.of(counts)).encode())
    (folder / schema.UTTERANCES_FOLDER).mkdir()
    infos = {}
    parts = (*planned.of_mixtures.rows, *planned.of_utterances.rows)
    for path, rows in zip(planned.paths, parts, strict=True):
        name = path.rpartition("/")[2]
        (folder / path).write_bytes(b"shard")
        infos[path] = dataset.ShardInfo(name, len(rows), 5, "0" * 64)
    for path, digest in of_mixtures.items():
        counted = mixture_shards.Counts(
            shard=infos[path], plan_digest=digest, samples=_RATE, frames=126, dropped=(),
            active_level_mdb=-26_000,
        )  # fmt: skip
        fields = {**msgspec.structs.asdict(counted), "log_magnitude_codes": codes}
        (folder / f"{path}.json").write_bytes(msgspec.json.encode(fields))
    for columns in planned.of_utterances.columns():
        cells = (columns.num_samples, columns.ids, columns.speakers, columns.sexes)
        rows = zip(*cells, strict=True)
        entries = tuple(utterance_shards.Entry(0, *row, -26.0) for row in rows)
        path = columns.path
        sidecar = utterance_shards.Sidecar(
            shard=infos[path], plan_digest=of_utterances[path], utterances=entries
        )
        (folder / f"{path}.json").write_text(sidecar.to_json(), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main, __doc__)
