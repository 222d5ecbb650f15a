"""Compares the Beam job's runners, local and Flink, with one worker and with many, and a bare loop.

    python -m benchmarks.runners --manifest=speech/manifest.csv --save

Each produces only the same mixtures (`--noutterances`). Times are for the whole command; the
cluster is started beforehand, and its start-up time is reported separately. Flink is skipped if it
is not installed.
"""

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import baselines, measure
from pipeline import cli, schema
from pipeline.corpora import corpus
from pipeline.io.cores import available_cores
from tools import flink

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_TIMES = flags.DEFINE_integer(
    "mixtures_per_utterance", 1, "More work from the same recordings.", lower_bound=1
)
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 32, "Number of files per split.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/runners.json.")


def main(arguments: list[str]) -> None:
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    cores = available_cores()
    utterances = corpus.read(_FOLDERS.value, _MANIFESTS.value).utterances
    pairs = baselines.pair(utterances) * _TIMES.value
    facts: dict[str, Any] = {"recordings": len(utterances), "mixtures": len(pairs)}
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs: dict[str, Callable[[], float]] = {}
        for number in sorted({1, cores}):
            workers = f"{number} process{'es' * (number > 1)}"
            jobs[f"bare loop, {workers}"] = lambda n=number: (
                baselines.bare_loop(pairs, folder, n).speed
            )
            jobs[f"local, {workers}"] = lambda n=number, name=f"local, {workers}": _job(
                folder / "dataset", name, facts, [f"--direct_num_workers={n}"]
            )
        if flink.JARS.missing():
            print(f"without Flink: {flink.JARS.missing()}", file=sys.stderr)
        else:
            start = time.perf_counter()
            cluster = stack.enter_context(flink.Cluster(folder / "flink", cores, 1))
            facts["seconds to start Flink"] = round(time.perf_counter() - start, 1)
            for number in sorted({1, cores}):
                name = f"Flink, parallelism {number}"
                jobs[name] = lambda n=number, name=name: _job(
                    folder / "dataset", name, facts, cluster.beam_flags(n)
                )
        figures = measure.interleave(jobs, _REPEATS.value)
    ratios = {
        f"{name} / bare loop, 1 process": (name, "bare loop, 1 process")
        for name in jobs
        if name != "bare loop, 1 process"
    }
    measure.report("runners", "times real time", figures, ratios, facts, _SAVE.value)


def _job(output: pathlib.Path, name: str, facts: dict[str, Any], beam_flags: list[str]) -> float:
    arguments = [
        f"--output_dir={output}", "--overwrite", "--noutterances",
        f"--num_shards={_NUM_SHARDS.value}", f"--mixtures_per_utterance={_TIMES.value}",
        *(f"--manifest={path}" for path in _MANIFESTS.value),
        *(f"--input_dir={path}" for path in _FOLDERS.value),
    ]  # fmt: skip
    start = time.perf_counter()
    job = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *beam_flags, *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    took = time.perf_counter() - start
    cli.require(job.returncode == 0, f"pipeline.preprocess failed: {job.stderr[-500:]}")
    facts[f"{name}: seconds of each step, last run"] = {
        step: float(seconds)
        for step, seconds in re.findall(r"(\w+) ([\d.]+) s\b", job.stdout.splitlines()[-1])
    }
    splits = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))["splits"].values()
    return sum(split["seconds"] for split in splits) / took


if __name__ == "__main__":
    cli.run(main, __doc__)
