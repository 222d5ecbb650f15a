"""Tests whether the Beam job's memory and speed stay constant as the corpus grows.

    python -m benchmarks.scale --utterances=10000,30000,100000 --save

For each size it generates a corpus of short recordings in a temporary folder (13 KB per utterance,
and 60 KB of dataset) and runs the job on it with one process per core. Peak memory is the kernel's
VmHWM, for the main process and its largest worker. Speed is relative to the CPU time of all
processes, on which other programs have little effect.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from typing import Any

import numpy as np
from absl import flags

from benchmarks import measure
from pipeline import cli, schema
from pipeline.io.cores import available_cores

_UTTERANCES = flags.DEFINE_list("utterances", ["10000", "30000", "100000"], "Sizes of corpora.")
_WORKERS = flags.DEFINE_integer(
    "workers", 0, "Number of processes; 0 for one per core.", lower_bound=0
)
_FOLDER = flags.DEFINE_string("folder", None, "Where to create the temporary folder.")
_REPEATS = flags.DEFINE_integer("repeats", 1, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/scale.json.")

_RATE = 8000
# The shortest duration that leaves half a second of activity in every mixture.
_SECONDS = 0.8
_PER_SPEAKER = 100
_PER_SHARD = 500


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    sizes = [int(size) for size in _UTTERANCES.value]
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=_FOLDER.value) as folder:
        jobs = {
            f"{size:,d} utterances": lambda size=size: _job(size, pathlib.Path(folder), facts)
            for size in sizes
        }
        figures = measure.interleave(jobs, _REPEATS.value)
    names = list(figures)
    ratios = {"largest / smallest": (names[-1], names[0])}
    measure.report("scale", "utterances a second of one core", figures, ratios, facts, _SAVE.value)


def _job(size: int, folder: pathlib.Path, facts: dict[str, Any]) -> float:
    corpus, output = folder / "corpus", folder / "dataset"
    _write_corpus(corpus, size)
    workers = _WORKERS.value or available_cores()
    given = [
        f"--input_dir={corpus}", f"--output_dir={output}", "--min_seconds=0.5",
        f"--num_shards={max(1, size // _PER_SHARD)}", f"--direct_num_workers={workers}",
    ]  # fmt: skip
    log = folder / "log"
    start = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.preprocess", *given], stdout=file, stderr=file
        )
        peaks = _watch(process)
    took = time.perf_counter() - start
    said = log.read_text(encoding="utf-8")
    cli.require(process.returncode == 0, f"pipeline.preprocess failed: {said[-500:]}")
    info = json.loads((output / schema.INFO_FILE).read_text(encoding="utf-8"))
    splits = info["splits"].values()
    facts[f"{size:,d} utterances"] = {
        "main process, MB": round(peaks["main"]),
        "largest worker, MB": round(peaks["worker"]),
        "wall seconds": round(took, 1),
        "core seconds": round(peaks["cpu"], 1),
        **{f"{step}, s": float(s) for step, s in re.findall(r"(\w+) ([\d.]+) s\b", said)},
        "mixtures": sum(split["mixtures"] for split in splits),
        "dataset, MB": round(sum(s["bytes"] for split in splits for s in split["shards"]) / 1e6),
    }
    shutil.rmtree(corpus)
    shutil.rmtree(output)
    return size / peaks["cpu"]


def _write_corpus(folder: pathlib.Path, size: int) -> None:
    """Writes files with different sections of noise."""
    random = np.random.default_rng(0)
    noise = (1000 * random.standard_normal(2**20)).astype("<i2").tobytes()
    num_bytes = 2 * round(_SECONDS * _RATE)
    for number in range(size):
        speaker = folder / f"speaker{number // _PER_SPEAKER:05d}"
        if number % _PER_SPEAKER == 0:
            speaker.mkdir(parents=True)
        place = 2 * int(random.integers((len(noise) - num_bytes) // 2))
        with wave.open(str(speaker / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, _RATE, 0, "NONE", ""))
            file.writeframes(noise[place : place + num_bytes])


def _watch(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> dict[str, float]:
    """Returns the peak memory, in MB, of a process and its largest child, and the time of all."""
    peaks = {"main": 0.0, "worker": 0.0}
    seconds: dict[int, float] = {}
    while process.poll() is None:
        parents: dict[int, int] = {}
        memory: dict[int, float] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                fields = _status(entry.path)
                parents[int(entry.name)] = int(fields.get("PPid", "0"))
                memory[int(entry.name)] = int(fields.get("VmHWM", "0 kB").split()[0]) / 1000
        family = {process.pid}
        while more := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= more
        peaks["main"] = max(peaks["main"], memory.get(process.pid, 0.0))
        workers = [memory.get(pid, 0.0) for pid in family - {process.pid}]
        peaks["worker"] = max([peaks["worker"], *workers])
        seconds |= {pid: _cpu_seconds(pid) or seconds.get(pid, 0.0) for pid in family}
        time.sleep(0.2)
    return {**peaks, "cpu": sum(seconds.values())}


def _cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(path: str) -> dict[str, str]:
    try:
        with open(f"{path}/status", encoding="utf-8", errors="replace") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return {}


if __name__ == "__main__":
    cli.run(main, __doc__)
