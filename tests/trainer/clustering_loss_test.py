"""The affinity loss against the matrix of all pairs, in NumPy."""

import keras
import numpy as np
import pytest

from models import registry, separator
from pipeline import features, ideal_masks
from trainer import clustering_loss, losses, objectives


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
    error, weight = clustering_loss.clustering_loss(embeddings, ideal, weights)
    np.testing.assert_allclose(
        np.asarray(error) / weight, _of_all_pairs(embeddings, ideal, weights), rtol=1e-4
    )
    np.testing.assert_allclose(weight, weights.sum(axis=(1, 2)), rtol=1e-6)


def test_bins_without_weight_count_nothing():
    embeddings, ideal, weights = _data(2)
    weights = (weights > 0.5).astype("float32")
    expected = clustering_loss.clustering_loss(embeddings, ideal, weights)
    embeddings[weights == 0] = 7
    for before, after in zip(
        expected, clustering_loss.clustering_loss(embeddings, ideal, weights), strict=True
    ):
        np.testing.assert_array_equal(before, after)


def test_is_zero_for_embeddings_that_are_the_voices_and_finite_in_silence():
    _, ideal, weights = _data(3)
    error, _ = clustering_loss.clustering_loss(np.moveaxis(ideal, 1, -1), ideal, weights)
    np.testing.assert_allclose(error, 0, atol=1e-5)
    error, weight = clustering_loss.clustering_loss(np.moveaxis(ideal, 1, -1), ideal, 0 * weights)
    np.testing.assert_array_equal(error, 0)
    np.testing.assert_array_equal(weight, 0)


@pytest.mark.parametrize("name", ["deep_clustering", "chimera"])
def test_is_what_networks_with_embeddings_learn(name):
    """From waveforms, on ideal masks and bins that NumPy knows."""
    keras.utils.set_random_seed(0)
    network = registry.create(name, units=4, num_layers=1, dimension=3)
    model = separator.Separator(network, -3.2, 0.9, -26.0, 8000, 2)
    model.build(None)
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(2, 2, 600)) * rng.uniform(0, 0.1, (2, 2, 600))
    sources = sources.astype("float32")
    sources[1, :, 300:] = 0
    batch = {"sources": sources, "num_samples": np.array([600, 300], "int32")}
    mixtures = objectives.Mixtures.of(batch)
    objective = objectives.Objective(objectives.default_loss(type(network)))
    error, weight = objective.error(objective.outputs(model, mixtures), mixtures, network)

    spectrograms = features.stft(sources)
    whole = spectrograms.sum(axis=1)
    frames = np.array([11, 6])
    loud = np.abs(whole) * (np.arange(11)[None, :] < frames[:, None])[..., None]
    loud = (loud >= 0.01 * loud.max(axis=(1, 2), keepdims=True)).astype("float32")
    ideal = np.stack([ideal_masks.binary(np.abs(s)) for s in spectrograms])
    gain = np.asarray(model.gain(sources.sum(axis=1)))
    normalised = model.normalise(features.log_magnitude(whole * gain[:, None, None]))
    expected = _of_all_pairs(np.asarray(network.embeddings(normalised)), ideal, loud)
    if name == "chimera":
        targets = np.clip(ideal_masks.phase_sensitive(spectrograms.swapaxes(0, 1), whole), 0, 1)
        valid = (np.arange(11)[None] < frames[:, None]).astype("uint8")
        other, energy = losses.permutation_invariant(
            network(normalised), targets.swapaxes(0, 1).astype("float32"), np.abs(whole), valid
        )
        expected = 0.975 * np.array(expected) + 0.025 * np.asarray(other) / np.asarray(energy)
    np.testing.assert_allclose(np.asarray(error) / np.asarray(weight), expected, rtol=1e-3)
