"""Measures a causal model's time per block of a stream, relative to the block, on one core.

    python -m benchmarks.stream --save
    python -m benchmarks.stream --model=exported/lstm --hops=1 --hops=2

Without --model, the three networks that can process a stream are exported first, in their default
size (the TCN and Conv-TasNet causal) and with random weights, which do not affect speed.
`export.separation.stream.Stream` is given the samples for one call of the model at a time; above 1,
it would fall behind the input. Percentiles are over all calls of a run; memory is the process's
peak, and its growth since the first tenth of the run.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from benchmarks import children, fresh, measure
from pipeline import cli

_MODELS = flags.DEFINE_multi_string("model", [], "Folder of a SavedModel with a stream.")
_HOPS = flags.DEFINE_multi_integer(
    "hops", [], "Hops per call of the model (default: 1, and 16 ms)."
)
_SECONDS = flags.DEFINE_float("seconds", 60, "Duration of the audio per run.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/stream.json.")
_ONE = flags.DEFINE_string(
    "one", "", "Run and print a single MODEL:HOPS; used by the benchmark's child."
)

_BLOCK_SECONDS = 0.016
_NETWORKS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "tcn": {"causal": True},
    "conv_tasnet": {"causal": True},
}


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    measure.use_one_core()
    if _ONE.value:
        folder, _, hops = _ONE.value.rpartition(":")
        print(*_run(folder, int(hops)))
        return
    facts: dict[str, Any] = {"seconds of audio": _SECONDS.value}
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        jobs = {}
        for folder in _MODELS.value or _export(place):
            for name, hops, about in _cases(folder):
                jobs[name] = f"{folder}:{hops}"
                facts[name] = about
        for number in range(_REPEATS.value):
            for name, job in jobs.items():
                print(f"round {number + 1} of {_REPEATS.value}: {name}", file=sys.stderr)
                half, most, begin, growth, peak = _child(job)
                for title, value in (("50 %", half), ("99 %", most)):
                    figures.setdefault(f"{name}, {title}", []).append(value)
                facts[f"{name}, seconds to begin; MB of memory: peak, growth"] = [
                    round(begin, 2), round(peak), round(growth, 1),
                ]  # fmt: skip
    measure.report("stream", "of the block's length", figures, {}, facts, _SAVE.value)


def _export(place: str) -> list[str]:
    """Exports fresh models in separate processes, so that TensorFlow is not loaded in this one."""
    folders = []
    for name, settings in _NETWORKS.items():
        folders.append(os.path.join(place, name))
        fresh.in_a_process(fresh.export, name, folders[-1], settings)
    return folders


def _cases(folder: str) -> list[tuple[str, int, str]]:
    """Returns the name, hops per call, and a short description of each run of a model."""
    from export.outlets import model_info
    from pipeline import file_names

    text = pathlib.Path(folder, file_names.MODEL_INFO).read_text(encoding="utf-8")
    info = model_info.ModelInfo.from_json(text)
    if info.stream is None:
        raise flags.Error(f"{folder} has no stream: it is not causal")
    ms = 1000 / info.sample_rate
    several = max(1, round(_BLOCK_SECONDS * info.sample_rate / info.stream.hop))
    return [
        (
            f"{info.name}, {hops * info.stream.hop * ms:g} ms a call",
            hops,
            f"{info.num_parameters:,} parameters; hop {info.stream.hop * ms:g} ms, delay "
            f"{info.stream.delay * ms:g} ms",
        )
        for hops in _HOPS.value or sorted({1, several})
    ]


def _child(job: str) -> list[float]:
    """Runs one case in its own process, so that none starts warm or with another's memory."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream", f"--one={job}", f"--seconds={_SECONDS.value}"],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def _run(folder: str, hops: int) -> tuple[float, ...]:
    """Returns call times relative to the block; seconds to start; memory growth and peak in MB."""
    from export.separation import loading, stream

    model = loading.load(folder)
    assert model.info.stream is not None
    seconds = hops * model.info.stream.hop / model.sample_rate
    start = time.perf_counter()
    follower = stream.Stream(model, gain_db=0, block_seconds=seconds)
    begin = time.perf_counter() - start
    calls = max(20, int(_SECONDS.value / seconds))
    blocks = children.babble(calls * seconds + 1, model.sample_rate)[: calls * follower.block]
    blocks = blocks.reshape(calls, follower.block)
    times = np.zeros(calls)
    for i in range(calls):
        start = time.perf_counter()
        follower.feed(blocks[i])
        times[i] = time.perf_counter() - start
        if i == calls // 10:
            before = _resident_mb()
    half, most = np.percentile(times, [50, 99]) / seconds
    return float(half), float(most), begin, _resident_mb() - before, children.peak_megabytes()


def _resident_mb() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cli.run(main, __doc__)
