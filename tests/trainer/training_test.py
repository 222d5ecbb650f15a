"""Whole runs in this process."""

import csv
import dataclasses
import shutil

import keras
import numpy as np
import pytest
import soundfile

from models import registry, separator
from models.layers import fused_lstm
from pipeline import errors
from pipeline.dataset import dataset
from trainer import config, objectives, training, training_models
from trainer.data import splits, validation_batches
from trainer.run import callbacks, run_folder


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
    }
    return config.Config(**{**settings, **changes})


def test_learns_keeps_and_goes_on(small_dataset, tmp_path, capsys):
    whole = training.train(_config(small_dataset), tmp_path / "whole")
    out = capsys.readouterr().out
    assert "tensorflow; ffn with 6,738 parameters; 60 windows of 50 frames" in out
    assert "from 10 mixtures, 4 for validation" in out
    assert whole.history[-1]["loss"] < 0.6 * whole.history[0]["loss"]
    assert whole.history[-1]["val_si_sdr_improvement"] > 3

    training.train(_config(small_dataset, epochs=2), tmp_path / "pieces")
    pieces = training.train(_config(small_dataset), tmp_path / "pieces")
    assert "resuming after epoch 2" in capsys.readouterr().out
    for row, other in zip(pieces.history, whole.history, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds"}:
            np.testing.assert_allclose(row[name], other[name], rtol=1e-3, err_msg=name)

    before = (tmp_path / "pieces" / "last" / "state.json").read_bytes()
    training.train(_config(small_dataset), tmp_path / "pieces")
    assert "had already finished after 4 epochs" in capsys.readouterr().out
    assert (tmp_path / "pieces" / "last" / "state.json").read_bytes() == before

    with open(tmp_path / "pieces" / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert (tmp_path / "pieces" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    loaded = keras.saving.load_model(tmp_path / "pieces" / "best.keras")
    assert isinstance(loaded, separator.Separator)


@pytest.mark.slow
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
        (_config(small_dataset, model_arg=("depth=3",)), "ffn has no setting 'depth'"),
    ):
        with pytest.raises(errors.UserError, match=message):
            training.train(settings, run)
        assert not run.exists()


def test_other_patience_continues_a_run_that_was_stopped_early(
    small_dataset, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(callbacks, "validate", lambda *_: {"si_sdr_improvement": 0.0, "loss": 1.0})
    settings = _config(small_dataset, epochs=3, patience=1, steps_per_epoch=1)
    stopped = training.train(settings, tmp_path)
    assert (stopped.epoch, stopped.stopped) == (2, True)
    training.train(settings, tmp_path)
    assert "had already finished after 2 epochs by early stopping" in capsys.readouterr().out
    without = training.train(dataclasses.replace(settings, patience=0), tmp_path)
    assert (without.epoch, without.stopped) == (3, False)
    longer = dataclasses.replace(settings, patience=2, epochs=9)
    assert training.train(longer, tmp_path).epoch == 6


def _dynamic(data_dir, **changes):
    """A network with dropout on mixtures that are made anew, everything switched on."""
    settings = {
        "units": 8,
        "layers": 1,
        "dropout": 0.1,
        "loss": "sisdr",
        "mixing": "dynamic",
        "batch_size": 4,
        "steps_per_epoch": 3,
        "speed": 0.1,
        "noise": 0.5,
        "rooms": 0.5,
        "ema": 0.8,
        "weight_decay": 0.01,
    }
    return _config(data_dir, **{**settings, **changes})


def test_a_folder_in_which_a_run_is_going_on_is_left_alone(small_dataset, tmp_path):
    with (
        run_folder.RunFolder(tmp_path).lock(),
        pytest.raises(errors.UserError, match=r"another run .* is using this folder"),
    ):
        training.train(_config(small_dataset), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_another_end_of_the_cosine_is_told(small_dataset, tmp_path, capsys):
    settings = _config(small_dataset, epochs=4, steps_per_epoch=2, schedule="cosine")
    short = dataclasses.replace(settings, epochs=2)
    training.train(short, tmp_path)
    assert "the cosine" not in capsys.readouterr().out
    state = training.train(settings, tmp_path)
    # It had come down to zero, and half of the way there is half of the rate.
    expected = (
        "--epochs 2 → 4: the cosine schedule now ends there; the learning rate continues at 0.005 "
        "(it was 0)\n"
    )
    assert expected in capsys.readouterr().out
    # The log has the rate of the last of an epoch's two steps: the sixth of eight.
    rate = 0.005 * (1 + np.cos(np.pi * 5 / 8))
    assert state.history[2]["learning_rate"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("plateau", [0.008, 0.01, 0.01]),
        ("cosine", [0.006, *0.005 * (1 + np.cos(np.pi * np.array([2, 6]) / 7))]),
    ],
)
def test_the_log_has_the_rate_of_an_epochs_last_step(small_dataset, tmp_path, schedule, expected):
    settings = {"epochs": 3, "steps_per_epoch": 4, "warmup_steps": 5, "schedule": schedule}
    state = training.train(_config(small_dataset, **settings), tmp_path)
    rates = [row["learning_rate"] for row in state.history]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_clustering_has_no_use_for_a_target_unless_masks_are_learnt_too(small_dataset, tmp_path):
    settings = _config(small_dataset, model="deep_clustering", target="irm")
    with pytest.raises(config.SettingsError, match="not --loss=clustering"):
        training.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert objectives.learns_masks("clustering", registry.NETWORKS["chimera"])


def _weights(folder):
    return keras.saving.load_model(folder / "best.keras").get_weights()


@pytest.mark.slow
def test_a_dynamic_run_in_pieces_is_the_run_in_one(small_dataset, tmp_path, monkeypatch):
    settings = _dynamic(small_dataset, epochs=3, schedule="cosine", warmup_steps=4)
    whole = training.train(settings, tmp_path / "whole")

    def cut(self, epoch, logs=None):
        raise KeyboardInterrupt

    # As by a power cut, within the warm-up: the schedule is that of all epochs.
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Draw, "on_epoch_end", cut)
        with pytest.raises(KeyboardInterrupt):
            training.train(settings, tmp_path / "pieces")
    pieces = training.train(settings, tmp_path / "pieces")
    assert len(pieces.history) == len(whole.history) == 3
    for row, again in zip(whole.history, pieces.history, strict=True):
        assert row.keys() == again.keys()
        for name in row.keys() - {"seconds"}:
            np.testing.assert_allclose(row[name], again[name], rtol=1e-3, err_msg=name)
    for one, other in zip(*map(_weights, (tmp_path / "whole", tmp_path / "pieces")), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture(scope="module")
def averaged(small_dataset, tmp_path_factory):
    """A run of one epoch: its folder, settings and state."""
    folder = tmp_path_factory.mktemp("averaged")
    settings = _dynamic(small_dataset, epochs=1)
    return folder, settings, training.train(settings, folder)


def test_the_average_is_validated_and_kept_and_the_weights_themselves_go_on(
    averaged, small_dataset
):
    folder, settings, state = averaged
    info = dataset.read(str(small_dataset))
    model = training.make_learner(training.resolve(settings, info), info, 1)
    training._compile(model, settings, 3)
    model.load_weights(folder / "last" / state.weights)
    weights = [v.numpy() for v in model.trainable_variables]
    averages = [v.numpy() for v in model.optimizer._model_variables_moving_average]
    # After three steps of about the learning rate, 0.01, the average lags behind.
    lags = [np.abs(a - w).max() for a, w in zip(averages, weights, strict=True)]
    assert 1e-3 < max(lags) < 0.03
    best = keras.saving.load_model(folder / "best.keras")
    for one, two in zip(best.trainable_variables, averages, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    whole = training_models.WholeMixtures(best, objectives.Objective("sisdr"))
    voices = validation_batches.read(splits.Split(str(small_dataset), "valid", info))
    figures = callbacks.validate(whole, validation_batches.Batches(voices))
    assert {name: pytest.approx(value, abs=1e-4) for name, value in figures.items()} == {
        name.removeprefix("val_"): value
        for name, value in state.history[0].items()
        if name.startswith("val_")
    }


@pytest.mark.slow
def test_starts_from_another_run_and_goes_on_for_more_epochs(
    averaged, small_dataset, tmp_path, capsys
):
    folder, _, before = averaged
    tuned = _dynamic(
        small_dataset, epochs=1, init_from=str(folder), learning_rate=1e-9, seed=7, ema=0.0
    )
    state = training.train(tuned, tmp_path)
    # Nothing was learnt, so that it is as good as what it started from.
    assert state.history[0]["val_si_sdr_improvement"] == pytest.approx(
        before.history[0]["val_si_sdr_improvement"], abs=1e-3
    )
    longer = training.train(dataclasses.replace(tuned, epochs=2), tmp_path)
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert [row["epoch"] for row in longer.history] == [1, 2]
    with pytest.raises(errors.UserError, match=r"--init_from .* choose another --model_dir"):
        training.train(dataclasses.replace(tuned, init_from=""), tmp_path)


def test_mixes_recordings_where_a_dataset_has_its_info_alone(
    small_dataset, tmp_path, capsys, caplog
):
    rng = np.random.default_rng(0)
    rows = ["path,speaker,split"]
    for speaker in "abc":
        soundfile.write(tmp_path / f"{speaker}.wav", rng.uniform(-0.1, 0.1, 48000), 16000)
        rows.append(f"{speaker}.wav,{speaker},train")
    rows.append("gone.wav,v,valid")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    data = tmp_path / "data"
    data.mkdir()
    for name in ("dataset_info.json", "mixtures.csv", "_SUCCESS"):
        shutil.copy(small_dataset / name, data)
    manifest = (str(tmp_path / "manifest.csv"),)
    settings = _dynamic(data, epochs=1, utterances_manifest=manifest, steps_per_epoch=None)
    with caplog.at_level("WARNING", "absl"):
        state = training.train(settings, tmp_path / "run")
    headline = "windows of 0.4 s mixed from 0.0 h of 3 speakers, 0 for validation"
    assert headline in capsys.readouterr().out
    assert f"{data} has no shard of the split valid" in caplog.text
    assert "val_loss" not in state.history[0]
    assert (tmp_path / "run" / "best.keras").is_file()
    # A loss and an improvement in dB cannot be compared, so validation neither starts nor ends.
    whole = dataclasses.replace(settings, data_dir=str(small_dataset))
    with pytest.raises(errors.UserError, match=r"has the split valid, but .* without validation"):
        training.train(dataclasses.replace(whole, epochs=2), tmp_path / "run")
    training.train(whole, tmp_path / "validated")
    best = (tmp_path / "validated" / "best.keras").read_bytes()
    with pytest.raises(errors.UserError, match=r"no shard of the split valid, but .* with valid"):
        training.train(dataclasses.replace(settings, epochs=2), tmp_path / "validated")
    assert (tmp_path / "validated" / "best.keras").read_bytes() == best


def test_three_voices_mixed_anew_without_stored_masks(make_dataset, tmp_path):
    make_dataset(tmp_path / "data", {"train": 2, "valid": 1}, num_sources=3, masks=())
    settings = _dynamic(tmp_path / "data", loss="mask", epochs=1, steps_per_epoch=1, ema=0.0)
    state = training.train(settings, tmp_path / "run")
    assert np.isfinite(list(state.history[0].values())).all()
    assert keras.saving.load_model(tmp_path / "run" / "best.keras").num_sources == 3


@pytest.mark.slow
def test_static_mixing_learns_waveforms_too(small_dataset, tmp_path):
    settings = _config(small_dataset, loss="sisdr", mixing="static", epochs=2)
    history = training.train(settings, tmp_path).history
    assert history[1]["loss"] < history[0]["loss"] < 30


@pytest.mark.parametrize("jit", [False, True])
def test_lstms_learn_the_fast_way_unless_xla_compiles_them(small_dataset, jit):
    info = dataset.read(str(small_dataset))
    settings = training.resolve(_config(small_dataset, model="lstm", jit_compile=jit), info)
    model = training.make_learner(settings, info, 1)
    training._compile(model, settings, 3)
    layers = [x for x in model._flatten_layers() if isinstance(x, fused_lstm.LSTM)]
    assert [layer.fused for layer in layers] == [not jit] * len(layers) != []
