"""Compares a training step on the CPU: this project's networks, Keras' layers, PyTorch, the floor.

    python -m benchmarks.step --save
    python -m benchmarks.step --networks=lstm --precisions=float32 --rounds=3

Run `make alternatives` first. The networks have two layers of 300 units, batch 64, 100 frames, 129
bins to two masks, and Adam. `network` is ours and `Keras` the same with Keras' layers, both with
PyTorch's loss, the mean squared error; `trainer` is the whole step of `trainer.task`. Each runs in
a process of its own on the same cores, in turn. bfloat16 is mixed precision in all of them.

`tcn` has the network's default size, `tcn_deep` a third repetition of blocks; their batch is 8
windows of 375 frames. Their `Keras` is the same network layer by layer, and their `trainer` uses
the SI-SDR of voices that are mixed and analysed within the step. `band_split` has four frames a
step; its batch is 6 windows of 250 frames, and it has no floor: its products follow one another.

The floor is the time of the step's matrix products at the rate of a large product, and at the rates
that the fastest library reaches for exactly these shapes, including the activations of the gates.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import children, floor, measure
from models import band_split
from pipeline import cli
from pipeline.io.cores import available_cores

_NETWORKS = flags.DEFINE_list(
    "networks",
    ["lstm", "blstm", "tcn", "tcn_deep", "band_split"],
    "lstm, blstm, tcn, tcn_deep, band_split.",
)
_PRECISIONS = flags.DEFINE_list("precisions", ["float32", "bfloat16"], "float32, bfloat16.")
_VARIANTS = flags.DEFINE_list(
    "variants", ["network", "trainer", "keras", "torch"], "What takes part."
)
_THREADS = flags.DEFINE_integer(
    "threads", 0, "Number of threads; 0 for one per core.", lower_bound=0
)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Number of rounds.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 3, "Steps per round, after one for warm-up.", lower_bound=1)
_JIT = flags.DEFINE_bool("jit", False, "Compile Keras' steps with XLA.")
_FLOOR = flags.DEFINE_bool("floor", True, "Measure the rates that the floor is based on.")
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/step.json.")

_TCN = {"batch": 8, "frames": 375, "width": 192, "units": 384, "layers": 7}
_NETWORKS_KNOWN: dict[str, dict[str, Any]] = {
    "lstm": {},
    "blstm": {},
    "tcn": {**_TCN, "repeats": 2},
    "tcn_deep": {**_TCN, "repeats": 3},
    "band_split": {
        "batch": 6, "frames": 250, "width": 64, "units": 64, "layers": 3, "stack": 4,
        "bands": band_split.BANDS,
    },
}  # fmt: skip
_TITLES = {"network": "network", "trainer": "trainer", "keras": "Keras", "torch": "PyTorch"}
_LARGE = (2048, 2048, 2048)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained; passed to the children as JSON."""

    network: str
    precision: str
    jit: bool = False
    batch: int = 64
    frames: int = 100
    bins: int = 129
    units: int = 300
    layers: int = 2
    width: int = 0
    repeats: int = 0
    stack: int = 0
    bands: tuple[tuple[int, int], ...] = ()

    @property
    def convolves(self) -> bool:
        """Whether it is a `tcn`."""
        return self.repeats > 0

    def sizes(self) -> dict[str, int]:
        """The sizes that determine the number of activations."""
        return {
            "batch": self.batch, "frames": self.frames, "units": self.units, "layers": self.layers,
            "directions": 2 if self.network == "blstm" else 1,
        }  # fmt: skip


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    for given, known in (
        (_VARIANTS.value, _TITLES),
        (_NETWORKS.value, _NETWORKS_KNOWN),
        (_PRECISIONS.value, ("float32", "bfloat16")),
    ):
        if unknown := set(given) - set(known):
            raise flags.Error(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
    threads = _THREADS.value or available_cores()
    facts: dict[str, Any] = {"threads": threads, "jit": _JIT.value}
    figures: dict[str, list[float]] = {}
    ratios: dict[str, tuple[str, str]] = {}
    for precision in _PRECISIONS.value:
        for network in _NETWORKS.value:
            case = Case(network, precision, _JIT.value, **_NETWORKS_KNOWN[network])
            _measure(case, threads, figures, facts)
            ratios |= _ratios(f"{network} {precision}", figures)
    measure.report("step", "s", figures, ratios, facts, _SAVE.value)


def _measure(
    case: Case, threads: int, figures: dict[str, list[float]], facts: dict[str, Any]
) -> None:
    label = f"{case.network} {case.precision}"
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(_start(name, case, threads)) for name in _VARIANTS.value
        }
        for name, child in list(running.items()):
            print(f"{label}: {_TITLES[name]} starts", file=sys.stderr, flush=True)
            try:
                child.ask("steps", 1)  # Traces, allocates, warms up.
                facts[f"{label}, {_TITLES[name]}"] = child.ask("about")
            except children.ChildError as error:
                # Such as PyTorch's bfloat16 LSTM on a processor without instructions for it.
                facts[f"{label}, {_TITLES[name]}"] = str(error).partition("}: ")[2]
                del running[name]
        jobs = {
            f"{label}, {_TITLES[name]}": lambda child=child: child.ask("steps", _STEPS.value)
            for name, child in running.items()
        }
        figures |= measure.interleave(jobs, _ROUNDS.value)
        if _FLOOR.value and case.precision == "float32" and not case.bands:
            figures |= _floor(case, running, facts)


def _start(name: str, case: Case, threads: int) -> children.Child:
    values = dataclasses.asdict(case)
    if name != "torch":
        given = json.dumps(values | {"variant": name})
        return children.Child("benchmarks.step_keras", given, threads=threads)
    return children.Child(
        "benchmarks.step_torch", json.dumps(values), python=children.alternatives(), threads=threads
    )


def _floor(
    case: Case, running: Mapping[str, children.Child], facts: dict[str, Any]
) -> dict[str, list[float]]:
    """Computes two floors in seconds, and adds what they are based on to `facts`."""
    # All variants on TensorFlow use the same matrix products.
    libraries = {("torch" if name == "torch" else "tensorflow"): c for name, c in running.items()}

    def fastest(job: str, *arguments: int) -> tuple[float, str]:
        return min((c.ask(job, *arguments, 0.5), name) for name, c in libraries.items())

    if case.convolves:
        rows = case.batch * -(-case.frames // 2)
        shapes = floor.products_of_blocks(
            rows=rows, bins=2 * case.bins, width=case.width, units=case.units,
            blocks=case.layers * case.repeats,
        )  # fmt: skip
        activations = 2 * rows * case.units * case.layers * case.repeats
    else:
        shapes = floor.products(**case.sizes(), bins=case.bins)
        activations = floor.activations(**case.sizes())
    operations = floor.operations(shapes)
    large, _ = fastest("matmul", *_LARGE)
    peak = floor.operations({_LARGE: 1}) / large
    rates, by_shape = {}, 0.0
    for (m, k, n), count in shapes.items():
        seconds, library = fastest("matmul", m, k, n)
        by_shape += count * seconds
        rate = floor.operations({(m, k, n): 1}) / seconds
        peak = max(peak, rate)  # On a busy machine small products may be faster.
        rates[f"[{m}, {k}] · [{k}, {n}], {count} times"] = f"{rate / 1e9:.0f} ({library})"
    rows = 5 * case.units
    seconds, _ = fastest("tanh", case.batch, rows)
    gates = seconds * activations / (case.batch * rows)
    label = f"{case.network} {case.precision}"
    facts[f"{label}: operations, G"] = round(operations / 1e9, 1)
    facts[f"{label}: best rate of a product, G operations/s"] = round(peak / 1e9)
    facts[f"{label}: rates in its shapes, G operations/s"] = rates
    facts[f"{label}: activations, s"] = round(gates, 4)
    return {
        f"{label}, floor": [operations / peak],
        f"{label}, floor in its shapes": [by_shape + gates],
    }


def _ratios(label: str, figures: Mapping[str, list[float]]) -> dict[str, tuple[str, str]]:
    pairs = [
        ("network", "PyTorch"), ("trainer", "PyTorch"), ("Keras", "PyTorch"), ("network", "Keras"),
        ("network", "floor in its shapes"), ("PyTorch", "floor in its shapes"),
    ]  # fmt: skip
    return {
        f"{label}: {a} / {b}": (f"{label}, {a}", f"{label}, {b}")
        for a, b in pairs
        if f"{label}, {a}" in figures and f"{label}, {b}" in figures
    }


if __name__ == "__main__":
    cli.run(main, __doc__)
