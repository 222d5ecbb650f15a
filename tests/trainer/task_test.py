"""The command, as a person runs it: killed, gone on with, on the other backend, refused."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from trainer import config

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


@pytest.mark.slow
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
    assert f"resuming after epoch {len(done)}" in again.stdout
    assert f"Epoch {epochs}/{epochs}" in again.stdout
    assert f"Epoch {len(done)}/" not in again.stdout
    assert _history(folder)[:-1] == done
    assert not [p for p in folder.rglob("*") if p.name.startswith(".")]


_TRAIN = """
import json, pathlib, sys
import keras
import task_test
settings, folder = sys.argv[1:]
assert keras.backend.backend() == "jax"
task_test.train_from_given_weights(json.loads(settings), folder)
"""


def train_from_given_weights(settings, folder):
    """A run whose first weights do not hang on the backend's random numbers."""
    from trainer import training

    make = training.make_learner

    def make_with_weights(*arguments):
        model = make(*arguments)
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(size=w.shape) / 10 for w in model.get_weights()])
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_learner", make_with_weights)
        training.train(config.Config.from_json(settings), folder)


@pytest.mark.slow
def test_both_backends_take_the_same_steps(small_dataset, tmp_path):
    settings = config.Config(
        data_dir=str(small_dataset),
        model="lstm",
        units=8,
        frames=50,
        batch_size=8,
        epochs=2,
        steps_per_epoch=4,
        tensorboard=False,
    )
    here, there = tmp_path / "here", tmp_path / "jax"
    train_from_given_weights(settings.to_json(), here)
    root = pathlib.Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", _TRAIN, json.dumps(settings.to_json()), there],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "PYTHONPATH": os.pathsep.join([str(root), str(root.parent.parent)]),
        },
        timeout=300,
        check=True,
    )
    for one, other in zip(_history(here), _history(there), strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds"}:
            assert one[name] == pytest.approx(other[name], rel=2e-3), name
    losses = [row["loss"] for row in _history(here)]
    assert losses[1] != pytest.approx(losses[0], rel=0.01)
    # What one backend has kept, the other goes on with.
    kept = _history(there)
    train_from_given_weights({**settings.to_json(), "epochs": 3}, there)
    assert [row["epoch"] for row in _history(there)] == [1, 2, 3]
    assert _history(there)[:2] == kept


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--model_dir=x",), 2, "--data_dir: name the folder of a dataset"),
        (("--data_dir=/nowhere", "--model_dir=x"), 1, "/nowhere: no such folder"),
        (("--data_dir=.", "--model_dir=x"), 1, "no dataset here"),
        (("--data_dir=DATA",), 2, "--model_dir: name a folder"),
        (("--data_dir=DATA", "--model_dir=x", "--batch_size=0"), 2, "batch_size"),
        (("--data_dir=DATA", "--model_dir=x", "--epoch=3"), 2, "Unknown command line flag 'epoch'"),
        (("--data_dir=DATA", "--model_dir=x", "--model=nope"), 1, "unknown network 'nope'"),
        (("--data_dir=DATA", "what"), 2, "unexpected argument 'what'; only flags are taken"),
        (("--data_dir=DATA", "--model_dir=x", "--noise_snr_db=9,3"), 2, "takes two numbers"),
        (("--data_dir=DATA", "--model_dir=x", "--learning_rate=nan"), 2, "not a finite number"),
        (
            ("--data_dir=DATA", "--model_dir=x", "--room_dir=y"),
            2,
            "--room_dir is for --rooms above",
        ),
        # What the network decides shows only after the imports, and is told alike.
        (("--data_dir=DATA", "--model_dir=x", "--model=lstm", "--speed=0.1"), 2, "--speed is for"),
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
