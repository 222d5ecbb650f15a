"""Ideal masks calculated manually, and properties that all of them share."""

import numpy as np
import pytest

from pipeline import features, ideal_masks

# Bins: first larger, second larger, a tie, all zero.
TWO = np.array([[[3, 1, 2, 0]], [[1, 3, 2, 0]]], np.float32)
# The same for three voices; in the third bin, the last two tie for the maximum.
THREE = np.array([[[3, 1, 1, 0]], [[1, 3, 4, 0]], [[0, 0, 4, 0]]], np.float32)


def test_binary_masks_by_hand():
    np.testing.assert_array_equal(ideal_masks.binary(TWO), [[[1, 0, 1, 1]], [[0, 1, 0, 0]]])
    np.testing.assert_array_equal(
        ideal_masks.binary(THREE), [[[1, 0, 0, 1]], [[0, 1, 1, 0]], [[0, 0, 0, 0]]]
    )


def test_ratio_masks_by_hand():
    np.testing.assert_allclose(
        ideal_masks.ratio(TWO), [[[0.75, 0.25, 0.5, 0.5]], [[0.25, 0.75, 0.5, 0.5]]]
    )
    third = 1 / 3
    np.testing.assert_allclose(
        ideal_masks.ratio(THREE),
        [[[0.75, 0.25, 1 / 9, third]], [[0.25, 0.75, 4 / 9, third]], [[0, 0, 4 / 9, third]]],
        rtol=1e-6,
    )


def test_phase_sensitive_masks_by_hand():
    # In phase; opposite phases; at right angles; a mixture of zero; silence.
    first = np.array([[1, 3, 1, 1, 0]], np.complex64)
    second = np.array([[1, -1, 1j, -1, 0]], np.complex64)
    masks = ideal_masks.phase_sensitive(np.stack([first, second]), first + second)
    np.testing.assert_allclose(masks[0], [[0.5, 1.5, 0.5, 0.5, 0.5]], atol=1e-6)
    np.testing.assert_allclose(masks[1], [[0.5, -0.5, 0.5, 0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("num_sources", [2, 3, 4])
def test_all_masks_add_up_to_one(num_sources):
    sources = features.stft(np.random.default_rng(0).standard_normal((num_sources, 2000)))
    mixture = sources.sum(axis=0)
    magnitudes = np.abs(sources)
    binary = ideal_masks.binary(magnitudes)
    assert binary.dtype == bool
    np.testing.assert_array_equal(binary.sum(axis=0), 1)
    np.testing.assert_array_equal(
        np.take_along_axis(magnitudes, binary.argmax(axis=0)[np.newaxis], 0)[0],
        magnitudes.max(axis=0),
    )
    ratio = ideal_masks.ratio(magnitudes)
    phase = ideal_masks.phase_sensitive(sources, mixture)
    assert ratio.dtype == phase.dtype == np.float32
    np.testing.assert_allclose(ratio.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(phase.sum(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(phase, (sources / mixture).real, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("voices", [TWO, THREE])
@pytest.mark.parametrize("name", list(ideal_masks.MASKS))
def test_some_of_the_masks_are_those_among_all(voices, name):
    spectrograms = ideal_masks.Spectrograms(voices.astype(np.complex64), voices.sum(axis=0))
    ideal = ideal_masks.MASKS[name].ideal
    for count in (1, 2):
        np.testing.assert_array_equal(ideal(spectrograms, count), ideal(spectrograms)[:count])
