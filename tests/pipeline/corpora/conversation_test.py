"""A synthetic conversation agrees with its list of utterances."""

import itertools

import numpy as np
import pytest

from pipeline.corpora import conversation, espeak


def test_utterances_stand_where_they_are_said_to():
    random = np.random.default_rng(0)
    rate = 1000
    spoken = [
        [random.uniform(-0.3, 0.3, length).astype(np.float32) for length in lengths]
        for lengths in ((3000, 2500, 2000), (4000, 3500))
    ]
    made = conversation.arrange(spoken, rate)
    assert made.rate == rate
    assert np.abs(made.mixture).max() < 1
    expected = np.zeros_like(made.voices)
    left = [iter(utterances) for utterances in spoken]
    for speaker, start, end in made.utterances:
        expected[speaker, round(start * rate) : round(end * rate)] = next(left[speaker])
    np.testing.assert_allclose(made.voices, expected, atol=1e-6)
    # Both at once, one after the other, and silence.
    spans = sorted((start, end) for _, start, end in made.utterances)
    gaps = [b[0] - a[1] for a, b in itertools.pairwise(spans)]
    assert min(gaps) < -1
    assert 0 < sorted(gaps)[2] < 1
    assert max(gaps) >= 2


def test_loud_voices_are_brought_below_full_scale():
    made = conversation.arrange(
        [[np.ones(2000, np.float32)] * 3, [np.ones(2500, np.float32)] * 2], 500
    )
    assert np.abs(made.mixture).max() == pytest.approx(0.9)
    np.testing.assert_allclose(made.voices.sum(axis=0), made.mixture)


def test_two_speakers_and_always_the_same():
    try:
        made, again = conversation.make(), conversation.make()
    except espeak.EspeakError:
        pytest.skip("eSpeak NG is not here")
    assert made.voices.shape[0] == 2
    assert 15 < made.voices.shape[1] / made.rate < 40
    assert not np.array_equal(made.voices[0], made.voices[1])
    assert made.utterances[0] == again.utterances[0]
