"""What must not be forgotten when a run is killed, and how a run ends that goes wrong."""

import math
import pathlib

import keras
import numpy as np
import pytest

from models import registry, separator
from pipeline import errors, schema
from pipeline.dataset import dataset
from trainer import config, training_models
from trainer.run import callbacks, run_folder

# Best in epochs 2 and 8; plateau and early stopping have something to count.
SCRIPT = [1.0, 3.0, 2.0, 2.5, 2.9, 2.8, 2.7, 3.5, 3.4, 3.3, 3.2, 3.1, 3.0, 2.9]


class _Script(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_si_sdr_improvement"] = SCRIPT[epoch]
        logs["learning_rate"] = float(self.model.optimizer.learning_rate.numpy())


def _info():
    settings = {"sample_rate": 8000, "num_sources": 2, "masks": ["psm"]}
    return dataset.DatasetInfo(1, settings, {}, -3.0, 0.8, -25.0, "abc", {}, "")


def _model():
    keras.utils.set_random_seed(0)
    network = registry.create("ffn", units=4)
    model = training_models.MaskLearner(
        separator.Separator(network, -3.0, 0.8, -25.0, 8000, 2), "psm", "pit"
    )
    model.build()
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, run_eagerly=True)
    optimizer.build(model.trainable_variables)
    return model


def _data():
    rng = np.random.default_rng(0)
    return {
        "log_magnitude": rng.normal(-3, 1, (2, 5, schema.NUM_BINS)).astype("float16"),
        "psm": rng.integers(0, 255, (2, 1, 5, schema.NUM_BINS)).astype("uint8"),
        "frame_mask": np.ones((2, 5), "uint8"),
    }


def _run(path, epochs):
    """A run in a new process, as far as Keras can tell: nothing but the folder is handed on."""
    folder = run_folder.RunFolder(path)
    state = folder.claim(config.Config(), _info())
    model = _model()
    if state.weights:
        model.load_weights(folder.last / state.weights)
    monitor = "val_si_sdr_improvement"
    kept = [
        callbacks.KeepBest(folder.best, monitor, "max"),
        callbacks.ReduceLROnPlateau(monitor, factor=0.5, patience=2, mode="max"),
        keras.callbacks.EarlyStopping(monitor, patience=6, mode="max"),
    ]
    last = callbacks.KeepLast(folder, state, kept)
    model.fit(
        _data(),
        batch_size=2,
        initial_epoch=state.epoch,
        epochs=epochs,
        verbose=0,
        callbacks=[_Script(), *kept, last],
    )
    return folder, model


@pytest.mark.slow
def test_a_run_in_pieces_is_the_run_in_one(tmp_path):
    whole, model = _run(tmp_path / "whole", len(SCRIPT))
    expected = whole.read_state()
    assert expected.epoch == 14
    assert expected.stopped
    rates = [row["learning_rate"] for row in expected.history]
    assert len(set(rates)) >= 4  # The plateau was seen several times.
    # Killed when the plateau had begun to count, after the best, and while patience ran out.
    for epochs in (3, 5, 8, 11, len(SCRIPT)):
        pieces, last_model = _run(tmp_path / "pieces", epochs)
    state = pieces.read_state()
    assert state.epoch == expected.epoch
    assert state.stopped
    assert state.callbacks == expected.callbacks
    assert [row["learning_rate"] for row in state.history] == rates
    for row, other in zip(state.history, expected.history, strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-5)
    for one, other in zip(model.get_weights(), last_model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(_best_weights(whole), _best_weights(pieces), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def _best_weights(folder):
    return keras.saving.load_model(folder.best).get_weights()


def test_best_is_a_whole_separator(tmp_path):
    folder, model = _run(tmp_path, 2)
    loaded = keras.saving.load_model(folder.best)
    assert isinstance(loaded, separator.Separator)
    assert (loaded.mean, loaded.sample_rate) == (-3.0, 8000)
    waveform = 0.1 * np.random.default_rng(0).normal(size=(1, 2000)).astype("float32")
    np.testing.assert_allclose(loaded(waveform), model.separator(waveform), atol=1e-6)


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path):
    model = _model()
    best = callbacks.KeepBest(tmp_path / "best.keras", "x", "max")
    best.set_model(model)
    kept = []
    for figure in (math.nan, 3.0, math.nan, 2.0, 5.0):
        best.on_epoch_end(0, {"x": figure})
        kept.append(best.best)
    assert kept == [None, 3.0, 3.0, 3.0, 5.0]
    assert best.path.exists()


@pytest.mark.parametrize(
    ("epoch", "advice"),
    [
        (0, r"; try a lower --learning_rate or --clip_norm$"),
        # The folder takes no other settings any more, and the same ones would fail again.
        (1, r"; start a new run with .* and --init_from=run/best\.keras$"),
    ],
)
def test_a_loss_that_is_no_number_ends_the_run_with_an_error(epoch, advice):
    model = _model()
    model.separator.network.weights[0].assign(np.full((schema.NUM_BINS, 4), np.nan))
    stop = callbacks.StopAtNaN(pathlib.Path("run/best.keras"))
    message = f"the loss became nan in epoch {epoch + 1}, by step 1" + advice
    with pytest.raises(errors.UserError, match=message):
        model.fit(_data(), initial_epoch=epoch, epochs=epoch + 1, verbose=0, callbacks=[stop])
