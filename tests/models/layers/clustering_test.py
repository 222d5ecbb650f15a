"""K-means against scikit-learn's."""

import numpy as np
import pytest

from models.layers import clustering


def _points(count, spread, seed=0, size=400):
    """Clouds about `count` directions on the sphere, as embeddings lie; and their weights."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0][:count]
    points = centres[rng.integers(count, size=size)] + spread * rng.normal(size=(size, 8))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    return points.astype("float32"), rng.integers(0, 3, size).astype("float32")


@pytest.mark.parametrize("count", [2, 3, 5])
def test_finds_the_centres_that_scikit_learn_finds(count):
    cluster = pytest.importorskip("sklearn.cluster")
    for seed in range(2):
        points, weights = _points(count, 0.15, seed)
        found = np.asarray(clustering.find_centres(points[None], weights[None], count, 10))[0]
        kmeans = cluster.KMeans(count, n_init=5, random_state=0).fit(points, None, weights)
        order = kmeans.predict(found)
        assert sorted(order) == list(range(count))
        np.testing.assert_allclose(found, kmeans.cluster_centers_[order], atol=1e-5)


def test_rows_of_a_batch_are_apart_and_weightless_points_unseen():
    points, weights = zip(*[_points(2, 0.3, seed) for seed in (1, 2)], strict=True)
    points, weights = np.stack(points), np.stack(weights)
    together = np.asarray(clustering.find_centres(points, weights, 2, 5))
    for row in range(2):
        seen = weights[row] > 0
        alone = clustering.find_centres(points[row][seen][None], weights[row][seen][None], 2, 5)
        np.testing.assert_allclose(together[row], np.asarray(alone)[0], atol=1e-5)


def test_nothing_to_cluster_has_centres_too():
    points, weights = _points(2, 0.3)
    found = np.asarray(clustering.find_centres(points[None], 0 * weights[None], 2, 5))
    assert np.isfinite(found).all()
    one = np.asarray(clustering.find_centres(points[None, :1], weights[None, :1] + 1, 3, 5))
    np.testing.assert_allclose(one[0], np.tile(points[:1], (3, 1)), atol=1e-6)


def test_masks_are_the_nearest_centres_when_hard_and_add_up_when_soft():
    points, _ = _points(3, 0.5, size=24)
    embeddings = points.reshape(1, 4, 6, 8)
    centres = np.random.default_rng(5).normal(size=(1, 3, 8)).astype("float32")
    centres /= np.linalg.norm(centres, axis=-1, keepdims=True)
    apart = np.square(embeddings[0, ..., None, :] - centres[0]).sum(-1)
    hard = np.asarray(clustering.masks(embeddings, centres, 1e6))[0]
    expected = np.moveaxis(np.eye(3)[apart.argmin(-1)], -1, 0)
    assert (expected.max(axis=(1, 2)) == 1).all()
    np.testing.assert_allclose(hard, expected, atol=1e-6)
    soft = np.asarray(clustering.masks(embeddings, centres, 5.0))[0]
    expected = np.exp(-5 * apart) / np.exp(-5 * apart).sum(-1, keepdims=True)
    np.testing.assert_allclose(soft, np.moveaxis(expected, -1, 0), atol=1e-5)


def test_bins_within_the_span_of_the_loudest_are_heard():
    inputs = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32")
    inputs[1, 4:] = 9.0  # Padding, whatever its value.
    heard = np.asarray(clustering.heard_bins(inputs, 1.5))
    np.testing.assert_array_equal(heard[0], inputs[0] >= inputs[0].max() - 1.5)
    np.testing.assert_array_equal(heard[1, :4], inputs[1, :4] >= inputs[1, :4].max() - 1.5)
    assert not heard[1, 4:].any()
    assert 0 < heard.mean() < 1
