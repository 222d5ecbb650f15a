"""Compares all networks: size, cost, speed on one core, and quality within a small training budget.

    python -m benchmarks.networks --data_dir=demo/dataset --minutes=10 --save

Size and cost are counted (`benchmarks.operations`). Speed is measured on the exported model with
random weights, which do not affect it. With --minutes, each network is trained for that long with
its default loss and mixing, and evaluated on the test split of the dataset, or of the datasets in
--test_dir; a second call resumes where the first one stopped. Minutes are those of two cores,
measured in CPU time, on which other programs have little effect. The table is printed as Markdown;
docs/networks.md has the one of this repository.
"""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import flags

from benchmarks import fresh, measure
from pipeline import cli

_NETWORKS = flags.DEFINE_list("networks", None, "Names of networks (default: all).")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Dataset to train on.")
_TEST_DIR = flags.DEFINE_multi_string("test_dir", None, "Datasets to test on (default: the same).")
_RUNS_DIR = flags.DEFINE_string("runs_dir", "runs/networks", "Folder of the training runs.")
_MINUTES = flags.DEFINE_float(
    "minutes", 0, "Training time of each network, on two cores.", lower_bound=0
)
_MIXTURES = flags.DEFINE_integer(
    "mixtures", 100, "Number of test mixtures of each dataset.", lower_bound=1
)
_SECONDS = flags.DEFINE_float(
    "seconds", 10, "Duration of the audio for timing the exported model.", lower_bound=1
)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/networks.json.")

# The trainer with a clock in which a second is two seconds of CPU time.
_TRAINER = (
    "import runpy, time; time.monotonic = lambda: time.process_time() / 2; "
    "runpy.run_module('trainer.task', run_name='__main__')"
)
# Number of steps between validations; fewer if steps are slow.
_STEPS = 50
_LONG = 0.6  # G multiply-adds per second of audio


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    if _MINUTES.value and not _DATA_DIR.value:
        raise flags.Error("--minutes needs --data_dir")
    from models import registry

    names = _NETWORKS.value or registry.names()
    rows = []
    for name in names:
        print(name, file=sys.stderr, flush=True)
        # One process each, so that no network's graph or memory affects another.
        row = {"network": name, **fresh.in_a_process(_cost, name)}
        row |= fresh.in_a_process(_speed, name, _SECONDS.value)
        if _MINUTES.value:
            row |= _trained(name, row["G multiply-adds a second"])
        rows.append(row)
    print(markdown(rows))
    if _SAVE.value:
        measure.write("networks", {"minutes": _MINUTES.value, "rows": rows})


def markdown(rows: list[dict[str, Any]]) -> str:
    """Formats the rows as a table."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    lines = ["| " + " | ".join(titles) + " |", "|:--" + "|--:" * (len(titles) - 1) + "|"]
    for row in rows:
        cells = (row.get(title, "") for title in titles)
        texts = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _cost(name: str) -> dict[str, Any]:
    from benchmarks import operations
    from models import registry

    found = operations.cost(registry.create(name))
    return {
        "parameters, M": found.parameters / 1e6,
        "G multiply-adds a second": found.multiply_adds / 1e9,
    }


def _speed(name: str, seconds: float) -> dict[str, Any]:
    """Measures the exported model on one core, in multiples of real time, median of three."""
    measure.use_one_core()
    from export.separation import loading

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        exported = pathlib.Path(folder) / name
        fresh.export(name, str(exported))
        model = loading.load(exported)
        noise = np.random.default_rng(0).standard_normal((1, round(seconds * 8000)), np.float32)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            model.separate(0.05 * noise)
            times.append(time.perf_counter() - start)
    return {"× real time on one core": seconds / float(np.median(times[1:]))}


def _trained(name: str, cost: float) -> dict[str, Any]:
    """Trains within the budget and returns the SI-SDR improvement on the test splits."""
    run = pathlib.Path(_RUNS_DIR.value) / name
    report = run / "report"
    steps = max(2, round(_STEPS * min(1.0, _LONG / cost)))
    _run(
        "-c", _TRAINER, f"--data_dir={_DATA_DIR.value}", f"--model={name}", f"--model_dir={run}",
        "--epochs=100000", f"--steps_per_epoch={steps}", "--patience=0", "--schedule=constant",
        "--notensorboard", f"--max_minutes={_MINUTES.value}",
    )  # fmt: skip
    tests = _TEST_DIR.value or [_DATA_DIR.value]
    _run(
        "-m", "export.evaluate", f"--model={run}", *(f"--data_dir={test}" for test in tests),
        f"--output_dir={report}", f"--max_mixtures={_MIXTURES.value}", "--metrics=si_sdr",
        "--examples=0", "--overwrite",
    )  # fmt: skip
    with open(report / "results.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == name]
    return {
        f"dB after {_MINUTES.value:g} minutes, {data}": float(
            np.mean([float(r["si_sdr_improvement"]) for r in rows if r["dataset"] == data])
        )
        for data in dict.fromkeys(row["dataset"] for row in rows)
    }


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cli.run(main, __doc__)
