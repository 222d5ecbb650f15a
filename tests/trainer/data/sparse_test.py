"""When voices are heard in sparse windows, from the envelopes alone."""

import numpy as np
import pytest

from trainer.data import sparse

RATE = 8000


def _draw(count=300, num_sources=2, seconds=3.0, rate=RATE):
    return [
        sparse.envelopes(np.random.default_rng([1, number]), num_sources, int(seconds * rate), rate)
        for number in range(count)
    ]


@pytest.mark.parametrize("num_sources", [2, 3])
@pytest.mark.parametrize(("seconds", "rate"), [(3.0, RATE), (8.0, 16000), (0.02, RATE)])
def test_envelopes_are_gains_and_somebody_is_heard(num_sources, seconds, rate):
    for made in _draw(60, num_sources, seconds, rate):
        assert made.shape == (num_sources, int(seconds * rate))
        assert made.dtype == np.float32
        assert made.min() >= 0
        assert made.max() == 1


def test_all_kinds_come():
    made = _draw()
    heard = np.array([(e > 0).mean(axis=1) for e in made])
    alone = (heard.min(axis=1) == 0) & (heard.max(axis=1) == 1)
    # One of three, and a turn that fills the window now and then.
    assert 75 <= alone.sum() <= 150
    one_throughout = (heard.max(axis=1) == 1) & (heard.min(axis=1) > 0)
    assert 70 <= one_throughout.sum() <= 130
    turns = heard.max(axis=1) < 1
    assert 50 <= turns.sum() <= 130
    # With pauses of all and with overlap, each of some length.
    both = np.array([(e > 0).all(axis=0).mean() for e in made])[turns]
    none = np.array([(e == 0).all(axis=0).mean() for e in made])[turns]
    assert (both > 0.05).mean() > 0.2
    assert (none > 0.05).mean() > 0.2
    # Neither voice has an advantage.
    assert abs(heard[:, 0].mean() - heard[:, 1].mean()) < 0.08
    late, early = (
        (e[:, edge] == 0).any(axis=0).mean() for e in [np.array(made)] for edge in (0, -1)
    )
    assert late > 0.2
    assert early > 0.2


def test_voices_fade_in_20_to_50_ms_inside_of_the_window():
    lengths = []
    for made in _draw(100):
        for row in made:
            edges = (row > 0) & (row < 1)
            steps = np.diff(np.concatenate([[0], edges.astype(int), [0]]))
            begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
            lengths += [e - b for b, e in zip(begins, ends, strict=True) if b > 0 and e < len(row)]
            assert np.abs(np.diff(row)).max(initial=0) < 0.02
    lengths = np.array(lengths) / RATE
    assert len(lengths) > 100
    assert lengths.min() > 0.018
    # Two turns of a voice may follow one another.
    assert lengths.max() < 0.11
    assert np.median(lengths) == pytest.approx(0.035, abs=0.005)


def test_the_same_generator_gives_the_same():
    for one, other in zip(_draw(20), _draw(20), strict=True):
        np.testing.assert_array_equal(one, other)
