"""Compares the Beam job's runners (local, Flink, Spark) at several parallelisms, and a bare loop.

    python -m benchmarks.runners --manifest=speech/manifest.csv --save

Each produces only the same mixtures (`--noutterances`). Times are for the whole command; clusters
are started beforehand, and their start-up time is reported separately. A cluster is skipped if it
is not installed. With `--mixtures_per_utterance`, one more run of each has one mixture for an
utterance and is mostly start-up. The difference between the two runs gives the speed without
start-up, as for a large corpus.
"""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from benchmarks import baselines, measure
from pipeline import cli, schema
from pipeline.corpora import corpus
from pipeline.io.cores import available_cores
from tools import flink, local_cluster, spark

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_TIMES = flags.DEFINE_integer(
    "mixtures_per_utterance", 1, "More work from the same recordings.", lower_bound=1
)
_RUNNERS = flags.DEFINE_list("runners", ["local", "flink", "spark"], "Which runners to measure.")
_PARALLELISM = flags.DEFINE_list(
    "parallelism", [], "Numbers of workers; by default one, and as many as there are cores."
)
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 32, "Number of files per split.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/runners.json.")

_WITHOUT = ", without start-up"


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    cores = available_cores()
    numbers = sorted(set(map(int, _PARALLELISM.value)) or {1, cores})
    utterances = corpus.read(_FOLDERS.value, _MANIFESTS.value).utterances
    pairs = baselines.pair(utterances) * _TIMES.value
    facts: dict[str, Any] = {"recordings": len(utterances), "mixtures": len(pairs)}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bare = {
            f"bare loop, {number}": lambda n=number: baselines.bare_loop(pairs, folder, n).speed
            for number in numbers
        }
        given: dict[str, list[str]] = {}
        if "local" in _RUNNERS.value:
            given |= {f"local, {n}": [f"--direct_num_workers={n}"] for n in numbers}
        for name, cluster in _clusters(folder, numbers[-1], cores):
            start = time.perf_counter()
            stack.enter_context(cluster)
            facts[f"seconds to start {name}"] = round(time.perf_counter() - start, 1)
            given |= {f"{name}, {n}": cluster.beam_flags(n) for n in numbers}
        output = folder / "dataset"
        last: dict[str, float] = {}
        jobs = {
            name: lambda name=name, own=own: _job(output, _TIMES.value, own, facts, last, name)
            for name, own in given.items()
        }
        small: dict[str, tuple[float, float]] = {}
        for name, own in given.items() if _TIMES.value > 1 else ():
            speed = _job(output, 1, own, facts, last, name)
            small[name] = speed, last[name]
        figures = measure.interleave(bare | jobs, _REPEATS.value)
    first = f"bare loop, {numbers[0]}"
    ratios = {f"{name} / {first}": (name, first) for name in figures if name != first}
    for name, (speed, seconds) in small.items():
        facts[f"{name}: seconds with one mixture for an utterance, and with all"] = [
            round(seconds, 1),
            round(last[name], 1),
        ]
        more = figures[name][-1] * last[name] - speed * seconds
        figures[f"{name}{_WITHOUT}"] = [more / (last[name] - seconds)]
        local = "local," + name.partition(",")[2]
        if local in small and name != local:
            ratios[f"{name} / {local}{_WITHOUT}"] = (f"{name}{_WITHOUT}", f"{local}{_WITHOUT}")
    measure.report("runners", "times real time", figures, ratios, facts, _SAVE.value)


def _clusters(
    folder: pathlib.Path, workers: int, cores: int
) -> Iterator[tuple[str, local_cluster.Cluster]]:
    """Yields the clusters that are wanted and installed, with their names."""
    slots = -(-workers // cores)
    known: dict[str, tuple[local_cluster.Jars, Callable[[], local_cluster.Cluster]]] = {
        "flink": (flink.JARS, lambda: flink.Cluster(folder / "flink", cores, slots)),
        "spark": (spark.JARS, lambda: spark.Cluster(folder / "spark", workers)),
    }
    for key in set(_RUNNERS.value) - {*known, "local"}:
        raise flags.Error(f"--runners: {key} is none of local, {', '.join(known)}")
    for key, (jars, make) in known.items():
        if key not in _RUNNERS.value:
            continue
        reason = jars.missing()
        if reason:
            print(f"without {jars.name}: {reason}", file=sys.stderr)
        else:
            yield jars.name, make()


def _job(
    output: pathlib.Path,
    times: int,
    beam_flags: list[str],
    facts: dict[str, Any],
    last: dict[str, float],
    name: str,
) -> float:
    """Runs the job; returns its speed, and notes its seconds in `last` and `facts`."""
    arguments = [
        f"--output_dir={output}", "--overwrite", "--noutterances",
        f"--num_shards={_NUM_SHARDS.value}", f"--mixtures_per_utterance={times}",
        *(f"--manifest={path}" for path in _MANIFESTS.value),
        *(f"--input_dir={path}" for path in _FOLDERS.value),
    ]  # fmt: skip
    start = time.perf_counter()
    job = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *beam_flags, *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    last[name] = time.perf_counter() - start
    cli.require(job.returncode == 0, f"pipeline.preprocess failed: {job.stderr[-500:]}")
    facts[f"{name}: seconds of each step, last run"] = {
        step: float(seconds)
        for step, seconds in re.findall(r"(\w+) ([\d.]+) s\b", job.stdout.splitlines()[-1])
    }
    splits = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))["splits"].values()
    return sum(split["seconds"] for split in splits) / last[name]


if __name__ == "__main__":
    cli.run(main, __doc__)
