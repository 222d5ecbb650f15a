"""Turns of made voices, whose truth is known, in blocks of any length and at any rate."""

import numpy as np
import pytest

from export.separation import activity


def made(turns, seconds, rate, level=0.1):
    """Voices of noise, `[source, sample]`, that speak where `turns` says: (start, end) of each."""
    random = np.random.default_rng(3)
    voices = np.zeros((len(turns), round(seconds * rate)))
    for voice, own in zip(voices, turns, strict=True):
        for start, end in own:
            place = slice(round(start * rate), round(end * rate))
            voice[place] = level * random.standard_normal(len(voice[place]))
    return voices


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
@pytest.mark.parametrize("block", [77, 10**6])
def test_turns_overlap_and_shares(rate, block):
    voices = made([[(0.5, 2.0), (4.0, 6.0)], [(1.5, 3.0)]], 8.05, rate)
    blocks = [voices[:, i : i + block] for i in range(0, voices.shape[1], block)]
    found = activity.find_turns(blocks, rate)
    # A frame of 0.1 s may be heard that a turn only touches.
    expected = [(0, 0.5, 2.0), (1, 1.5, 3.0), (0, 4.0, 6.0)]
    assert [turn.speaker for turn in found.turns] == [speaker for speaker, _, _ in expected]
    for turn, (_, start, end) in zip(found.turns, expected, strict=True):
        assert turn.start == pytest.approx(start, abs=0.1)
        assert turn.end == pytest.approx(end, abs=0.1)
        assert turn.level_db == pytest.approx(-20, abs=0.5)
    assert found.seconds == pytest.approx(voices.shape[1] / rate)
    assert found.overlap == pytest.approx(0.5, abs=0.11)
    assert found.speech == pytest.approx((3.5, 1.5), abs=0.21)
    assert found.share == pytest.approx(np.array(found.speech) / found.seconds)
    both = sum(found.speech) - found.overlap
    assert both + found.silence == pytest.approx(found.seconds)


@pytest.mark.parametrize(("gap", "turns"), [(0.2, 1), (0.3, 2)])
def test_short_gaps_are_closed(gap, turns):
    voices = made([[(0, 1.0), (1.0 + gap, 3.0)]], 3, 8000)
    assert len(activity.find_turns([voices], 8000).turns) == turns


@pytest.mark.parametrize(("down_db", "turns"), [(38, 2), (42, 1)])
def test_what_is_40_db_below_its_own_loudest_is_silence(down_db, turns):
    voices = made([[(0, 1.0), (2.0, 3.0)], [(0, 3)]], 3, 8000)
    voices[0, 16000:] *= 10 ** (-down_db / 20)
    # The loudness of another voice does not matter.
    voices[1] *= 5
    found = activity.find_turns([voices], 8000)
    assert sum(turn.speaker == 0 for turn in found.turns) == turns


def test_what_rounding_leaves_is_no_voice():
    voices = made([[(0, 3)], [(0, 3)]], 3, 8000)
    voices[1] *= 1e-4
    found = activity.find_turns([voices], 8000)
    assert found.num_voices == 1
    assert found.speech == pytest.approx((3.0, 0.0))


def test_channels_silence_and_nothing():
    voices = made([[(0, 1)]], 1, 8000)
    stereo = np.stack([voices, 0 * voices], axis=2)
    assert activity.find_turns([stereo], 8000).turns[0].level_db == pytest.approx(-23, abs=0.5)
    silent = activity.find_turns([np.zeros((2, 12345))], 8000)
    assert silent.turns == ()
    assert silent.silence == pytest.approx(12345 / 8000)
    empty = activity.find_turns([np.zeros((2, 0))], 8000)
    assert (empty.turns, empty.seconds, empty.share) == ((), 0, (0, 0))
    with pytest.raises(ValueError, match="no voices"):
        activity.find_turns([], 8000)


def test_hours_are_kept_in_little():
    meter = activity.Meter(2, 8000)
    for _ in range(360):
        meter.add(np.zeros((2, 80000), np.float32))
    assert meter.powers.shape == (2, 36000)
    assert meter.activity().seconds == 3600
