"""What networks cost: by hand, by PyTorch-like formulas, and as the literature has it."""

import keras
import numpy as np
import pytest
from keras import ops

from benchmarks import operations
from models import registry

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the graph is TensorFlow's"
)

# Each network of the literature: its settings, millions of parameters, and multiply-adds in G for
# a second of 8 kHz audio. Where a paper names no operations, they were worked out from its
# architecture: Conv-TasNet, 14 blocks of (128 · 256 + 3 · 256 + 256 · 256) and 24 of (128 · 512 +
# 3 · 512 + 512 · 256), 400 and 1,000 times a second. Ours leaves out what the last block would
# hand on to a next one.
PUBLISHED = {
    "conv_tasnet, small": ("conv_tasnet", {}, 1.5, 0.58),
    "conv_tasnet, best": (
        "conv_tasnet",
        {"filters": 512, "filter_length": 16, "hidden": 512, "blocks": 8, "repeats": 3},
        5.1,
        5.0,
    ),
}


@pytest.mark.parametrize(
    ("name", "settings", "parameters", "multiply_adds"), PUBLISHED.values(), ids=PUBLISHED.keys()
)
def test_networks_cost_what_the_literature_says(name, settings, parameters, multiply_adds):
    found = operations.cost(registry.create(name, **settings))
    assert found.parameters / 1e6 == pytest.approx(parameters, rel=0.05)
    assert found.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.1)


def test_feed_forward_by_hand():
    found = operations.cost(registry.create("ffn", units=30, num_layers=2), seconds=1)
    weights = 129 * 30 + 30 * 30 + 30 * 258
    assert found.parameters == weights + 30 + 30 + 258
    assert found.multiply_adds == weights * 126  # Frames.


def test_lstm_by_hand():
    found = operations.cost(registry.create("lstm", units=20, num_layers=2), seconds=0.5)
    # Four gates of each layer, from the frame and from the state before.
    weights = 4 * 20 * (129 + 20) + 4 * 20 * (20 + 20)
    assert found.parameters == weights + 2 * 4 * 20 + 20 * 258 + 258
    assert found.multiply_adds == (weights + 20 * 258) * 64 / 0.5


LAYERS = {
    "strided convolution": (
        lambda: keras.layers.Conv1D(7, 5, strides=2, padding="same"), (2, 12, 3), 2 * 6 * 7 * 5 * 3,
    ),
    "convolution in groups": (
        lambda: keras.layers.Conv1D(8, 5, groups=4, padding="same"), (2, 12, 4), 2 * 12 * 8 * 5,
    ),
    "dilated convolution by channels": (
        lambda: keras.layers.DepthwiseConv1D(3, dilation_rate=2), (2, 12, 5), 2 * 8 * 3 * 5,
    ),
    "two axes": (
        lambda: keras.layers.Conv2D(4, 3, padding="same"), (1, 6, 5, 2), 6 * 5 * 4 * 9 * 2,
    ),
    "transposed convolution": (
        lambda: keras.layers.Conv1DTranspose(7, 4, strides=2), (2, 12, 3), 2 * 12 * 3 * 4 * 7,
    ),
    "dense on three axes": (lambda: keras.layers.Dense(9), (2, 3, 4, 5), 2 * 3 * 4 * 5 * 9),
    "both directions": (
        lambda: keras.layers.Bidirectional(keras.layers.GRU(4)), (1, 6, 5), 2 * 6 * 3 * 4 * (5 + 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "shape", "expected"), LAYERS.values(), ids=LAYERS.keys())
def test_layers_by_hand(make, shape, expected):
    assert operations.multiply_adds(make(), shape) == expected


def test_attention_by_hand():
    layer = keras.layers.MultiHeadAttention(num_heads=3, key_dim=4, use_bias=False)
    layer.build((1, 10, 6), (1, 10, 6))
    # Queries, keys, values and what becomes of them; every frame with every other, twice.
    expected = 4 * 10 * 6 * 12 + 2 * 10 * 10 * 12
    assert operations.multiply_adds(lambda x: layer(x, x), (1, 10, 6)) == expected


def test_sums_of_products_by_einstein():
    other = np.ones((4, 5), "float32")

    def count(equation, *others):
        return operations.multiply_adds(lambda x: ops.einsum(equation, x, *others), (2, 3, 4))

    assert count("...c,cd->...d", other) == 2 * 3 * 4 * 5
    assert count("bij,jk->bk", other) == 2 * 3 * 4 * 5
    assert count("bij->b") == 0


def test_what_cannot_be_counted_is_said():
    import tensorflow as tf

    def until_large(x):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) < 100, lambda y: (tf.matmul(y, y),), (x,)
        )[0]  # fmt: skip

    with pytest.raises(ValueError, match="how often it runs"):
        operations.multiply_adds(until_large, (3, 3))
    with pytest.raises(ValueError, match="Conv3D"):
        operations.multiply_adds(keras.layers.Conv3D(2, 2), (1, 4, 4, 4, 1))
