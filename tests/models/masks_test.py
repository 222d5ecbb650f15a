"""Masks on the device against those of the record, and what adds up against arithmetic."""

import numpy as np
import pytest

from models import masks
from pipeline import features, ideal_masks


@pytest.fixture(params=[2, 3])
def spectrograms(request):
    random = np.random.default_rng(3)
    found = features.stft(random.standard_normal((request.param, 3000)).astype(np.float32))
    found[:, 5] = 0  # a frame of silence
    found[1, 7] = found[0, 7]  # a frame of ties
    found[2:, 7] = 0
    return found


def test_binary(spectrograms):
    found = np.asarray(masks.ideal_binary(np.abs(spectrograms)))
    np.testing.assert_array_equal(found, ideal_masks.binary(np.abs(spectrograms)))
    assert (found[0, 5] == 1).all()
    assert (found[0, 7] == 1).all()


def test_ratio(spectrograms):
    found = np.asarray(masks.ideal_ratio(np.abs(spectrograms)))
    np.testing.assert_allclose(found, ideal_masks.ratio(np.abs(spectrograms)), atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 5], 1 / len(spectrograms), atol=1e-6)


def test_phase_sensitive(spectrograms):
    mixture = spectrograms.sum(0)
    found = np.asarray(masks.phase_sensitive(spectrograms.real, spectrograms.imag))
    sounding = np.abs(mixture) > 1e-3
    expected = (spectrograms[:, sounding] / mixture[sounding]).real
    np.testing.assert_allclose(found[:, sounding], expected, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(
        found[:, sounding], ideal_masks.phase_sensitive(spectrograms, mixture)[:, sounding],
        atol=1e-3, rtol=1e-3,
    )  # fmt: skip
    np.testing.assert_allclose(found[:, 5], 1 / len(spectrograms))


class Mixture:
    """What a trainer's batch of one mixture without noise has."""

    noise_magnitude = None

    def __init__(self, spectrograms):
        self.spectrograms = spectrograms.real[None], spectrograms.imag[None]
        self.magnitudes = np.abs(spectrograms)[None]
        self.spectrogram = tuple(part.sum(1) for part in self.spectrograms)


def test_every_kind_is_on_both_sides(spectrograms):
    assert masks.IDEAL.keys() == ideal_masks.MASKS.keys()
    mixture = spectrograms.sum(0)
    sounding = np.abs(mixture) > 1e-3
    for name, mask in ideal_masks.MASKS.items():
        found = np.asarray(masks.IDEAL[name](Mixture(spectrograms)))[0]
        expected = mask.ideal(ideal_masks.Spectrograms(spectrograms, mixture))
        np.testing.assert_allclose(
            found[:, sounding], expected[:, sounding], atol=1e-3, rtol=1e-3, err_msg=name
        )


def test_of_noisy_mixtures_masks_are_of_what_is_heard(spectrograms):
    random = np.random.default_rng(4)
    noise = features.stft(0.3 * random.standard_normal(3000).astype(np.float32))
    mixture = spectrograms.sum(0) + noise
    found = masks.phase_sensitive(
        spectrograms.real, spectrograms.imag, (mixture.real, mixture.imag)
    )
    expected = (spectrograms / mixture).real
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)
    ratios = masks.ideal_ratio(np.abs(spectrograms), np.abs(noise))
    total = np.abs(spectrograms).sum(0) + np.abs(noise)
    np.testing.assert_allclose(ratios, np.abs(spectrograms) / total, atol=1e-5)


def test_one_output_is_completed_by_what_is_left():
    first = np.random.default_rng(0).uniform(size=(2, 1, 4, 129)).astype(np.float32)
    both = np.asarray(masks.complete(first, 2))
    np.testing.assert_array_equal(both[:, :1], first)
    np.testing.assert_allclose(both.sum(1), 1)
    np.testing.assert_array_equal(np.asarray(masks.complete(both, 2)), both)


def test_consistent_estimates_share_what_is_missing():
    random = np.random.default_rng(0)
    estimates = random.standard_normal((2, 3, 100)).astype(np.float32)
    mixture = random.standard_normal((2, 100)).astype(np.float32)
    found = np.asarray(masks.make_consistent(estimates, mixture))
    np.testing.assert_allclose(found.sum(1), mixture, atol=1e-6)
    change = found - estimates
    np.testing.assert_allclose(change[:, 0], change[:, 2], atol=1e-6)


def test_counted_bins_ignore_what_is_not_valid():
    magnitude = np.full((1, 3, 129), 1.0, np.float32)
    magnitude[0, 1] = 0.009  # 41 dB down
    magnitude[0, 2] = 1e6  # padding
    counted = np.asarray(masks.counted_bins(magnitude, np.array([[1, 1, 0]])))
    np.testing.assert_array_equal(counted[0, :, 0], [1, 0, 0])


def test_nothing_counts_in_digital_silence():
    silence = features.stft(np.zeros((1, 3000), np.float32))
    magnitude = 10 ** features.log_magnitude(silence)
    assert magnitude.min() > 0
    assert not np.asarray(masks.counted_bins(magnitude)).any()
