import keras
import numpy as np
import pytest

from models import deep_clustering, masks
from trainer import clustering_loss as loss


def _inputs(batch=2, frames=12, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, frames, 129)).astype("float32")


def _network(**settings):
    keras.utils.set_random_seed(0)
    network = deep_clustering.DeepClustering(**{"units": 16, "dimension": 6, **settings})
    network.build((None, None, 129))
    return network


def test_embeddings_are_of_unit_length():
    embeddings = np.asarray(_network().embeddings(_inputs()))
    assert embeddings.shape == (2, 12, 129, 6)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("num_outputs", [2, 3])
def test_masks_are_those_of_k_means_over_the_loud_bins(num_outputs):
    cluster = pytest.importorskip("sklearn.cluster")
    network = _network(num_outputs=num_outputs, hardness=1e6, iterations=20)
    inputs = _inputs()
    found = np.asarray(network(inputs)).argmax(axis=1)
    for row, embeddings in enumerate(np.asarray(network.embeddings(inputs))):
        loud = inputs[row] >= inputs[row].max() - network.span
        points, labels = embeddings[loud], found[row][loud]
        parts = [points[labels == label] for label in range(num_outputs)]
        apart = sum(np.square(part - part.mean(axis=0)).sum() for part in parts)
        best = cluster.KMeans(num_outputs, n_init=5, random_state=0).fit(points).inertia_
        # A network that has learned nothing yet leaves many minima; ours is one of the deep ones.
        assert apart < 1.05 * best


@pytest.mark.slow
def test_learns_one_batch_by_heart_with_its_own_loss():
    """Bins of two voices that lie in patches: the loss falls, and so the masks are right."""
    network, inputs = _network(hardness=20.0), _inputs(frames=8)
    voices = np.random.default_rng(1).integers(2, size=(2, 4, 43)).repeat(2, 1).repeat(3, 2)
    ideal = np.stack([voices, 1 - voices], axis=1).astype("float32")
    weights = np.ones((2, 8, 129), "float32")

    class Learner(keras.Model):
        def __init__(self):
            super().__init__()
            self.network = network

        def call(self, inputs, training=None):
            return self.network.embeddings(inputs, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            error, weight = loss.clustering_loss(y_pred, y, weights)
            return keras.ops.sum(error) / keras.ops.sum(weight)

    learner = Learner()
    learner.compile(keras.optimizers.Adam(0.02), jit_compile=False)
    history = learner.fit(
        np.tile(inputs, (120, 1, 1)), np.tile(ideal, (120, 1, 1, 1)),
        batch_size=2, epochs=2, shuffle=False, verbose=0,
    )  # fmt: skip
    assert history.history["loss"][1] < 0.05
    found = np.asarray(masks.ideal_binary(network(inputs)))
    agreement = np.einsum("botf,bstf->bos", found, ideal) / voices[0].size
    assert (agreement.max(axis=-1).sum(axis=-1) > 0.95).all()


def test_is_for_two_voices_or_more():
    with pytest.raises(ValueError, match="two or more"):
        deep_clustering.DeepClustering(num_outputs=1)
