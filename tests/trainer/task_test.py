"""The command, as a person runs it: killed, gone on with, on the other backend, refused."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

FLAGS = (
    "--model=ffn",
    "--units=16",
    "--frames=50",
    "--batch_size=8",
    "--learning_rate=0.01",
    "--notensorboard",
)


def _history(folder):
    return json.loads((folder / "last" / "state.json").read_text())["history"]


def test_a_killed_run_goes_on_with_the_same_command(small_dataset, tmp_path, run_command):
    folder = tmp_path / "run"
    flags = (*FLAGS, f"--data_dir={small_dataset}", f"--model_dir={folder}", "--steps_per_epoch=40")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer.task", *flags, "--epochs=500", "--patience=0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (folder / "last" / "state.json").exists() or len(_history(folder)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = _history(folder)

    epochs = len(done) + 1
    again = run_command("trainer.task", *flags, f"--epochs={epochs}", "--patience=0")
    assert again.returncode == 0, again.stderr
    assert f"going on after epoch {len(done)}" in again.stdout
    assert f"Epoch {epochs}/{epochs}" in again.stdout
    assert f"Epoch {len(done)}/" not in again.stdout
    assert _history(folder)[:-1] == done
    assert not [p for p in folder.rglob("*") if p.name.startswith(".")]


def test_both_backends_train_alike(small_dataset, tmp_path, run_command):
    figures = {}
    for backend in ("tensorflow", "jax"):
        result = run_command(
            "trainer.task",
            *FLAGS,
            f"--data_dir={small_dataset}",
            f"--model_dir={tmp_path / backend}",
            "--epochs=2",
            env={"KERAS_BACKEND": backend},
        )
        assert result.returncode == 0, result.stderr
        assert f", {backend}; ffn with" in result.stdout
        figures[backend] = _history(tmp_path / backend)
    for name in ("loss", "val_loss", "mask_accuracy", "val_si_sdr_improvement"):
        values = [figures[b][-1][name] for b in figures]
        # Other random numbers make other first weights.
        assert values[0] == pytest.approx(values[1], rel=0.35), name


_ONE_STEP = """
import json, sys
import keras, numpy as np
from models import registry, separator
from pipeline import dataset
from trainer import input, learner
folder = sys.argv[1]
info = dataset.read(folder)
model = learner.MaskLearner(
    separator.Separator(registry.create("lstm", units=8), info.mean, info.deviation,
                        info.active_level_db, info.sample_rate, 2), "psm", "pit")
model.build()
rng = np.random.default_rng(0)
model.set_weights([rng.normal(size=w.shape) / 5 for w in model.get_weights()])
model.compile(keras.optimizers.SGD(0.1))
split = input.Split(folder, "train", info)
batches = input.windows(split, ("log_magnitude", "psm"), frames=50, batch_size=8)
losses = [model.fit(batches.skip(i), steps_per_epoch=1, shuffle=False, verbose=0).history["loss"][0]
          for i in range(3)]
print(json.dumps(losses))
"""


def test_both_backends_take_the_same_steps(small_dataset):
    losses = {}
    for backend in ("tensorflow", "jax"):
        result = subprocess.run(
            [sys.executable, "-c", _ONE_STEP, str(small_dataset)],
            capture_output=True,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend},
            timeout=300,
            check=True,
        )
        losses[backend] = json.loads(result.stdout.splitlines()[-1])
    assert losses["tensorflow"] == pytest.approx(losses["jax"], rel=1e-3)
    assert len(set(losses["jax"])) == 3


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--model_dir=x",), 1, "--data_dir: name the folder of a dataset"),
        (("--data_dir=/nowhere", "--model_dir=x"), 1, "/nowhere: no such folder"),
        (("--data_dir=.", "--model_dir=x"), 1, "no dataset here"),
        (("--data_dir=DATA",), 1, "--model_dir: name a folder"),
        (("--data_dir=DATA", "--model_dir=x", "--batch_size=0"), 2, "batch_size"),
        (("--data_dir=DATA", "--model_dir=x", "--epoch=3"), 2, "Unknown command line flag 'epoch'"),
        (("--data_dir=DATA", "--model_dir=x", "--model=nope"), 1, "unknown network 'nope'"),
        (("--data_dir=DATA", "what"), 1, "Only flags are taken"),
    ],
)
def test_one_line_says_what_is_wrong(small_dataset, tmp_path, run_command, flags, code, message):
    flags = [flag.replace("DATA", str(small_dataset)) for flag in flags]
    root = os.getcwd()
    result = run_command("trainer.task", *flags, cwd=tmp_path, env={"PYTHONPATH": root})
    assert result.returncode == code
    assert message in result.stderr
    assert re.fullmatch(r"error: [^\n]*\n", result.stderr)
    assert not list(tmp_path.iterdir())


def test_help_shows_the_settings_at_once(run_command):
    start = time.monotonic()
    result = run_command("trainer.task", "--help")
    assert time.monotonic() - start < 5  # Under a second where nothing else runs.
    assert result.returncode == 0
    for flag in ("--data_dir", "--model_dir", "--[no]mixed_precision", "--assignment: <pit|fixed>"):
        assert flag in result.stdout
