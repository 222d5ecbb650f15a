"""Measures the total run time of commands in fresh processes.

    python -m benchmarks.cold_start --save

It times `export.separate` on a recording of three seconds, from the start of the command to written
voices: with the shipped model, with a model from `export.saved_model` that includes a LiteRT file,
and with one that does not. It also times the same task with asteroid's Conv-TasNet in its own
environment, the imports alone, and `--help` of every command.
Run `make alternatives` first, or pass --noalternatives.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from benchmarks import children, fresh, measure
from pipeline import cli, file_names

_ALTERNATIVES = flags.DEFINE_bool("alternatives", True, "Also measure the alternatives.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/cold_start.json.")

COMMANDS = (
    "pipeline.preprocess", "pipeline.voices", "trainer.task", "export.saved_model",
    "export.separate", "export.evaluate", "export.serve", "export.lite", "export.onnx",
    "export.example",
)  # fmt: skip
_without_lite = shutil.ignore_patterns(file_names.LITE_MODEL)
_ASTEROID = """
import sys, soundfile, torch
from asteroid.models import ConvTasNet
samples, rate = soundfile.read(sys.argv[1], dtype="float32")
model = ConvTasNet(2, sample_rate=rate).eval()
with torch.inference_mode():
    voices = model(torch.from_numpy(samples)[None])[0].numpy()
for number, voice in enumerate(voices):
    soundfile.write(f"{sys.argv[2]}/asteroid{number}.wav", voice, rate)
"""


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        recording = pathlib.Path(folder) / "three_seconds.wav"
        _write(recording)
        saved = str(pathlib.Path(folder) / "tcn")
        fresh.in_a_process(fresh.export, "tcn", saved, None, True)
        alone = shutil.copytree(saved, f"{saved}-alone", ignore=_without_lite)
        here = [sys.executable]
        separate = [*here, "-m", "export.separate", str(recording), f"--output_dir={folder}"]
        jobs = {
            "export.separate, 3 s of audio": _job(separate),
            "export.separate, own model": _job([*separate, f"--model={saved}"]),
            "export.separate, SavedModel": _job([*separate, f"--model={alone}"]),
            "import tensorflow": _job([*here, "-c", "import tensorflow"]),
        }
        ratios = {
            "export.separate, SavedModel / import tensorflow": (
                "export.separate, SavedModel", "import tensorflow",
            )
        }  # fmt: skip
        if _ALTERNATIVES.value:
            there = [children.alternatives(), "-W", "ignore"]
            jobs["import torch, asteroid"] = _job([*there, "-c", "import torch, asteroid"])
            jobs["asteroid, 3 s of audio"] = _job([*there, "-c", _ASTEROID, str(recording), folder])
            for rival in ("import torch, asteroid", "asteroid, 3 s of audio"):
                ratios[f"export.separate / {rival}"] = ("export.separate, 3 s of audio", rival)
        for name in COMMANDS:
            jobs[f"{name} --help"] = _job([*here, "-m", name, "--help"])
        figures = measure.interleave(jobs, _ROUNDS.value)
    measure.report("cold_start", "s", figures, ratios, {}, _SAVE.value)


def _write(path: pathlib.Path) -> None:
    samples = np.rint(32767 * children.babble(3)).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def _job(arguments: Sequence[str]) -> Callable[[], float]:
    def seconds() -> float:
        start = time.perf_counter()
        ended = subprocess.run(
            arguments, capture_output=True, text=True, env=children.environment()
        )
        took = time.perf_counter() - start
        cli.require(ended.returncode == 0, f"{arguments[:3]}: {ended.stderr[-500:]}")
        return took

    return seconds


if __name__ == "__main__":
    cli.run(main, __doc__)
