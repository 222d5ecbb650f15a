"""The part above the model's band is what the benchmark scores, in any order of the voices."""

import numpy as np
import pytest

pytest.importorskip("fast_bss_eval")
pytest.importorskip("pesq")
pytest.importorskip("pystoi")

from benchmarks import full_band


def test_above_keeps_what_a_model_at_8_khz_cannot_hear():
    time = np.arange(full_band.RATE) / full_band.RATE
    tones = np.stack([np.sin(2 * np.pi * hertz * time) for hertz in (1000, 6000)])
    inner = slice(2000, -2000)
    low, high = full_band.above(tones.astype(np.float32))[:, inner]
    assert np.abs(low).max() < 1e-3
    np.testing.assert_allclose(high, tones[1, inner], atol=1e-3)


def test_score():
    rng = np.random.default_rng(0)
    # Bursts, so that PESQ and STOI find speech and pauses.
    bursts = np.repeat(rng.uniform(0, 1, (2, 40)) > 0.4, full_band.RATE // 10, axis=1)
    voices = (0.1 * bursts * rng.standard_normal(bursts.shape)).astype(np.float32)
    mixture = voices.sum(axis=0)
    halves = full_band.score(voices, np.stack([mixture, mixture]) / 2)
    perfect = full_band.score(voices, voices[::-1])
    for row in halves, perfect:
        assert row["energy above 4 kHz, dB"] == pytest.approx(0, abs=1e-4)
    # Each of the two voices is the noise of the other.
    power = np.square(full_band.above(voices)).sum(axis=1)
    assert halves["above 4 kHz, dB"] == pytest.approx(
        np.mean(10 * np.log10(power / power[::-1])), abs=0.3
    )
    assert perfect["above 4 kHz, dB"] > 60
    assert perfect["SI-SDR, dB"] > 60
    assert perfect["STOI"] == pytest.approx(1, abs=1e-3)
    assert perfect["STOI"] > halves["STOI"]
    assert perfect["PESQ"] > 4.5 > halves["PESQ"]
