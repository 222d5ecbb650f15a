"""Shares of the upper band: they add up, know no order, and follow what sounds below."""

import numpy as np
import pytest
import scipy.signal

from models import upper_band


@pytest.fixture(scope="module")
def voices():
    """A hiss from 2.5 kHz on, then a buzz below 1 kHz; and the other way round."""
    noise = np.random.default_rng(1).standard_normal((2, 16000))
    hiss = scipy.signal.sosfilt(scipy.signal.butter(6, 2500, "high", fs=8000, output="sos"), noise)
    buzz = scipy.signal.sosfilt(scipy.signal.butter(6, 1000, "low", fs=8000, output="sos"), noise)
    turns = np.arange(16000) < 8000
    return (0.1 * np.where([turns, ~turns], hiss, buzz)).astype(np.float32)


@pytest.mark.parametrize("causal", [False, True])
def test_a_hiss_below_is_a_hiss_above(voices, causal):
    shares = upper_band.shares(upper_band.band_powers(voices), causal)
    assert shares.shape == (2, 251)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert shares[0, 30:100].mean() > 0.8
    assert shares[1, 160:230].mean() > 0.8


def test_the_order_of_voices_does_not_matter(voices):
    powers = upper_band.band_powers(voices)
    np.testing.assert_allclose(upper_band.shares(powers[::-1]), upper_band.shares(powers)[::-1])
    three = upper_band.shares(upper_band.band_powers(np.concatenate([voices, voices[:1]])))
    np.testing.assert_allclose(three.sum(axis=0), 1)
    np.testing.assert_allclose(three[0], three[2])


def test_causal_shares_know_nothing_of_what_comes(voices):
    powers = upper_band.band_powers(voices)
    whole = upper_band.shares(powers, causal=True)
    np.testing.assert_allclose(upper_band.shares(powers[:, :90], causal=True), whole[:, :90])


def test_means_are_over_their_spans():
    """Against a plain loop."""
    powers = np.random.default_rng(0).uniform(0.1, 1, (2, 60, upper_band.NUM_BANDS))
    found = upper_band.inputs(powers).reshape(2, 60, len(upper_band.SPANS), -1)
    for k in (0, 7, 30, 59):
        for index, span in enumerate(upper_band.SPANS):
            mean = powers[:, max(0, k - span // 2) : k + span // 2 + 1].mean(axis=1)
            np.testing.assert_allclose(found[:, k, index], np.log10(mean), atol=1e-9)


def test_above_keeps_what_a_model_at_8_khz_cannot_hear():
    time = np.arange(16000) / 16000
    tones = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (1000, 6000)])
    inner = slice(2000, -2000)
    low, high = upper_band.above(tones.astype(np.float32))[:, inner]
    assert np.abs(low).max() < 1e-3
    np.testing.assert_allclose(high, tones[1, inner], atol=1e-3)
