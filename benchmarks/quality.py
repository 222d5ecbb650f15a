"""Measures time to quality: minutes until the LSTM exceeds 3 dB on unseen voices.

    python -m benchmarks.quality --data_dir=demo/dataset --save

trains on the dataset of `make demo` with all cores: once like `trainer.task`, and once with Keras'
own LSTM layers. Both runs see the same mixtures in the same order, and stop when the validation
SI-SDR improvement exceeds the goal. The curves are stored with the result.
"""

import csv
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import measure
from pipeline import cli, errors, file_names

_DATA = flags.DEFINE_string("data_dir", "demo/dataset", "A dataset.")
_GOAL = flags.DEFINE_float("goal_db", 3.0, "SI-SDR improvement on the valid split, in dB.")
_MINUTES = flags.DEFINE_float("max_minutes", 15.0, "When to give up a run.", lower_bound=0.1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps between two validations.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/quality.json.")

# Programs that run instead of `python -m trainer.task`.
_PROGRAMS = {
    "fused": "import runpy; runpy.run_module('trainer.task', run_name='__main__')",
    "Keras' layers": (
        "import runpy; from models.layers import fused_lstm; "
        "fused_lstm.set_fused = lambda *_: None; "
        "runpy.run_module('trainer.task', run_name='__main__')"
    ),
}


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    curves = {}
    for name, program in _PROGRAMS.items():
        with tempfile.TemporaryDirectory(prefix="quality-") as folder:
            print(f"{name}: training", file=sys.stderr, flush=True)
            curves[name] = _train(program, pathlib.Path(folder) / "run")
    for name, curve in curves.items():
        if not curve or curve[-1][1] < _GOAL.value:
            raise errors.UserError(
                f"{name}: {_GOAL.value:g} dB not reached in {_MINUTES.value:g} minutes"
            )
    figures = {name: [curve[-1][0]] for name, curve in curves.items()}
    facts: dict[str, Any] = {
        "goal, dB": _GOAL.value,
        "data": _DATA.value,
        "curves, minutes and dB": curves,
    }
    ratios = {"fused / Keras' layers": ("fused", "Keras' layers")}
    measure.report("quality", "min", figures, ratios, facts, _SAVE.value)


def _train(program: str, folder: pathlib.Path) -> list[tuple[float, float]]:
    """Trains until the goal or the time limit; returns minutes and dB of each validation."""
    run = subprocess.Popen(
        [
            sys.executable, "-c", program, f"--data_dir={_DATA.value}", "--model=lstm",
            f"--model_dir={folder}", "--epochs=1000", f"--steps_per_epoch={_STEPS.value}",
            "--learning_rate=2e-3", "--patience=0", "--schedule=constant", "--notensorboard",
            f"--max_minutes={_MINUTES.value}",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    curve: list[tuple[float, float]] = []
    try:
        while run.poll() is None and not (curve and curve[-1][1] >= _GOAL.value):
            time.sleep(0.5)
            curve = _curve(folder / file_names.TRAINING_LOG)
        # The exit code is also 0 if the time is up.
        cli.require(not run.poll(), "the trainer failed; its last lines are above")
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()
    return _curve(folder / file_names.TRAINING_LOG)


def _curve(path: pathlib.Path) -> list[tuple[float, float]]:
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = 0.0
    curve = []
    for row in rows:
        minutes += float(row["seconds"]) / 60
        curve.append((round(minutes, 3), round(float(row["val_si_sdr_improvement"]), 3)))
        if curve[-1][1] >= _GOAL.value:
            break
    return curve


if __name__ == "__main__":
    cli.run(main, __doc__)
