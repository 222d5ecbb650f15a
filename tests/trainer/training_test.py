"""Whole runs in this process."""

import csv

import keras
import numpy as np
import pytest

from models import separator
from pipeline import errors
from trainer import config, training


def _config(data_dir, **changes):
    settings = {
        "data_dir": str(data_dir),
        "model": "ffn",
        "units": 16,
        "frames": 50,
        "batch_size": 8,
        "epochs": 4,
        "learning_rate": 0.01,
        "tensorboard": False,
        "shuffle_buffer": 64,
    }
    return config.Config(**{**settings, **changes})


def test_learns_keeps_and_goes_on(small_dataset, tmp_path, capsys):
    whole = training.train(_config(small_dataset), tmp_path / "whole")
    out = capsys.readouterr().out
    assert "tensorflow; ffn with 6,738 parameters; 60 windows of 50 frames" in out
    assert "from 10 mixtures, 4 to validate with" in out
    assert whole.history[-1]["loss"] < 0.6 * whole.history[0]["loss"]
    assert whole.history[-1]["val_si_sdr_improvement"] > 3

    training.train(_config(small_dataset, epochs=2), tmp_path / "pieces")
    pieces = training.train(_config(small_dataset), tmp_path / "pieces")
    assert "going on after epoch 2" in capsys.readouterr().out
    for row, other in zip(pieces.history, whole.history, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds"}:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-3, err_msg=name)

    before = (tmp_path / "pieces" / "last" / "state.json").read_bytes()
    training.train(_config(small_dataset), tmp_path / "pieces")
    assert "was finished already after 4 epochs" in capsys.readouterr().out
    assert (tmp_path / "pieces" / "last" / "state.json").read_bytes() == before

    with open(tmp_path / "pieces" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert (tmp_path / "pieces" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    loaded = keras.saving.load_model(tmp_path / "pieces" / "best.keras")
    assert isinstance(loaded, separator.Separator)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "assignment": "fixed",
            "target": "ibm",
            "schedule": "cosine",
            "clip_norm": 0.0,
            "cache": True,
        },
        {
            "model": "lstm",
            "mixed_precision": True,
            "head": "linear",
            "target": "irm",
            "steps_per_epoch": 2,
        },
    ],
    ids=["original", "other"],
)
def test_settings_that_change_what_is_learnt(small_dataset, tmp_path, changes):
    state = training.train(_config(small_dataset, epochs=1, **changes), tmp_path)
    assert np.isfinite(list(state.history[0].values())).all()
    assert 0.3 < state.history[0]["val_mask_accuracy"] <= 1


def test_three_voices(make_dataset, tmp_path):
    make_dataset(tmp_path / "data", {"train": 3}, num_sources=3)
    state = training.train(_config(tmp_path / "data", epochs=1), tmp_path / "run")
    assert "val_loss" not in state.history[0]  # Without a valid split: training loss decides.
    assert keras.saving.load_model(tmp_path / "run" / "best.keras").num_sources == 3


def test_refusals_leave_nothing_behind(small_dataset, make_dataset, tmp_path):
    make_dataset(tmp_path / "test_only", {"test": 2})
    make_dataset(tmp_path / "irm", {"train": 2}, masks=("irm",))
    run = tmp_path / "run"
    for settings, message in (
        (_config(tmp_path / "test_only"), r"has no train split \(only test\)"),
        (_config(tmp_path / "irm"), "stores the masks irm, not psm"),
        (_config(small_dataset, model="unheard"), "unknown network 'unheard'"),
        (_config(small_dataset, network=("depth=3",)), "ffn has no setting 'depth'"),
    ):
        with pytest.raises(errors.UserError, match=message):
            training.train(settings, run)
        assert not run.exists()
