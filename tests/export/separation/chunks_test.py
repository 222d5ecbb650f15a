"""Chunks: nothing is lost, voices keep their sides, memory does not grow."""

import itertools
import tracemalloc

import numpy as np
import pytest

from export.separation import chunks
from pipeline.audio import decoding

RATE = 8000


def voice(pitch, seconds, seed):
    """A harmonic tone in syllables and words with pauses between them."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * pitch * h * time) / h for h in range(1, 9))
    syllables = np.repeat(random.uniform(0, 0.2, round(seconds * 4)), RATE // 4)
    words = np.repeat(random.uniform(size=round(seconds)) > 0.3, RATE)
    return (tone * syllables * words + 1e-6 * random.standard_normal(time.size)).astype(np.float32)


class Oracle:
    """Knows the voices, and gives them in a random order, neither of them clean."""

    def __init__(self, voices, seed=0):
        self.voices = np.asarray(voices)
        self.mixture = self.voices.sum(axis=0)
        self.random = np.random.default_rng(seed)
        self.lengths, self.orders = [], []

    def __call__(self, mixtures):
        return [self.separate(mixture) for mixture in mixtures]

    def separate(self, mixture):
        places = np.flatnonzero(self.mixture == mixture[0, 0])
        place = next(p for p in places if (self.mixture[p : p + 50] == mixture[:50, 0]).all())
        part = self.voices[:, place : place + len(mixture)]
        leak = self.random.uniform(0.1, 0.4)
        order = self.random.permutation(len(part))
        self.orders.append(tuple(order))
        self.lengths.append(len(mixture))
        mean = part.mean(axis=0)
        return (part + leak * (mean - part))[order][..., np.newaxis].astype(np.float32)


def separate(oracle, chunk, overlap, block=999, at_once=3):
    mixture = oracle.mixture[:, np.newaxis]
    blocks = (mixture[i : i + block] for i in range(0, len(mixture), block))
    pieces = list(
        chunks.separate_blocks(blocks, oracle, round(chunk * RATE), round(overlap * RATE), at_once)
    )
    heard = np.concatenate([m for m, _ in pieces])
    voices = np.concatenate([v for _, v in pieces], axis=1)
    np.testing.assert_array_equal(heard, mixture)
    return voices[..., 0]


def swaps(voices, truth):
    """How often voices change sides, and the seconds in which that can be told."""
    energy = np.square(truth[:, : truth.shape[1] // RATE * RATE]).reshape(len(truth), -1, RATE)
    energy = energy.sum(axis=-1)
    speaks = energy > 0.01 * energy.max(axis=1, keepdims=True)
    sides = []
    # All but one have to speak: of two that are silent, nothing tells which is which.
    for second in np.flatnonzero(speaks.sum(axis=0) >= len(truth) - 1):
        part = slice(second * RATE, (second + 1) * RATE)
        similarity = truth[:, part] @ voices[:, part].T
        sides.append(tuple(chunks.best_order(similarity)))
    return sum(a != b for a, b in itertools.pairwise(sides)), len(sides)


@pytest.mark.parametrize("seed", [0, 10, 20])
@pytest.mark.parametrize("pitches", [(100, 190), (100, 105), (90, 140, 210)])
def test_no_voice_changes_sides(pitches, seed):
    truth = np.stack([voice(p, 120, seed + i) for i, p in enumerate(pitches)])
    oracle = Oracle(truth, seed)
    voices = separate(oracle, 8, 1)
    # The stub does swap, so that there is something to put in order.
    assert sum(a != b for a, b in itertools.pairwise(oracle.orders)) >= 4
    changed, counted = swaps(voices, truth)
    assert counted > 60
    assert changed == 0
    np.testing.assert_allclose(voices.sum(axis=0), oracle.mixture, atol=1e-5)


@pytest.mark.recordings
@pytest.mark.parametrize("pair", [("FVMH0", "FAEM0"), ("MCPM0", "MARC0"), ("FVMH0", "MCPM0")])
def test_no_real_voice_changes_sides(recordings, pair):
    """Two speakers of TIMIT, who take turns, talk at once and pause, for four minutes."""
    random = np.random.default_rng(0)
    truth = np.zeros((2, 240 * RATE), np.float32)
    for row, speaker in zip(truth, pair, strict=True):
        files = sorted((recordings / "timit_sample").rglob(f"{speaker}/*.WAV"))
        place = 0
        while place < row.size:
            samples, rate = decoding.decode(random.choice(files).read_bytes())
            samples = decoding.resample(samples, rate, RATE)[: row.size - place]
            row[place : place + samples.size] = samples
            place += samples.size + round(random.exponential(2.0) * RATE)
    truth += 1e-6 * random.standard_normal(truth.shape).astype(np.float32)
    oracle = Oracle(truth)
    changed, counted = swaps(separate(oracle, 10, 1), truth)
    assert counted > 100
    assert changed == 0


def test_without_the_order_they_would():
    """What the test above holds against: the same stub, joined as its voices come."""
    truth = np.stack([voice(p, 120, i) for i, p in enumerate((100, 190))])
    oracle = Oracle(truth)
    step = 7 * RATE
    parts = [
        oracle.separate(oracle.mixture[i : i + step, np.newaxis])
        for i in range(0, 120 * RATE, step)
    ]
    changed, _ = swaps(np.concatenate(parts, axis=1)[..., 0], truth)
    assert changed >= 4


def test_pauses_longer_than_the_overlap():
    truth = np.stack([voice(p, 120, i) for i, p in enumerate((100, 190))])
    for start in range(5, 120, 7):
        truth[:, start * RATE : (start + 3) * RATE] *= 1e-3
    assert swaps(separate(Oracle(truth), 8, 1), truth)[0] == 0


def test_a_pause_longer_than_a_chunk():
    """Nothing is shared then; the colour of the voices tells who is who."""
    for seed in range(6):
        truth = np.stack([voice(p, 80, i) for i, p in enumerate((100, 190))])
        truth[:, 30 * RATE : 55 * RATE] *= 1e-4
        assert swaps(separate(Oracle(truth, seed), 8, 1), truth)[0] == 0


@pytest.mark.parametrize("length", [1, 100, 15999, 16000, 16001, 16100, 30001, 50000])
def test_every_length_and_block(length):
    truth = np.random.default_rng(1).normal(size=(2, length)).astype(np.float32)
    for block in (77, 10**6):
        oracle = Oracle(truth)
        voices = separate(oracle, 2, 0.5, block)
        np.testing.assert_allclose(voices.sum(axis=0), oracle.mixture, atol=1e-5)
        # All chunks are whole ones, unless the recording is shorter than one.
        assert set(oracle.lengths) == {min(length, 16000)}


def test_nothing_gives_nothing():
    assert list(chunks.separate_blocks([], None, 1000, 10)) == []


@pytest.mark.parametrize(("chunk", "overlap"), [(100, 10), (1000, -1), (1000, 501)])
def test_sizes_that_cannot_be(chunk, overlap):
    with pytest.raises(ValueError, match="chunk"):
        next(chunks.separate_blocks([np.zeros((9, 1), np.float32)], None, chunk, overlap))


def test_a_local_separator_is_the_same_in_one_piece_and_in_chunks():
    """A filter hears a tenth of a second, less than the fade keeps from a chunk's ends."""
    random = np.random.default_rng(3)
    mixture = random.standard_normal((20 * RATE, 2)).astype(np.float32)
    kernel = np.hanning(801) / 400

    def split(part):
        low = np.stack([np.convolve(c, kernel, "same") for c in part.T], axis=-1)
        return np.stack([low, part - low]).astype(np.float32)

    whole = split(mixture)
    pieces = chunks.separate_blocks([mixture], lambda m: map(split, m), 3 * RATE, RATE, 4)
    found = np.concatenate([voices for _, voices in pieces], axis=1)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("num_sources", [2, 3, 5])
def test_best_order_is_the_best_of_all(num_sources):
    random = np.random.default_rng(0)
    for _ in range(20):
        similarity = random.normal(size=(num_sources, num_sources))
        rows = np.arange(num_sources)
        best = max(
            itertools.permutations(rows), key=lambda order: similarity[rows, list(order)].sum()
        )
        assert tuple(chunks.best_order(similarity)) == best


def test_memory_does_not_grow_with_the_length():
    def copies(mixtures):
        return [np.stack([mixture, mixture]) for mixture in mixtures]

    def peak(seconds):
        random = np.random.default_rng(0)
        blocks = (random.standard_normal((4000, 1)).astype(np.float32) for _ in range(2 * seconds))
        tracemalloc.start()
        for _ in chunks.separate_blocks(blocks, copies, 2 * RATE, RATE // 2, 4):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)
    assert peak(120) < 1.1 * peak(20)
