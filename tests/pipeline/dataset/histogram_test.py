"""Exact statistics compared with NumPy's and with themselves in another order."""

import numpy as np
import pytest

from pipeline.dataset import histogram
from pipeline.io import stored_json


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
    text = stored_json.dumps(histogram.Codes.of(counts))
    again = stored_json.loads(text, histogram.Codes).to_array()
    assert again.dtype == np.int64
    np.testing.assert_array_equal(again, counts)
    assert counts.sum() == 300 * 129


@pytest.mark.parametrize(
    "text",
    [
        '{"codes":[1,1],"counts":[2,2]}', '{"codes":[1],"counts":[2,2]}',
        '{"codes":[65536],"counts":[1]}', '{"codes":[1],"counts":[0]}',
        '{"codes":[-1],"counts":[1]}', '{"codes":[1],"counts":[1.5]}', '{"codes":[1]}',
    ],
)  # fmt: skip
def test_what_is_no_histogram_is_refused(text):
    with pytest.raises(ValueError, match=r"code|counts"):
        stored_json.loads(text, histogram.Codes)


def test_nothing_has_no_mean():
    assert histogram.mean_and_deviation(histogram.count(np.empty(0, np.float16))) is None
