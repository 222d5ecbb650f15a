"""Losses against loops in NumPy."""

import itertools

import numpy as np
import pytest

from pipeline import schema
from trainer import losses


def _data(seed=0, num_sources=2):
    rng = np.random.default_rng(seed)
    shape = (3, num_sources, 11, 7)
    frame_mask = np.arange(11)[None] < np.array([[11], [6], [1]])
    return (
        rng.uniform(0, 1, shape).astype("float32"),
        rng.uniform(-1, 2, shape).astype("float32"),
        rng.exponential(size=(3, 11, 7)).astype("float32"),
        frame_mask.astype("uint8"),
    )


@pytest.mark.parametrize("name", schema.MASKS)
def test_targets_are_what_the_schema_decodes(name):
    feature = next(f for f in schema.MIXTURE_FEATURES if f.name == name)
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 2, (1, 5, 16)) if name == "psm" else rng.uniform(0, 1, (1, 5, 16))
    if name == "ibm":
        values = values > 0.5
    data = feature.encode(values)
    sizes = {"K": 1, "T": 5, "F": 16}
    expected = schema.all_masks(feature.decode(data, sizes), 2)
    codes = np.frombuffer(data[0], np.uint8)
    if name == "ibm":
        codes = np.unpackbits(codes)
    found = losses.decode_targets(codes.reshape(1, 1, 5, 16), name, 2)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_fixed_is_the_mean_squared_error_of_the_first_mask():
    estimates, targets, _, frame_mask = _data()
    error, weight = (np.asarray(x) for x in losses.fixed_assignment(estimates, targets, frame_mask))
    for i in range(3):
        valid = frame_mask[i].astype(bool)
        differences = (estimates[i, 0] - targets[i, 0])[valid]
        np.testing.assert_allclose(error[i] / weight[i], np.mean(differences**2), rtol=1e-5)
        assert weight[i] == differences.size


@pytest.mark.parametrize("num_sources", [2, 3])
def test_permutation_invariant_is_the_least_over_all_permutations(num_sources):
    estimates, targets, magnitude, frame_mask = _data(1, num_sources)
    error, weight = losses.permutation_invariant(estimates, targets, magnitude, frame_mask)
    for i in range(3):
        masked = magnitude[i] * frame_mask[i][:, None]
        totals = [
            np.sum(((estimates[i] - targets[i, list(order)]) * masked) ** 2)
            for order in itertools.permutations(range(num_sources))
        ]
        np.testing.assert_allclose(error[i], min(totals), rtol=1e-5)
        np.testing.assert_allclose(weight[i], np.sum(masked**2), rtol=1e-5)


def test_permutation_invariant_does_not_care_for_the_order():
    estimates, targets, magnitude, frame_mask = _data(2, 3)
    first = losses.permutation_invariant(estimates, targets, magnitude, frame_mask)[0]
    other = losses.permutation_invariant(estimates[:, [2, 0, 1]], targets, magnitude, frame_mask)[0]
    np.testing.assert_allclose(first, other, rtol=1e-5)


def test_padding_counts_nothing():
    estimates, targets, magnitude, frame_mask = _data(3)
    spoilt = estimates.copy()
    spoilt.swapaxes(1, 2)[frame_mask == 0] = 77
    for loss in (
        lambda e: losses.fixed_assignment(e, targets, frame_mask),
        lambda e: losses.permutation_invariant(e, targets, magnitude, frame_mask),
    ):
        for before, after in zip(loss(estimates), loss(spoilt), strict=True):
            np.testing.assert_array_equal(before, after)
