"""Attention against plain loops in NumPy, and what rotary positions must keep."""

import keras
import numpy as np
import pytest

from models.layers import attention


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def loop(query, key, value, vector=None):
    """One position, head and row after the other; `vector(i - j)` is added to the keys."""
    rows, positions, heads, channels = query.shape
    found = np.zeros(value.shape)
    for r, h, i in np.ndindex(rows, heads, positions):
        keys = key[r, :, h].astype(float)
        if vector is not None:
            keys = keys + np.stack([vector(i - j) for j in range(positions)])
        weights = softmax(keys @ query[r, i, h] / np.sqrt(channels))
        found[r, i, h] = weights @ value[r, :, h]
    return found


@pytest.fixture
def in_blocks(monkeypatch):
    monkeypatch.setattr(attention, "WHOLE", 0)
    monkeypatch.setattr(attention, "BLOCK", 4)


@pytest.mark.parametrize("positions", [1, 3, 4, 11])
def test_attention_is_a_plain_loop(positions):
    query, key, value = normal(3, 2, positions, 2, 6)
    np.testing.assert_allclose(
        attention.attend(query, key, value), loop(query, key, value), atol=1e-5
    )


@pytest.mark.parametrize("positions", [1, 3, 4, 11])
def test_blocks_change_nothing(positions, in_blocks):
    query, key, value = normal(3, 2, positions, 2, 6)
    np.testing.assert_allclose(
        attention.attend(query, key, value), loop(query, key, value), atol=1e-5
    )


@pytest.mark.parametrize("positions", [1, 3, 4, 11])
def test_relative_positions_are_a_plain_loop(positions):
    layer = attention.RelativePositions(6, farthest=5)
    query, key, value = normal(3, 2, positions, 2, 6)
    distances = layer(np.zeros((2, positions, 9), "float32"))
    table = np.asarray(layer.vectors)
    assert table.shape == (10, 6)
    expected = loop(query, key, value, lambda distance: table[np.clip(distance, -5, 4) + 5])
    found = attention.attend(query, key, value, distances, training=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected - loop(query, key, value)).max() > 0.01 or positions == 1


@pytest.mark.parametrize("positions", [1, 3, 4, 11])
def test_relative_positions_in_blocks(positions, in_blocks):
    layer = attention.RelativePositions(6, farthest=5)
    query, key, value = normal(3, 2, positions, 2, 6)
    distances = layer(np.zeros((2, positions, 9), "float32"))
    whole = attention.attend(query, key, value, distances, training=True)
    blocks = attention.attend(query, key, value, distances)
    np.testing.assert_allclose(blocks, whole, atol=1e-5)


@pytest.mark.parametrize("blocks", [False, True])
def test_nobody_attends_to_padding(blocks, monkeypatch):
    if blocks:
        monkeypatch.setattr(attention, "WHOLE", 0)
        monkeypatch.setattr(attention, "BLOCK", 4)
    query, key, value = normal(3, 2, 9, 2, 6)
    valid = np.ones((2, 9), "float32")
    valid[1, 5:] = 0
    found = np.asarray(attention.attend(query, key, value, valid=valid))
    np.testing.assert_allclose(found[:1], loop(query, key, value)[:1], atol=1e-5)
    short = loop(*(x[1:, :5] for x in (query, key, value)))
    np.testing.assert_allclose(found[1:, :5], short, atol=1e-5)


def test_a_graph_need_not_know_how_many_positions():
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's graphs")
    layer = attention.RelativePositions(4, farthest=50)
    layer.build((None, None, 4))

    def call(x):
        return attention.attend(x, x, x, layer(x))

    graph = tf.function(call, input_signature=[tf.TensorSpec((None, None, 2, 4))])
    for rows, positions in ((1, 1), (2, attention.BLOCK), (1, attention.BLOCK + 1), (2, 200)):
        x = normal(rows, positions, 2, 4)
        np.testing.assert_allclose(graph(x), call(x), atol=1e-5)


def test_among_few_is_attention():
    groups, members, positions, heads, channels = 2, 3, 5, 2, 4
    query, key, value = normal(3, groups, members, positions, heads, channels)

    def by_position(x):
        return np.swapaxes(x, 1, 2).reshape(groups * positions, members, heads, channels)

    expected = loop(by_position(query), by_position(key), by_position(value))
    found = np.asarray(attention.attend_among_few(query, key, value))
    np.testing.assert_allclose(by_position(found), expected, atol=1e-5)


def test_rotation_keeps_products_under_a_common_shift():
    """Products of turned queries and keys depend on their distance, and lengths do not change."""
    query, key = normal(2, 1, 1, 1, 8)
    positions = 40
    turned_query = np.asarray(attention.rotate(np.repeat(query, positions, axis=1)))[0, :, 0]
    turned_key = np.asarray(attention.rotate(np.repeat(key, positions, axis=1)))[0, :, 0]
    products = turned_query @ turned_key.T
    for distance in (-7, 0, 3):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)
    assert np.ptp(products[0]) > 0.1
    np.testing.assert_allclose(
        np.linalg.norm(turned_query, axis=-1), np.linalg.norm(query), rtol=1e-5
    )
    np.testing.assert_array_equal(turned_query[0], query[0, 0, 0])


def test_rotation_is_complex_multiplication():
    x = normal(1, 6, 1, 8)
    numbers = x[..., :4] + 1j * x[..., 4:]
    speeds = 10000.0 ** (-np.array([0, 2, 4, 6]) / 8)
    numbers = numbers * np.exp(1j * np.arange(6)[:, None, None] * speeds)
    expected = np.concatenate([numbers.real, numbers.imag], axis=-1)
    np.testing.assert_allclose(attention.rotate(x), expected, atol=1e-5)
