"""Compares windows per second from tf.data, a PyTorch DataLoader, training and the floor.

    python -m benchmarks.input --data_dir=/data/mix --save

It uses the trainer's defaults: shuffled windows of 100 frames, batches of 64, the network `lstm`.
The DataLoader reads the same windows from memory-mapped .npy files, its fastest option; run
`make alternatives` first, or pass --noalternatives. Training uses a single batch in memory, so it
never waits for input. All figures except the disk's are with files in the page cache.

The floor is one window's share of the dataset's bytes divided by the read bandwidth (disk: after
asking the system to drop the cache; memory: read again), and the bytes of a window divided by the
copy bandwidth. The windows that a GPU needs are computed from the operations of a training step of
`lstm` and the rate published by its manufacturer: it cannot train on more.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import children, floor, measure
from pipeline import cli
from pipeline.io.cores import available_cores

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the dataset.")
_MODEL = flags.DEFINE_string("model", "lstm", "The network.")
_ALTERNATIVES = flags.DEFINE_bool("alternatives", True, "Also measure the alternatives.")
_STEPS = flags.DEFINE_integer("steps", 20, "Training steps per round.", lower_bound=2)
_SECONDS = flags.DEFINE_float("seconds", 10, "How long to read the input.", lower_bound=0.1)
_WINDOWS = flags.DEFINE_integer(
    "windows", 8192, "Maximum number of windows in .npy files.", lower_bound=64
)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/input.json.")

_BATCH = 64
# NVIDIA's data sheet of the H200 (SXM), dense: bfloat16 and TF32, operations per second.
_H200 = {"bfloat16": 989e12, "TF32": 494e12}
_BUFFER = 4 << 20


def main(arguments: list[str]) -> None:
    if arguments or not _DATA_DIR.value:
        raise flags.Error("--data_dir is needed, and no other argument")
    cores = available_cores()
    facts: dict[str, Any] = {"network": _MODEL.value}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        given = json.dumps([os.path.abspath(_DATA_DIR.value), _MODEL.value])
        ours = stack.enter_context(children.Child("benchmarks.input_ours", given, threads=cores))
        about = ours.ask("about")
        shards = about.pop("shards")
        facts |= about
        jobs: dict[str, Callable[[], float]] = {}
        jobs["tf.data"] = lambda: ours.ask("deliver", _SECONDS.value)
        jobs["tf.data, --cache"] = lambda: ours.ask("deliver cached", _SECONDS.value)
        jobs["training"] = lambda: ours.ask("train", _STEPS.value)
        if cores > 1:
            one = stack.enter_context(children.Child("benchmarks.input_ours", given, threads=1))
            jobs["tf.data, one core"] = lambda: one.ask("deliver", _SECONDS.value)
        if _ALTERNATIVES.value:
            facts["windows in .npy files"] = ours.ask("write npy", folder, _WINDOWS.value)
            there = stack.enter_context(
                children.Child("benchmarks.input_torch", folder, python=children.alternatives())
            )
            facts["alternatives"] = there.ask("about")
            jobs["DataLoader, in its process"] = lambda: there.ask(
                "deliver", _SECONDS.value, 0, _BATCH
            )
            jobs[f"DataLoader, {cores} workers"] = lambda: there.ask(
                "deliver", _SECONDS.value, cores, _BATCH
            )
        share = sum(map(os.path.getsize, shards)) / about["windows"]
        facts["bytes of the dataset for a window"] = round(share)
        jobs["floor: disk"] = lambda: _read(shards, forget=True) / share
        jobs["floor: memory"] = lambda: _read(shards, forget=False) / share
        jobs["floor: copying"] = lambda: _copy() / about["bytes of a window"]
        figures = measure.interleave(jobs, _ROUNDS.value)
    facts |= _needed()
    ratios = {
        f"{ours} / {other}": (ours, other)
        for ours in ("tf.data", "tf.data, --cache")
        for other in figures
        if not other.startswith("tf")
    }
    measure.report("input", "windows/s", figures, ratios, facts, _SAVE.value)


def _needed() -> dict[str, Any]:
    """Computes windows per second for a GPU that trains at its full rate."""
    sizes = {"batch": _BATCH, "frames": 100, "bins": 129, "units": 300, "layers": 2}
    step = floor.operations(floor.products(**sizes, directions=1))
    facts: dict[str, Any] = {"G operations of training lstm on a window": step / _BATCH / 1e9}
    for precision, rate in _H200.items():
        facts[f"windows/s that an H200 trains lstm on at most, {precision}"] = round(
            rate / (step / _BATCH)
        )
    return facts


def _read(paths: Sequence[str], forget: bool) -> float:
    """Measures bytes per second when reading files one after the other."""
    for path in paths:
        with open(path, "rb") as file:
            if forget:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    count, start, buffer = 0, time.perf_counter(), bytearray(_BUFFER)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                count += got
    return count / (time.perf_counter() - start)


def _copy() -> float:
    """Measures bytes per second when copying more than the caches hold."""
    source = np.ones(256 << 20, np.uint8)
    target = np.zeros_like(source)
    return source.size / children.fastest(lambda: np.copyto(target, source), 0.5)


if __name__ == "__main__":
    cli.run(main, __doc__)
