"""The fast way of training against Keras' own layer: results, gradients, weights, and when."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import registry
from models.layers import fused_lstm, recurrent

UNITS = 7


def _pair(shape, **settings):
    """Keras' layer and the fast one, of the same random weights, biases included."""
    keras.utils.set_random_seed(3)
    settings = {"return_sequences": True, **settings}
    own = keras.layers.LSTM(UNITS, **settings)
    fast = fused_lstm.LSTM(UNITS, **settings)
    for layer in (own, fast):
        layer.build(shape)
    fast.set_weights(
        [np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(own.get_weights())]
    )
    own.set_weights(fast.get_weights())
    fused_lstm.set_fused(fast, True)
    return own, fast


def _gradients(layer, x, upstream, compiled):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
        variables = [v.value for v in layer.trainable_variables]
        return outputs, *tape.gradient(outputs, [x, *variables], output_gradients=upstream)

    return (tf.function(run) if compiled else run)(tf.constant(x))


# The last is taken in parts, of different sizes.
@pytest.mark.parametrize("shape", [(3, 11, 5), (1, 1, 5), (2, 64, 1), (37, 9, 5)])
@pytest.mark.parametrize("compiled", [True, False])
def test_outputs_and_gradients_are_those_of_keras(shape, compiled):
    own, fast = _pair(shape)
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    upstream = tf.constant(rng.normal(size=(*shape[:2], UNITS)).astype(np.float32))
    expected = _gradients(own, x, upstream, compiled)
    found = _gradients(fast, x, upstream, compiled)
    assert len(found) == 5
    for one, other in zip(expected, found, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(one))))
        np.testing.assert_allclose(other, one, atol=1e-5 * scale)


@pytest.mark.parametrize("fused", [False, True])
def test_frames_first_with_gain_and_shift(fused):
    own, fast = _pair((3, 11, 5))
    fused_lstm.set_fused(fast, fused)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 11, 5)).astype(np.float32)
    gain, shift = (rng.normal(size=5).astype(np.float32) for _ in range(2))
    expected = own(x * gain + shift)
    found = fast.over_positions(x.transpose(1, 0, 2), gain, shift, training=True)
    np.testing.assert_allclose(found, np.transpose(expected, (1, 0, 2)), atol=1e-5)


def test_a_graph_of_unknown_sizes():
    own, fast = _pair((None, None, 5))
    x = np.random.default_rng(0).normal(size=(4, 9, 5)).astype(np.float32)
    run = tf.function(
        lambda x: fast(x, training=True),
        input_signature=[tf.TensorSpec([None, None, 5], tf.float32)],
    )
    np.testing.assert_allclose(run(x), own(x), atol=1e-5)
    assert run.get_concrete_function().structured_outputs.shape.as_list() == [None, None, UNITS]


def _operations(layer, training, **arguments):
    function = tf.function(lambda x: layer(x, training=training, **arguments))
    graph = function.get_concrete_function(tf.zeros([2, 3, 5])).graph
    names = {operation.type for operation in graph.get_operations()}
    return names | {n.op for f in graph.as_graph_def().library.function for n in f.node_def}


def test_only_who_asks_for_it_leaves_the_operations_of_keras():
    _, fast = _pair((2, 3, 5))
    assert "BlockLSTM" in _operations(fast, True)
    assert "BlockLSTM" not in _operations(fast, True, mask=tf.ones([2, 3], tf.bool))
    fused_lstm.set_fused(fast, False)
    assert "BlockLSTM" not in _operations(fast, True)
    with fused_lstm.fusing(fast):
        assert "BlockLSTM" in _operations(fast, False)
    assert not fast.fused


@pytest.mark.parametrize("training", [True, False])
def test_inference_is_that_of_keras(training):
    own, fast = _pair((3, 8, 5))
    x = np.random.default_rng(0).normal(size=(3, 8, 5)).astype(np.float32)
    np.testing.assert_allclose(fast(x, training=training), own(x), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"dtype": "mixed_bfloat16"},
        {"return_sequences": False},
        {"activation": "relu"},
        {"use_bias": False},
        {"go_backwards": True},
        {"dropout": 0.5},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_the_operation_has_not_is_left_to_keras(settings):
    _, fast = _pair((2, 3, 5), **settings)
    assert "BlockLSTM" not in _operations(fast, True)


def test_reaches_the_layers_of_a_network_and_weights_are_those_of_keras(tmp_path):
    network = registry.create("blstm", num_outputs=2, units=UNITS, num_layers=2)
    x = np.random.default_rng(0).normal(size=(2, 6, 129)).astype(np.float32)
    before = network(x, training=True)
    layers = [layer for layer in network._flatten_layers() if isinstance(layer, fused_lstm.LSTM)]
    assert len(layers) == 4
    fused_lstm.set_fused(network, True)
    assert all(layer.fused for layer in layers)
    np.testing.assert_allclose(network(x, training=True), before, atol=1e-5)
    # A file of weights that Keras' own layers wrote.
    twin = recurrent.Recurrent(UNITS, 2, bidirectional=True)
    twin.forward, twin.backward = (
        [keras.layers.LSTM(UNITS, return_sequences=True, name=f"{name}_{i}") for i in range(2)]
        for name in ("forward", "backward")
    )
    models = []
    for layer in (twin, recurrent.Recurrent(UNITS, 2, bidirectional=True)):
        models.append(keras.Sequential([keras.Input((None, 129)), layer]))
    models[0].save_weights(tmp_path / "keras.weights.h5")
    models[1].load_weights(tmp_path / "keras.weights.h5")
    np.testing.assert_allclose(models[1](x), models[0](x), atol=1e-6)
