"""The fast way of training against the layers: results and gradients, and when it is taken."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import registry, tcn
from models.layers import fused_convolution

WIDTH, UNITS = 5, 7


def _block(fused, **settings):
    policy = settings.pop("dtype", None)
    block = tcn.Block(WIDTH, UNITS, **{"kernel": 3, "dilation": 2, **settings}, dtype=policy)
    block.build((None, None, WIDTH))
    rng = np.random.default_rng(1)
    block.set_weights([rng.normal(size=w.shape) for w in block.get_weights()])
    fused_convolution.set_fused(block, fused)
    return block


def _gradients(block, x, upstream, signature=None):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = block(x, training=True)
        variables = [v.value for v in block.trainable_variables]
        upstream_ = tf.cast(upstream, outputs.dtype)
        return outputs, *tape.gradient(outputs, [x, *variables], output_gradients=upstream_)

    return [
        np.asarray(tf.cast(values, tf.float32))
        for values in tf.function(run, input_signature=signature)(tf.constant(x))
    ]


@pytest.mark.parametrize(
    "settings",
    [{}, {"dilation": 1}, {"dilation": 16}, {"kernel": 4}, {"kernel": 1}, {"causal": True}],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 11, WIDTH), (1, 1, WIDTH)])
def test_outputs_and_gradients_are_those_of_the_layers(settings, shape):
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    expected = _gradients(_block(False, **settings), x, upstream)
    found = _gradients(_block(True, **settings), x, upstream)
    assert len(found) == 10
    for one, other in zip(expected, found, strict=True):
        scale = max(1.0, np.abs(one).max())
        np.testing.assert_allclose(other, one, atol=2e-5 * scale)


def test_normalisation_is_that_of_keras_without_gain_and_bias():
    rng = np.random.default_rng(0)
    x, upstream = (tf.constant(rng.normal(size=(4, 6, WIDTH)), tf.float32) for _ in range(2))
    layer = keras.layers.LayerNormalization(epsilon=fused_convolution.EPSILON)
    found = []
    for normalise in (layer, fused_convolution.normalise):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = normalise(x)
        found.append((y, tape.gradient(y, x, output_gradients=upstream)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_graph_of_unknown_sizes():
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(size=(2, 9, WIDTH)).astype(np.float32) for _ in range(2))
    signature = [tf.TensorSpec([None, None, WIDTH])]
    expected = _gradients(_block(False), x, upstream)
    found = _gradients(_block(True), x, upstream, signature)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5 * max(1.0, np.abs(one).max()))


def test_mixed_precision_errs_as_much_as_the_layers_do():
    rng = np.random.default_rng(0)
    x, upstream = (rng.normal(size=(4, 40, WIDTH)).astype(np.float32) for _ in range(2))
    exact = _gradients(_block(False), x, upstream)
    half = tf.cast(x, tf.bfloat16)
    layers = _gradients(_block(False, dtype="mixed_bfloat16"), half, upstream)
    fast = _gradients(_block(True, dtype="mixed_bfloat16"), half, upstream)
    for one, other, true in zip(layers, fast, exact, strict=True):
        # Gain and kernel are rounded together here, there one by one.
        assert np.linalg.norm(other - true) < 2 * np.linalg.norm(one - true)


def test_it_is_for_training_alone(monkeypatch):
    network = registry.create("tcn", width=WIDTH, units=UNITS, num_layers=1, repeats=1)
    network.build((None, None, 129))
    fused_convolution.set_fused(network, True)
    x = np.zeros((1, 6, 129), "float32")
    called = []
    monkeypatch.setattr(fused_convolution, "convolution", lambda x, *_: called.append(x.shape) or x)
    network(x)
    network(x, training=False)
    assert not called
    network(x, training=True)
    assert called == [(1, 3, WIDTH)]
    fused_convolution.set_fused(network, False)
    network(x, training=True)
    assert len(called) == 1


def test_a_step_of_the_trainer_learns_the_same():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(2, 8, 129)).astype("float32")
    weights = []
    for fused in (False, True):
        network = registry.create("tcn", width=WIDTH, units=UNITS, num_layers=2, repeats=1)
        network.build((None, None, 129))
        rng = np.random.default_rng(2)
        network.set_weights([0.3 * rng.normal(size=w.shape) for w in network.get_weights()])
        fused_convolution.set_fused(network, fused)
        network.compile("sgd", "mse")
        network.fit(x, np.ones((2, 2, 8, 129), "float32"), verbose=0)
        weights.append(network.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)
