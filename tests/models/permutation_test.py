"""The best assignment, against SciPy's Hungarian algorithm."""

import keras
import numpy as np
import pytest
import scipy.optimize

from models import permutation


@pytest.mark.parametrize("num_sources", [1, 2, 3, 4, 5, 6, 8])
def test_finds_what_the_hungarian_algorithm_finds(num_sources):
    losses = np.random.default_rng(num_sources).normal(size=(50, num_sources, num_sources))
    found = np.asarray(permutation.assign(losses.astype("float32")))
    assert found.dtype == np.int32
    for matrix, assignment in zip(losses, found, strict=True):
        np.testing.assert_array_equal(assignment, scipy.optimize.linear_sum_assignment(matrix)[1])


@pytest.mark.parametrize("num_sources", [3, 5])
def test_takes_the_order_as_it_is_among_equals(num_sources):
    losses = np.zeros((2, num_sources, num_sources), "float32")
    np.testing.assert_array_equal(permutation.assign(losses), [range(num_sources)] * 2)


def test_a_loss_that_is_not_finite_still_gets_an_assignment():
    for num_sources in (3, 5):
        losses = np.full((1, num_sources, num_sources), np.nan, "float32")
        found = np.asarray(permutation.assign(losses))[0]
        assert sorted(found) == list(range(num_sources))


def test_compiles_for_batches_of_any_size():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("for TensorFlow's graphs")
    compiled = tf.function(
        permutation.assign,
        input_signature=[tf.TensorSpec([None, 5, 5], tf.float32)],
        jit_compile=True,
    )
    losses = np.random.default_rng(0).normal(size=(7, 5, 5)).astype("float32")
    np.testing.assert_array_equal(compiled(losses), permutation.assign(losses))


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
    with pytest.raises(ValueError, match="at most 8"):
        permutation.assign(np.zeros((1, 9, 9), "float32"))
