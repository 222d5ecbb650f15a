"""Alternative clusterings of embeddings into masks, for comparison with the model's own.

Both come from scikit-learn. K-means with ten initialisations is the reference for
`models.layers.clustering`, which runs a fixed number of steps from one initialisation. Mean shift
(Comaniciu and Meer 2002) takes a radius instead of a number of voices.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from export.outlets import formats, keras_model
from export.separation import loading
from pipeline import errors

# Enough to estimate the density of the points; the cost of mean shift is quadratic.
_POINTS = 2000
_SEEDS = 50
# Mean shift's radius: half the distance between two voices with orthogonal embeddings.
_RADIUS = 0.7


def kmeans(points: np.ndarray, count: int) -> np.ndarray:
    """Finds cluster centres with scikit-learn's `KMeans`, the best of ten initialisations.

    Args:
        points: `[point, dimension]`.
        count: number of centres to find.

    Returns:
        `[centre, dimension]`.
    """
    from sklearn import cluster

    return cluster.KMeans(count, n_init=10, random_state=0).fit(points).cluster_centers_


def mean_shift(points: np.ndarray, count: int) -> np.ndarray:
    """Finds the modes with the most points, using scikit-learn's `MeanShift`.

    It uses a sample of the points and reduces the radius until there are enough modes.

    Args:
        points: `[point, dimension]`, of unit length.
        count: number of modes to return.

    Returns:
        `[mode, dimension]`; all distinct unless there are fewer distinct points.
    """
    from sklearn import cluster

    points = np.random.default_rng(0).permutation(points)[:_POINTS]
    modes = points[:1]
    radius = _RADIUS
    while len(modes) < count and radius > 0.01:
        found = cluster.MeanShift(bandwidth=radius, seeds=points[:_SEEDS]).fit(points)
        modes = found.cluster_centers_[np.argsort(-np.bincount(found.labels_), kind="stable")]
        radius *= 0.8
    return np.resize(modes, (count, points.shape[1]))


CLUSTERERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "kmeans": kmeans,
    "mean_shift": mean_shift,
}


def load(path: str | os.PathLike[str], name: str) -> loading.LoadedModel | None:
    """Loads a model with a different clustering of its network's embeddings.

    Args:
        path: a training run's folder or a `.keras` file.
        name: one of `CLUSTERERS`.

    Returns:
        The model, with masks; None if the network has no embeddings, or if the model is a
        SavedModel or a LiteRT or ONNX file, which do not expose them.

    Raises:
        UserError: there is no such model, or scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise errors.UserError(
            "scikit-learn is not installed: pip install voices-apart[evaluate]"
        ) from error
    if formats.of(path) is not None:
        return None
    separator = keras_model.read(path)
    if not hasattr(separator.network, "embeddings"):
        return None
    from export.outlets import signatures

    separator = signatures.in_float32(separator)
    clustered = _with_clusterer(separator, CLUSTERERS[name])
    return loading.LoadedModel(
        signatures.describe(separator),
        os.fspath(path),
        lambda waveform: np.asarray(clustered(waveform)),
        lambda log_magnitude: np.asarray(clustered.masks(log_magnitude)),
    )


def _with_clusterer(separator: Any, find_centres: Callable[[np.ndarray, int], np.ndarray]) -> Any:
    """Replaces the separator's network by one that clusters its embeddings differently."""
    import keras
    import tensorflow as tf

    from models import separator as separator_lib
    from models.layers import clustering

    network, count = separator.network, separator.num_sources
    # As a graph: run eagerly, a recurrent network takes seconds.
    embed = tf.function(
        lambda inputs: network.embeddings(inputs, training=False),
        input_signature=[tf.TensorSpec([None, None, network.num_bins], tf.float32)],
    )

    class Clustered(keras.Model):
        """Runs only eagerly, because it calls scikit-learn."""

        takes = separator_lib.LOG_MAGNITUDE

        def build(self, input_shape: Any) -> None:
            self.built = True

        def call(self, inputs: Any, training: bool | None = None) -> Any:
            embeddings = embed(inputs)
            heard = clustering.heard_bins(inputs, getattr(network, "span", clustering.SPAN))
            centres = [
                _centres(points[loud], count, find_centres)
                for points, loud in zip(embeddings.numpy(), heard.numpy() > 0, strict=True)
            ]
            hardness = getattr(network, "hardness", clustering.HARDNESS)
            return clustering.masks(embeddings, np.stack(centres).astype("float32"), hardness)

    return separator_lib.wrap(
        Clustered(dtype="float32"),
        mean=separator.mean,
        deviation=separator.deviation,
        active_level_db=separator.active_level_db,
        sample_rate=separator.sample_rate,
        num_sources=count,
    )


def _centres(
    points: np.ndarray, count: int, find: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    if len(points) <= count:  # Silence, or nearly so.
        return np.resize([*points, np.zeros(points.shape[1])], (count, points.shape[1]))
    return find(points, count)
