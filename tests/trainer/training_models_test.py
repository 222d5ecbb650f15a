"""Figures over whole mixtures, against NumPy and another library, one mixture at a time."""

import pathlib

import keras
import numpy as np
import pytest
from fast_bss_eval import numpy as bss

from models import registry, separator
from pipeline import features, ideal_masks, schema
from pipeline.dataset import dataset
from trainer import objectives, training_models
from trainer.data import splits, stored_windows, validation_batches
from trainer.run import callbacks


def _separator(info, num_outputs=2):
    keras.utils.set_random_seed(1)
    network = registry.create("ffn", units=12, num_outputs=num_outputs)
    return separator.Separator(
        network, info.mean, info.deviation, info.active_level_db, info.sample_rate, 2
    )


def _expected(model, sources, fixed):
    """Loss (error and weight), accuracy (agreed and counted) and improvement of one mixture."""
    voices = sources.astype("float32") / schema.FULL_SCALE
    mixture = voices.sum(axis=0)
    spectrograms = features.stft(voices)
    magnitudes, whole = np.abs(spectrograms), spectrograms.sum(axis=0)
    masks = np.asarray(model.masks(features.log_magnitude(whole)[None]))[0]
    # What a sigmoid can give.
    ideal = np.clip(ideal_masks.phase_sensitive(spectrograms, whole), 0, 1)
    orders = [[0, 1]] if fixed else [[0, 1], [1, 0]]
    if fixed:
        error, weight = np.sum((masks[0] - ideal[0]) ** 2), ideal[0].size
    else:
        error = min(np.sum(((masks - ideal[o]) * np.abs(whole)) ** 2) for o in orders)
        weight = np.sum(np.abs(whole) ** 2)
    counted = features.counted_bins(np.abs(whole), magnitudes)
    right = [np.sum((masks[o].argmax(0) == magnitudes.argmax(0)) & counted) for o in orders]
    estimates = np.asarray(model(mixture[None]))[0]
    after = max(np.mean(bss.si_sdr(voices, estimates[o], zero_mean=True)) for o in ([0, 1], [1, 0]))
    before = np.mean(bss.si_sdr(voices, np.stack([mixture] * 2), zero_mean=True))
    return error, weight, max(right), counted.sum(), after - before


@pytest.mark.parametrize("assignment", ["pit", "fixed"])
def test_validation_is_over_whole_mixtures_without_padding(small_dataset, assignment):
    folder = pathlib.Path(small_dataset)
    split = splits.Split(str(folder), "valid", dataset.read(str(folder)))
    mixtures = validation_batches.read(split)
    fixed = assignment == "fixed"
    model = _separator(split.info, 1 if fixed else 2)
    found = callbacks.validate(
        training_models.WholeMixtures(model, objectives.Objective("mask", "psm", fixed)),
        validation_batches.Batches(mixtures, shortest=8000, batch_samples=48000),
    )
    rows = [_expected(model, sources, fixed) for sources in mixtures]
    error, weight, agreed, counted, improvement = (np.array(c) for c in zip(*rows, strict=True))
    assert len(rows) == 4
    np.testing.assert_allclose(found["loss"], error.sum() / weight.sum(), rtol=1e-3)
    np.testing.assert_allclose(found["mask_accuracy"], agreed.sum() / counted.sum(), atol=1e-3)
    np.testing.assert_allclose(found["si_sdr_improvement"], improvement.mean(), atol=0.01)


def test_the_loss_of_an_epoch_is_that_of_all_its_windows_together(small_dataset):
    """Batches of one window and of all give one figure, though windows differ in weight."""
    split = splits.Split(str(small_dataset), "train", dataset.read(str(small_dataset)))
    model = training_models.MaskLearner(_separator(split.info), "psm", "pit")
    model.build()
    model.compile(jit_compile=False)
    windows = stored_windows.windows(split, ("log_magnitude", "psm"), frames=50, batch_size=1)
    count = split.num_windows(50)
    apart = model.evaluate(windows, steps=count, verbose=0, return_dict=True)
    rows = next(iter(windows.unbatch().take(count).batch(count)))
    together = model.evaluate(rows, batch_size=count, verbose=0, return_dict=True)
    assert apart.keys() == together.keys() == {"loss", "mask_accuracy"}
    for name, value in apart.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-4)
    loss = model.compute_loss(x=rows, y_pred=model(rows))
    np.testing.assert_allclose(float(loss), together["loss"], rtol=1e-4)
