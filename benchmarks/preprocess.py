"""Compares the Beam job with a bare loop that does the same work, and the original's generator.

    python -m benchmarks.preprocess --manifest=speech/manifest.csv --save

All use the same recordings. The job inspects each recording before planning, so there is a bare
loop with inspection and one without. The job writes only mixtures (`--noutterances`) unless the
name says otherwise. Its figures are for its steps, as it prints them; the remaining time of the
command, for imports, planning and ending workers, is reported separately as its start. Processes on
one machine share its memory bandwidth and turbo frequency, so the speed-up of the bare loop is
given beside that of the job.
"""

import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import baselines, children, measure
from pipeline import cli, schema
from pipeline.corpora import corpus
from pipeline.io.cores import available_cores

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_ONE_CORE_PAIRS = flags.DEFINE_integer(
    "one_core_pairs",
    400,
    "Number of mixtures for the loop and the generator on one core.",
    lower_bound=1,
)
_TIMES = flags.DEFINE_integer(
    "mixtures_per_utterance", 1, "More give a small corpus enough to do.", lower_bound=1
)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/preprocess.json.")


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    utterances = corpus.read(_FOLDERS.value, _MANIFESTS.value).utterances
    once = baselines.pair(utterances)
    pairs = once * _TIMES.value
    few = once[:: max(1, len(pairs) // _ONE_CORE_PAIRS.value)] * _TIMES.value
    cores = available_cores()
    facts: dict[str, Any] = {"recordings": len(utterances), "mixtures on one core": len(few)}
    counts = sorted({1, cores})
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = pathlib.Path(name)
        jobs = {
            "original, one core": lambda: _original(few, folder, facts),
            "bare loop, one core": lambda: _on_one_core(baselines.bare_shard, few, folder).speed,
            "bare loop with inspection, one core": lambda: (
                _on_one_core(baselines.bare_shard_inspected, few, folder).speed
            ),
        }
        for count in counts:
            title = _beam(count)
            jobs[title] = lambda n=count, title=title: _beam_job(
                folder, facts, title, n, "--noutterances"
            )
            jobs[f"bare loop, {count} at a time"] = lambda n=count: (
                baselines.bare_loop(pairs, folder, n).speed
            )
        title = f"{_beam(cores)}, utterances too"
        jobs[title] = lambda: _beam_job(folder, facts, title, cores)
        figures = measure.interleave(jobs, _REPEATS.value)
    most = _beam(cores)
    ratios = {
        "bare loop / original, one core": ("bare loop, one core", "original, one core"),
        f"{_beam(1)} / original, one core": (_beam(1), "original, one core"),
        f"{_beam(1)} / bare loop with inspection": (
            _beam(1),
            "bare loop with inspection, one core",
        ),
        f"{_beam(1)} / bare loop": (_beam(1), "bare loop, one core"),
        f"{most} / {_beam(1)}": (most, _beam(1)),
        f"bare loop, {cores} at a time / 1 at a time": (
            f"bare loop, {cores} at a time",
            "bare loop, 1 at a time",
        ),
        f"{title} / without": (title, most),
    }
    unit = "times real time"
    measure.report("preprocess", unit, figures, ratios, facts, _SAVE.value)


def _beam(processes: int) -> str:
    return f"Beam job, {processes} process{'es' if processes > 1 else ''}"


def _beam_job(
    folder: pathlib.Path, facts: dict[str, Any], title: str, processes: int, *more: str
) -> float:
    """Measures the speed of the steps, with one core per process; the rest goes into `facts`."""
    output = folder / "dataset"
    arguments = [
        f"--output_dir={output}", "--overwrite", f"--direct_num_workers={processes}",
        f"--mixtures_per_utterance={_TIMES.value}", *more,
        *(f"--manifest={path}" for path in _MANIFESTS.value),
        *(f"--input_dir={path}" for path in _FOLDERS.value),
    ]  # fmt: skip
    start = time.perf_counter()
    job = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *arguments],
        capture_output=True, text=True, env=children.environment(),
        preexec_fn=lambda: children.keep_on_cores(processes),
    )  # fmt: skip
    took = time.perf_counter() - start
    cli.require(job.returncode == 0, f"pipeline.preprocess failed: {job.stderr[-500:]}")
    steps = {
        step: float(seconds)
        for step, seconds in re.findall(r"(\w+) ([\d.]+) s\b", job.stdout.splitlines()[-1])
    }
    splits = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))["splits"].values()
    seconds = sum(split["seconds"] for split in splits)
    size = sum(shard["bytes"] for split in splits for shard in split["shards"])
    facts[f"{title}: seconds of start and steps"] = {
        "start": round(took - sum(steps.values()), 1), **steps
    }  # fmt: skip
    facts["mixtures, hours, KB a second"] = [
        sum(split["mixtures"] for split in splits),
        round(seconds / 3600, 2),
        round(size / seconds / 1000, 1),
    ]
    return seconds / sum(steps.values())


def _original(pairs: list[baselines.Pair], folder: pathlib.Path, facts: dict[str, Any]) -> float:
    output = _on_one_core(baselines.original, pairs, folder)
    facts["original: KB a second kept, share thrown away"] = [
        round(output.bytes / output.kept / 1000, 1),
        round(1 - output.kept / output.read, 2),
    ]
    return output.speed


def _on_one_core(
    job: Callable[[list[baselines.Pair], pathlib.Path], baselines.Output],
    pairs: list[baselines.Pair],
    folder: pathlib.Path,
) -> baselines.Output:
    """Runs a job in a process of its own, restricted to one core."""
    with multiprocessing.get_context("spawn").Pool(1, measure.use_one_core) as pool:
        return pool.apply(job, (pairs, folder / "one_core"))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cli.run(main, __doc__)
