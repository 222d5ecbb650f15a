"""Training where TensorFlow and Beam cannot be imported: with Keras on JAX or PyTorch alone."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from models import registry, separator  # noqa: F401

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Python runs it before anything else where it is found on the path.
_CUSTOMIZE = """
import sys

for name in ("tensorflow", "tensorflow_io", "apache_beam", "tensorboard"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request):
    """A backend that is installed."""
    if not importlib.util.find_spec(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def run(tmp_path_factory, backend):
    """Runs a program on the backend; returns the finished process."""
    folder = tmp_path_factory.mktemp("customize")
    (folder / "sitecustomize.py").write_text(_CUSTOMIZE)

    def run(*arguments):
        here = pathlib.Path(__file__).parent
        path = os.pathsep.join(map(str, (folder, ROOT, here, here / "data")))
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                "PYTHONPATH": path,
                # What is run a few times need not be compiled well.
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
            },
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=550,
        )

    return run


@pytest.mark.slow
def test_the_command_mixes_trains_validates_and_goes_on(small_dataset, tmp_path, run, backend):
    blocked = run("-c", "import tensorflow")
    assert blocked.returncode
    assert "import of tensorflow halted" in blocked.stderr
    flags = (
        "-m", "trainer.task", f"--data_dir={small_dataset}", f"--model_dir={tmp_path}",
        "--model=ffn", "--units=16", "--loss=sisdr", "--mixing=dynamic", "--batch_size=4",
        "--frames=50", "--steps_per_epoch=3", "--learning_rate=0.01", "--ema=0.5",
        "--warmup_steps=2", "--speed=0.1", "--noise=0.5", "--rooms=0.5", "--epochs=2",
    )  # fmt: skip
    result = run(*flags)
    assert result.returncode == 0, result.stderr
    assert f", {backend}; ffn with " in result.stdout
    history = json.loads((tmp_path / "last" / "state.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert history[1]["loss"] < history[0]["loss"]
    assert "val_si_sdr_improvement" in history[0]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    # What was learnt there is a separator here.
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert isinstance(best, separator.Separator)
    assert best(np.zeros((1, 800), "float32")).shape == (1, 2, 800)

    static = run(*flags[:5], "--mixing=static", "--model_dir", tmp_path / "other")
    assert static.returncode == 1
    assert static.stderr.startswith("error: --mixing=static reads with TensorFlow")
    assert static.stderr.count("\n") == 1


def test_batches_come_in_order_and_the_rate_warms_up_there_too(run):
    program = (
        "import dynamic_mixing_test, optimizer_test\n"
        "optimizer_test.test_warm_up_rises_to_the_rate_and_stays(0.0)\n"
        "seen = dynamic_mixing_test.numbers_seen\n"
        "print(seen(0, 2, 3) + seen(2, 3, 1))"
    )
    found = run("-c", program)
    assert found.stdout.split("\n")[-2:-1] == [str(list(range(12)))], found.stderr
