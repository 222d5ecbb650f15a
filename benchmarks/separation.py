"""Separation with every exported network, beside models of asteroid, speechbrain and PyTorch.

    python -m benchmarks.separation --save
    python -m benchmarks.separation --networks=lstm,conv_tasnet --rounds=3
    python -m benchmarks.separation --model=exported/lstm

`make alternatives` first, or --noalternatives. All have random weights: speed does not depend on
them. For each network and number of cores: times real time on --seconds of audio, how long it takes
to separate one second of it, and peak memory, in a process of its own that has been warmed up. An
alternative is measured in turn with the network that it is an alternative to. `as command` is what
`export.separate` does besides: chunks, seams, order.
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
_ALTERNATIVES = flags.DEFINE_bool("alternatives", True, "Measure those, too.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 10, "Length of the recording.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/separation.json.")

# What each network is an alternative to; sizes are the same, but for SepFormer's.
RIVALS = {
    "lstm": ["PyTorch LSTM"],
    "blstm": ["PyTorch BLSTM"],
    "conv_tasnet": ["asteroid ConvTasNet", "speechbrain ConvTasNet"],
    "sepreformer": ["speechbrain SepFormer"],
}
_SPEED, _LATENCY = "times real time", "s"


def main(arguments: list[str]) -> None:
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
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
    """The folder that the flag names, or one with a fresh network while the context lasts."""
    if not name:
        yield _MODEL.value
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        exported = pathlib.Path(folder) / name
        fresh.in_a_process(fresh.export, name, str(exported))
        yield str(exported)


if __name__ == "__main__":
    cli.run(main, __doc__)
