"""One loader for all kinds of models, and what it says of what is none."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from export.separation import loading
from pipeline import errors


@pytest.mark.parametrize("kind", ["saved_model", "run", "keras_file"])
def test_all_kinds_are_one_model(saved, kind, speechlike):
    model = loading.load(getattr(saved, kind))
    assert (model.name, model.sample_rate, model.num_sources) == ("lstm", 8000, 2)
    waveform = np.stack([speechlike(3000, 1), speechlike(3000, 2)])
    voices = model.separate(waveform)
    assert voices.dtype == np.float32
    np.testing.assert_allclose(voices, np.asarray(saved.separator(waveform)), atol=1e-5)
    values = np.random.default_rng(0).normal(-3.5, 0.8, (1, 9, 129))
    np.testing.assert_allclose(
        model.masks(values), np.asarray(saved.separator.masks(values)), atol=1e-5
    )


def test_axes_are_checked(saved):
    model = loading.load(saved.saved_model)
    with pytest.raises(ValueError, match="2 axes"):
        model.separate(np.zeros(100))


def test_a_saved_model_needs_no_keras(saved):
    program = (
        "import os, sys\n"
        "os.environ['TF_USE_LEGACY_KERAS'] = '1'\n"
        "from export.separation import loading\n"
        f"model = loading.load({str(saved.saved_model)!r})\n"
        "import numpy as np\n"
        "assert model.separate(np.zeros((1, 9), np.float32)).shape == (1, 2, 9)\n"
        "assert not {'keras', 'apache_beam', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _break(saved, folder, what):
    """A folder or file that is not a whole model."""
    target = folder / "model"
    if what == "nothing":
        return target
    if what == "empty folder":
        target.mkdir()
    elif what == "run without an epoch":
        target.mkdir()
        (target / "config.json").write_text("{}")
    elif what == "text":
        target = folder / "model.txt"
        target.write_text("a model")
    elif what == "zip cut":
        target = folder / "model.keras"
        target.write_bytes(saved.keras_file.read_bytes()[:5000])
    elif what == "bare network":
        target = folder / "bare.keras"
        saved.separator.network.save(target)
    else:
        shutil.copytree(saved.saved_model, target)
        name, _, deed = what.partition(" ")
        path = {
            "graph": target / "saved_model.pb",
            "weights": next((target / "variables").glob("*.data*")),
            "index": target / "variables" / "variables.index",
            "info": target / "voices_apart.json",
        }[name]
        if deed == "missing":
            path.unlink()
        elif deed == "cut":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        else:
            fields = json.loads(path.read_text())
            path.write_text(json.dumps({**fields, "sample_rate": -1}))
    return target


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nothing", "no such model"),
        ("empty folder", "is no model; a model is"),
        ("run without an epoch", "has not ended an epoch"),
        ("text", "is no model"),
        ("zip cut", "damaged"),
        ("bare network", "whole separator"),
        ("graph missing", "damaged"),
        ("graph cut", "damaged"),
        ("weights missing", "damaged"),
        ("weights cut", "damaged"),
        ("index cut", "damaged"),
        ("info missing", "voices_apart.json"),
        ("info cut", "damaged"),
        ("info wrong", "sample_rate"),
    ],
)
def test_what_is_no_model_is_named(saved, tmp_path, what, words):
    target = _break(saved, tmp_path, what)
    with pytest.raises(errors.UserError) as caught:
        loading.load(target)
    message = str(caught.value)
    assert words in message
    assert str(target) in message
    assert "\n" not in message


def test_another_backend_is_refused(saved, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(errors.UserError, match="KERAS_BACKEND=tensorflow"):
        loading.load(saved.keras_file)
