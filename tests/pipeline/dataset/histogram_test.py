"""Exact statistics against NumPy's and against themselves in another order."""

import json

import numpy as np
import pytest

from pipeline.dataset import histogram


def values(seed=0, shape=(300, 129)):
    return np.random.default_rng(seed).normal(-3.4, 0.85, shape).astype(np.float16)


def test_mean_and_deviation_are_numpys():
    parts = [values(seed) for seed in range(4)]
    counts = sum(histogram.count(part) for part in parts)
    every = np.concatenate(parts).astype(np.float64)
    mean, deviation = histogram.mean_and_deviation(counts)
    assert mean == pytest.approx(every.mean(), rel=1e-12)
    assert deviation == pytest.approx(every.std(), rel=1e-12)


def test_any_order_gives_the_same_bits():
    parts = [histogram.count(values(seed, (7, 129))) for seed in range(50)]
    forth = histogram.mean_and_deviation(sum(parts))
    halves = sum(parts[::-2]) + sum(parts[-2::-2])
    assert histogram.mean_and_deviation(halves) == forth


def test_every_finite_code_counts():
    codes = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = codes[np.isfinite(codes)]
    mean, deviation = histogram.mean_and_deviation(histogram.count(finite))
    assert mean == 0
    assert deviation == pytest.approx(finite.astype(np.float64).std(), rel=1e-12)


def test_through_json():
    counts = histogram.count(values())
    again = histogram.from_dict(json.loads(json.dumps(histogram.to_dict(counts))))
    assert again.dtype == np.int64
    np.testing.assert_array_equal(again, counts)
    assert counts.sum() == 300 * 129


def test_nothing_has_no_mean():
    assert histogram.mean_and_deviation(histogram.count(np.empty(0, np.float16))) is None
