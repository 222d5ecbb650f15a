"""Compares all exported networks with models of asteroid, speechbrain and PyTorch.

    python -m benchmarks.separation --save
    python -m benchmarks.separation --networks=lstm,conv_tasnet --rounds=3
    python -m benchmarks.separation --model=exported/lstm

Run `make alternatives` first, or pass --noalternatives. All models have random weights, which do
not affect speed. For each network and number of cores it measures, in a warmed-up process of its
own: the speed on --seconds of audio as a multiple of real time, the time to separate one second of
audio, and peak memory. Runs of an alternative are interleaved with those of its counterpart.
`as command` includes the further work of `export.separate`: chunks, seams, order.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from absl import flags

from benchmarks import children, fresh, measure
from pipeline import cli
from pipeline.io.cores import available_cores

_MODEL = flags.DEFINE_string("model", None, "Folder of a SavedModel, instead of fresh networks.")
_NETWORKS = flags.DEFINE_list("networks", None, "Names of networks (default: all).")
_CORES = flags.DEFINE_list("cores", None, "Numbers of cores (default: 1 and all).")
_ALTERNATIVES = flags.DEFINE_bool("alternatives", True, "Also measure the alternatives.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 10, "Duration of the recording.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/separation.json.")

# The alternatives to each network; sizes are the same, except for SepFormer.
RIVALS = {
    "lstm": ["PyTorch LSTM"],
    "blstm": ["PyTorch BLSTM"],
    "conv_tasnet": ["asteroid ConvTasNet", "speechbrain ConvTasNet"],
    "sepreformer": ["speechbrain SepFormer"],
}
_SPEED, _LATENCY = "times real time", "s"


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    from models import registry

    cores = [int(n) for n in _CORES.value or sorted({1, available_cores()})]
    names = [""] if _MODEL.value else _NETWORKS.value or list(registry.names())
    figures: dict[str, list[float]] = {}
    facts: dict[str, Any] = {"seconds of audio": _SECONDS.value}
    ratios: dict[str, tuple[str, str]] = {}
    for name in names:
        rivals = RIVALS.get(name, []) if _ALTERNATIVES.value else []
        with _folder(name) as folder:
            for count in cores:
                _measure(name or "model", folder, rivals, count, figures, facts, ratios)
    units = {job: _LATENCY if "one second" in job else _SPEED for job in figures}
    measure.report("separation", units, figures, ratios, facts, _SAVE.value)


def _measure(
    name: str,
    folder: str,
    rivals: list[str],
    cores: int,
    figures: dict[str, list[float]],
    facts: dict[str, Any],
    ratios: dict[str, tuple[str, str]],
) -> None:
    audio, on = _SECONDS.value, f"on {cores} core{'s' if cores > 1 else ''}"
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(
                children.Child("benchmarks.separation_ours", folder, threads=cores)
            )
        }
        for rival in rivals:
            running[rival] = stack.enter_context(
                children.Child(
                    "benchmarks.separation_torch", rival, python=children.alternatives(),
                    threads=cores,
                )
            )  # fmt: skip
        jobs = {}
        for who, child in running.items():
            child.ask("seconds", 1.0)
            child.ask("seconds", audio)
            jobs[f"{who}, {on}"] = lambda child=child: audio / child.ask("seconds", audio)
            jobs[f"{who}, one second, {on}"] = lambda child=child: child.ask("seconds", 1.0)
        ours = running[name]
        ours.ask("seconds as command", audio)
        jobs[f"{name} as command, {on}"] = lambda: audio / ours.ask("seconds as command", audio)
        figures |= measure.interleave(jobs, _ROUNDS.value)
        for who, child in running.items():
            facts[f"{who}, {on}"] = child.ask("about")
    for rival in rivals:
        for what in ("", "one second, "):
            pair = (f"{name}, {what}{on}", f"{rival}, {what}{on}")
            ratios[f"{name} / {rival}, {what}{on}"] = pair
    ratios[f"{name} as command / SavedModel, {on}"] = (
        f"{name} as command, {on}", f"{name}, {on}",
    )  # fmt: skip


@contextlib.contextmanager
def _folder(name: str) -> Iterator[str]:
    """Yields the folder given by the flag, or a temporary one with a fresh network."""
    if not name:
        yield _MODEL.value
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        exported = pathlib.Path(folder) / name
        fresh.in_a_process(fresh.export, name, str(exported))
        yield str(exported)


if __name__ == "__main__":
    cli.run(main, __doc__)
