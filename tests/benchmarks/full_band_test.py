"""The part above the model's band is what the benchmark scores, in any order of the voices."""

import numpy as np
import pytest

pytest.importorskip("fast_bss_eval")
pytest.importorskip("pesq")
pytest.importorskip("pystoi")

from benchmarks import full_band
from models import upper_band


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
    power = np.square(upper_band.above(voices)).sum(axis=1)
    assert halves["above 4 kHz, dB"] == pytest.approx(
        np.mean(10 * np.log10(power / power[::-1])), abs=0.3
    )
    assert perfect["above 4 kHz, dB"] > 60
    assert perfect["SI-SDR, dB"] > 60
    assert perfect["STOI"] == pytest.approx(1, abs=1e-3)
    assert perfect["STOI"] > halves["STOI"]
    assert perfect["PESQ"] > 4.5 > halves["PESQ"]
