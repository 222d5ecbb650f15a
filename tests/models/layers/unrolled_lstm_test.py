"""The form of the LSTM for LiteRT against Keras' own layer, in TensorFlow and in LiteRT."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models.layers import fused_lstm, unrolled_lstm

FEATURES, UNITS = 5, 7


def _layers():
    """Keras' layer and the project's, of the same random weights, biases included."""
    layers = []
    for kind in (keras.layers.LSTM, fused_lstm.LSTM):
        layer = kind(UNITS, return_sequences=True)
        layer.build((None, None, FEATURES))
        layers.append(layer)
    random = [
        np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(layers[0].weights)
    ]
    for layer in layers:
        layer.set_weights(random)
    return layers


def _input(rows, frames):
    return np.random.default_rng(0).normal(size=(rows, frames, FEATURES)).astype(np.float32)


def _traced(layer, shape):
    run = tf.function(lambda x: layer(x), input_signature=[tf.TensorSpec(shape, tf.float32)])
    with fused_lstm.in_blocks():
        return run.get_concrete_function()


def _num_loops(function):
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return sum("While" in node.op for node in nodes)


@pytest.fixture(params=["small", "large"])
def nested(request, monkeypatch):
    """Whether the weights count as large."""
    if request.param == "large":
        monkeypatch.setattr(unrolled_lstm, "_LARGE", 1)
    return request.param == "large"


@pytest.mark.parametrize("rows", [1, 2, None])
def test_a_loop_over_any_number_of_frames(nested, rows):
    keras_layer, layer = _layers()
    function = _traced(layer, [rows, None, FEATURES])
    assert _num_loops(function) == (2 if nested or rows == 1 else 1)
    assert function.structured_outputs.shape.as_list() == [rows, None, UNITS]
    for frames in (1, 4, 31, 32, 33, 64, 65, 200):
        x = _input(rows or 2, frames)
        np.testing.assert_allclose(function(tf.constant(x)), keras_layer(x), atol=1e-5)


@pytest.mark.parametrize("rows", [3, None])
def test_a_few_frames_need_no_loop(rows):
    keras_layer, layer = _layers()
    function = _traced(layer, [rows, 24, FEATURES])
    assert not _num_loops(function)
    x = _input(3, 24)
    np.testing.assert_allclose(function(tf.constant(x)), keras_layer(x), atol=1e-5)


def test_frames_first_with_gain_and_shift():
    keras_layer, layer = _layers()
    x = _input(3, 70)
    gain, shift = (np.random.default_rng(i).normal(size=FEATURES).astype("f") for i in (1, 2))
    with fused_lstm.in_blocks():
        found = layer.over_positions(tf.constant(x.transpose(1, 0, 2)), gain, shift)
    expected = np.transpose(keras_layer(x * gain + shift), (1, 0, 2))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("rows", "frames"), [(2, None), (None, 24)])
def test_in_litert(nested, rows, frames):
    """Each of the two sizes that may be unknown, and several lengths with the same interpreter."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    keras_layer, layer = _layers()
    weights = [tf.constant(values) for values in layer.get_weights()]
    run = tf.function(
        lambda x: unrolled_lstm.over_positions(x, *weights),
        input_signature=[tf.TensorSpec([frames, rows, FEATURES], tf.float32)],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [run.get_concrete_function()], tf.Module()
    )
    runner = interpreter.Interpreter(model_content=converter.convert(), num_threads=1)
    place = runner.get_input_details()[0]["index"]
    for length in (50, 1, 130):
        x = _input(rows or length, frames or length)
        runner.resize_tensor_input(place, [x.shape[1], x.shape[0], FEATURES])
        runner.allocate_tensors()
        runner.set_tensor(place, np.transpose(x, (1, 0, 2)))
        runner.invoke()
        found = runner.get_tensor(runner.get_output_details()[0]["index"])
        np.testing.assert_allclose(np.transpose(found, (1, 0, 2)), keras_layer(x), atol=1e-5)
