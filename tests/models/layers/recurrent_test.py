"""The recurrent body against Keras' own layers."""

import keras
import numpy as np
import pytest
from keras import ops

from models.layers import recurrent


def _inputs(batch=2, frames=9, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, frames, 12)).astype("float32")


def _body(**settings):
    keras.utils.set_random_seed(0)
    body = recurrent.Recurrent(units=4, num_layers=2, **settings)
    body.build((None, None, 12))
    return body


def test_one_direction_is_a_stack_of_lstms():
    body, inputs = _body(), _inputs()
    expected = inputs
    for i in range(2):
        layer = keras.layers.LSTM(4, return_sequences=True)
        layer.build(expected.shape)
        layer.set_weights(body.forward[i].get_weights())
        expected = np.asarray(layer(expected))
    np.testing.assert_allclose(body(inputs), expected, atol=1e-6)
    assert not body.backward


def test_both_directions_are_a_stack_of_bidirectional_layers():
    body, inputs = _body(bidirectional=True), _inputs()
    expected = inputs
    for i in range(2):
        layer = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))
        layer.build(expected.shape)
        layer.set_weights(body.forward[i].get_weights() + body.backward[i].get_weights())
        expected = np.asarray(layer(expected))
    np.testing.assert_allclose(body(inputs), expected, atol=1e-6)
    assert body.width == 8


@pytest.mark.parametrize("padding", [0.0, -4.2])
def test_padding_changes_nothing_before_it(padding):
    """Rows of lengths of their own, one of nothing but padding, with silence within."""
    body, inputs = _body(bidirectional=True), _inputs(4, 9)
    lengths = [9, 5, 1, 0]
    inputs[0, 3:5] = padding
    for row, length in enumerate(lengths):
        inputs[row, length:] = padding
    inputs[:, -1, -1] = np.nextafter(inputs[:, -1, -1], np.float32(9))  # As a logarithm's last bit.
    together = np.asarray(body(inputs))
    for row, length in enumerate(lengths[:3]):
        alone = body(inputs[row : row + 1, :length])
        np.testing.assert_allclose(together[row : row + 1, :length], alone, atol=1e-6)
    assert np.isfinite(together).all()


def test_dropout_is_active_in_training_alone():
    body, inputs = _body(dropout=0.5, bidirectional=True), _inputs()
    np.testing.assert_array_equal(body(inputs), body(inputs))
    zeros = ops.convert_to_numpy(body(inputs, training=True)) == 0
    assert 0.3 < zeros.mean() < 0.7
