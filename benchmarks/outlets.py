"""Compares the export formats of one model: difference, size, speed and memory.

    python -m benchmarks.outlets --networks=lstm,tcn,conv_tasnet --save
    python -m benchmarks.outlets --model=runs/lstm --model=runs/conv_tasnet

Each format is loaded in its own process, on one core, and separates the same mixture; its voices
are compared with those of the SavedModel. Without --model and --networks, the shipped model is
used; networks have their default size and random weights.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import flags

from benchmarks import children, fresh, measure
from export import lite, onnx, pretrained, saved_model
from export.outlets import conversion
from export.separation import loading
from pipeline import cli, errors, file_names

_MODELS = flags.DEFINE_multi_string(
    "model", [], "A model, as for export.separate; may be repeated."
)
_NETWORKS = flags.DEFINE_list("networks", [], "Names of networks.")
_SECONDS = flags.DEFINE_float("seconds", 20, "Duration of the mixture.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/outlets.json.")
_RUN = flags.DEFINE_string("run", "", "Used by the command itself: the format to measure.")


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    measure.use_one_core()
    if _RUN.value:
        _run(_RUN.value)
        return
    jobs, facts, names = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        given = [*_MODELS.value, *(_fresh(name, folder) for name in _NETWORKS.value)]
        for path in map(pretrained.resolve, dict.fromkeys(given or [""])):
            label = pathlib.Path(path).name
            found = _outlets(path, pathlib.Path(folder) / "outlets" / label, facts)
            for outlet, file in found.items():
                names[f"{label}, {outlet}"] = file
        references: dict[str, np.ndarray] = {}
        for name, file in names.items():
            jobs[name] = lambda name=name, file=file: _measure(name, file, facts, references)
        figures = measure.interleave(jobs, _REPEATS.value)
    measure.report("outlets", "times real time", figures, {}, facts, _SAVE.value)


def _fresh(name: str, folder: str) -> str:
    """Exports a network with random weights."""
    exported = str(pathlib.Path(folder) / name)
    fresh.in_a_process(fresh.export, name, exported)
    return exported


def _outlets(path: str, folder: pathlib.Path, facts: dict) -> dict[str, str]:
    """Returns the file of each format by name, the SavedModel first."""
    folder.mkdir(parents=True)
    separator = conversion.separator_of(path)
    saved_model.write(separator, folder / "exported", lite=False)
    found = {"SavedModel": str(folder / "exported")}
    for outlet, write, file in (
        ("LiteRT", lite.write, "float.tflite"),
        ("LiteRT, float16", lambda s, f: lite.write(s, f, float16=True), "half.tflite"),
        ("LiteRT, int8", lambda s, f: lite.write(s, f, int8=True), "int8.tflite"),
        ("ONNX", onnx.write, "model.onnx"),
    ):
        try:
            write(separator, folder / file)
            found[outlet] = str(folder / file)
        except errors.UserError as error:
            facts[f"{folder.name}, {outlet}"] = str(error)
    return found


def _measure(name: str, file: str, facts: dict, references: dict[str, np.ndarray]) -> float:
    """Measures the speed of one format in a new process, as a multiple of real time."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "voices.npy"
        done = subprocess.run(
            [
                sys.executable, "-m", "benchmarks.outlets", f"--run={file}:{output}",
                f"--seconds={_SECONDS.value}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
        said = json.loads(done.stdout.splitlines()[-1])
        voices = np.load(output)
    # SavedModels come first.
    reference = references.setdefault(name.partition(",")[0], voices)
    facts[f"{name}: dB, MB, MB of memory"] = [
        round(conversion.difference_db(voices, reference)),
        round(_size(pathlib.Path(file)) / 1e6, 2),
        said["memory_mb"],
    ]
    return said["speed"]


def _size(path: pathlib.Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.name != file_names.MODEL_INFO)


def _run(what: str) -> None:
    """Separates once for warm-up and once for timing; writes the voices."""
    file, _, output = what.rpartition(":")
    model = loading.load(file)
    mixture = children.babble(_SECONDS.value, model.sample_rate)[np.newaxis]
    model.separate(mixture)
    start = time.process_time()
    voices = model.separate(mixture)
    seconds = time.process_time() - start
    np.save(output, voices)
    print(json.dumps({"speed": _SECONDS.value / seconds, "memory_mb": children.peak_megabytes()}))


if __name__ == "__main__":
    cli.run(main, __doc__)
