"""The best assignment, against SciPy's Hungarian algorithm."""

import numpy as np
import pytest
import scipy.optimize

from models import permutation


@pytest.mark.parametrize("num_sources", [1, 2, 3, 4])
def test_finds_what_the_hungarian_algorithm_finds(num_sources):
    losses = np.random.default_rng(num_sources).normal(size=(50, num_sources, num_sources))
    found = np.asarray(permutation.assign(losses.astype("float32")))
    assert found.dtype == np.int32
    for matrix, assignment in zip(losses, found, strict=True):
        np.testing.assert_array_equal(assignment, scipy.optimize.linear_sum_assignment(matrix)[1])


def test_takes_the_order_as_it_is_among_equals():
    np.testing.assert_array_equal(
        permutation.assign(np.zeros((2, 3, 3), "float32")), [[0, 1, 2]] * 2
    )


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 7)])
def test_reorder_takes_the_voices_that_were_assigned(shape):
    rng = np.random.default_rng(0)
    sources = rng.normal(size=shape).astype("float32")
    assignment = np.stack([rng.permutation(3) for _ in range(4)]).astype("int32")
    expected = np.stack([sources[i][order] for i, order in enumerate(assignment)])
    np.testing.assert_array_equal(permutation.reorder(sources, assignment), expected)


def test_refuses_what_it_cannot_assign():
    with pytest.raises(ValueError, match="2 outputs cannot be assigned to 3 voices"):
        permutation.assign(np.zeros((1, 2, 3), "float32"))
    with pytest.raises(ValueError, match="at most 6"):
        permutation.assign(np.zeros((1, 7, 7), "float32"))
