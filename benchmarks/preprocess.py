"""Beam job against a bare loop that does the same work, and against the original's generator.

    python -m benchmarks.preprocess --manifest=speech/manifest.csv --save

The bare loop writes mixtures and nothing else, and so does the job that it is compared with
(`--noutterances`); what the clean utterances cost, which the job writes as well unless told not to,
is a figure of its own. All runs are over the same recordings, on as many processes as there are
cores (taskset narrows them down) where the name does not say «one core». Times are of the whole
command, with its start.
"""

import json
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from absl import flags

from benchmarks import baselines, measure
from pipeline import command, corpus, schema

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Rounds.", lower_bound=1)
_ONE_CORE_PAIRS = flags.DEFINE_integer(
    "one_core_pairs", 400, "Mixtures that the runs on one core make.", lower_bound=1
)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/preprocess.json.")


def main(arguments: list[str]) -> None:
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    utterances = corpus.read(_FOLDERS.value, _MANIFESTS.value).utterances
    pairs = baselines.pair(utterances)
    few = pairs[:: max(1, len(pairs) // _ONE_CORE_PAIRS.value)]
    facts: dict[str, Any] = {"recordings": len(utterances)}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        jobs = {
            "Beam job": lambda: _beam_job(pathlib.Path(folder), facts, "--noutterances"),
            "Beam job, utterances too": lambda: _beam_job(pathlib.Path(folder), facts),
            "bare loop": lambda: _bare_loop(pairs, pathlib.Path(folder), facts),
            "bare loop, one core": lambda: (
                _on_one_core(baselines.bare_shard, few, pathlib.Path(folder)).speed
            ),
            "original, one core": lambda: _original(few, pathlib.Path(folder), facts),
        }
        figures = measure.interleave(jobs, _REPEATS.value)
    ratios = {
        "Beam job / bare loop": ("Beam job", "bare loop"),
        "Beam job, utterances too / Beam job": ("Beam job, utterances too", "Beam job"),
        "bare loop / original, one core": ("bare loop, one core", "original, one core"),
    }
    unit = "times real time"
    measure.report("preprocess", unit, figures, ratios, facts, _SAVE.value)


def _beam_job(folder: pathlib.Path, facts: dict[str, Any], *more: str) -> float:
    output = folder / "dataset"
    arguments = [f"--output_dir={output}", "--overwrite", *more]
    arguments += [f"--manifest={path}" for path in _MANIFESTS.value]
    arguments += [f"--input_dir={path}" for path in _FOLDERS.value]
    start = time.perf_counter()
    job = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *arguments], capture_output=True, text=True
    )
    took = time.perf_counter() - start
    command.require(job.returncode == 0, f"pipeline.preprocess failed: {job.stderr[-500:]}")
    splits = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))["splits"].values()
    seconds = sum(split["seconds"] for split in splits)
    size = sum(shard["bytes"] for split in splits for shard in split["shards"])
    facts["Beam job: mixtures, hours, KB a second"] = [
        sum(split["mixtures"] for split in splits),
        round(seconds / 3600, 2),
        round(size / seconds / 1000, 1),
    ]
    return seconds / took


def _bare_loop(pairs: list[baselines.Pair], folder: pathlib.Path, facts: dict[str, Any]) -> float:
    output = baselines.bare_loop(pairs, folder, measure.num_cores())
    facts["bare loop: mixtures, hours"] = [len(pairs), round(output.read / 3600, 2)]
    return output.speed


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
    """Runs in a process of its own, whose threads stay on one core."""
    with multiprocessing.get_context("spawn").Pool(1, measure.use_one_core) as pool:
        return pool.apply(job, (pairs, folder / "one_core"))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command.run(main, __doc__)
