"""Conversations of the benchmark contain every turn once, with the pauses that were asked for."""

import numpy as np
import pytest

pytest.importorskip("fast_bss_eval")

from benchmarks import conversations


def runs(active):
    """Start and end of each stretch, `[stretch, 2]`."""
    return np.flatnonzero(np.diff(np.pad(active.astype(int), 1))).reshape(-1, 2)


@pytest.mark.parametrize("pause", [0, 5, 60, 600])
def test_talk(pause):
    rng = np.random.default_rng(0)
    rate = conversations.RATE
    # Turns are told apart by their lengths.
    lengths = [[rate + 100 * k for k in range(8)], [2 * rate + 100 * k for k in range(8)]]
    turns = [[np.full(length, 0.1, np.float32) for length in own] for own in lengths]
    voices = conversations.talk(turns, conversations.Kind(pause=pause), rng)
    for voice, expected in zip(voices, lengths, strict=True):
        found = runs(voice != 0)
        assert (found[:, 1] - found[:, 0]).tolist() == expected
        assert (found[1:, 0] - found[:-1, 1]).min() >= rate // 10
    levels = [20 * np.log10(voice.max() / 0.1) for voice in voices]
    assert max(map(abs, levels)) <= 2.5 + 0.01
    both = runs((voices != 0).any(axis=0))
    gaps = (both[1:, 0] - both[:-1, 1]) / rate
    assert (gaps >= pause - 0.1).sum() >= (16 - 1) // 6 if pause else gaps.max() < 1.3
