"""Measures what a shard costs besides its records: the same corpus in few and in many shards.

    python -m benchmarks.shard_size --input_dir=timit_sample --mixtures_per_utterance=8 --save

Runs the job on one local worker and measures the CPU time of the whole command, which hardly
depends on what else the machine does. The time of a shard is the slope between the smallest and the
largest number of shards.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
from typing import Any

from absl import flags

from benchmarks import measure
from pipeline import cli, schema

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_TIMES = flags.DEFINE_integer(
    "mixtures_per_utterance", 1, "More work from the same recordings.", lower_bound=1
)
_NUM_SHARDS = flags.DEFINE_list("num_shards", ["8", "64", "512"], "Numbers of files per split.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/shard_size.json.")


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    facts: dict[str, Any] = {}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = {}
        for number in sorted(map(int, _NUM_SHARDS.value)):
            name = f"--num_shards={number}"
            jobs[name] = lambda name=name: _job(pathlib.Path(folder, "out"), name, counts, facts)
        figures = measure.interleave(jobs, _REPEATS.value)
    first, *_, last = figures
    seconds = {name: statistics.median(values) for name, values in figures.items()}
    slope = (seconds[last] - seconds[first]) / (counts[last] - counts[first])
    facts["shards"] = counts
    facts["milliseconds of CPU time a shard"] = round(1000 * slope, 1)
    ratios = {f"{last} / {first}": (last, first)}
    measure.report("shard_size", "CPU seconds", figures, ratios, facts, _SAVE.value)


def _job(output: pathlib.Path, name: str, counts: dict[str, int], facts: dict[str, Any]) -> float:
    arguments = [
        f"--output_dir={output}", "--overwrite", "--noutterances", name, "--direct_num_workers=1",
        f"--mixtures_per_utterance={_TIMES.value}",
        *(f"--manifest={path}" for path in _MANIFESTS.value),
        *(f"--input_dir={path}" for path in _FOLDERS.value),
    ]  # fmt: skip
    before = _seconds()
    job = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *arguments], capture_output=True, text=True
    )
    cli.require(job.returncode == 0, f"pipeline.preprocess failed: {job.stderr[-500:]}")
    took = _seconds() - before
    splits = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))["splits"].values()
    counts[name] = sum(len(split["shards"]) for split in splits)
    facts["seconds of mixtures"] = round(sum(split["seconds"] for split in splits))
    return took


def _seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    cli.run(main, __doc__)
