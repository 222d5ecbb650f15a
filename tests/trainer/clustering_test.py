"""The affinity loss against the matrix of all pairs, in NumPy."""

import numpy as np
import pytest

from trainer import clustering


def _data(num_sources, seed=0):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(3, 6, 5, 4)).astype("float32")
    embeddings /= np.linalg.norm(embeddings, axis=-1, keepdims=True)
    voices = rng.integers(num_sources, size=(3, 6, 5))
    ideal = np.moveaxis(np.eye(num_sources, dtype="float32")[voices], -1, 1)
    return embeddings, ideal, rng.uniform(size=(3, 6, 5)).astype("float32")


def _of_all_pairs(embeddings, ideal, weights):
    """`[batch]`: the mean, in float64."""
    means = []
    for v, y, w in zip(embeddings, ideal, weights, strict=True):
        v, y = v.reshape(-1, v.shape[-1]).astype(float), y.reshape(len(y), -1).T
        pairs = np.outer(w.ravel(), w.ravel())
        means.append(np.sum(pairs * (v @ v.T - y @ y.T) ** 2) / np.sum(pairs))
    return means


@pytest.mark.parametrize("num_sources", [2, 3])
def test_is_the_mean_over_all_pairs(num_sources):
    embeddings, ideal, weights = _data(num_sources)
    error, weight = clustering.clustering_loss(embeddings, ideal, weights)
    np.testing.assert_allclose(
        np.asarray(error) / weight, _of_all_pairs(embeddings, ideal, weights), rtol=1e-4
    )
    np.testing.assert_allclose(weight, weights.sum(axis=(1, 2)), rtol=1e-6)


def test_bins_without_weight_count_nothing():
    embeddings, ideal, weights = _data(2)
    weights = (weights > 0.5).astype("float32")
    expected = clustering.clustering_loss(embeddings, ideal, weights)
    embeddings[weights == 0] = 7
    for before, after in zip(
        expected, clustering.clustering_loss(embeddings, ideal, weights), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_is_zero_for_embeddings_that_are_the_voices_and_finite_in_silence():
    _, ideal, weights = _data(3)
    error, _ = clustering.clustering_loss(np.moveaxis(ideal, 1, -1), ideal, weights)
    np.testing.assert_allclose(error, 0, atol=1e-5)
    error, weight = clustering.clustering_loss(np.moveaxis(ideal, 1, -1), ideal, 0 * weights)
    np.testing.assert_array_equal(error, 0)
    np.testing.assert_array_equal(weight, 0)
