"""Attention, computed in blocks of queries for long inputs, with relative or rotary positions.

A. Vaswani et al.: "Attention is all you need", NeurIPS 2017; P. Shaw, J. Uszkoreit, A. Vaswani:
"Self-attention with relative position representations", NAACL 2018; J. Su et al.: "RoFormer:
enhanced transformer with rotary position embedding", Neurocomputing 568, 2024.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

# Up to this many positions, and in training at any length, all scores are in memory at once.
WHOLE = 1024
# Queries per block if there are more positions or their number is unknown.
BLOCK = 64
# Added to a score, it reduces the softmax weight to zero.
_NEVER = -1e9


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    distances: Tensor | None = None,
    valid: Tensor | None = None,
    training: bool | None = None,
) -> Tensor:
    """Scaled dot-product attention within each row, from all positions to all positions.

    The softmax is in float32. Outside training, queries are processed in blocks, so memory grows
    linearly with the number of positions, not quadratically.

    Args:
        query: `[row, position, head, channel]`.
        key: the same shape as `query`.
        value: the same shape as `query`.
        distances: result of `RelativePositions`, `[2 · position - 1, channel]`: vectors added to
            the keys, by the distance between query and key.
        valid: 1 for positions to attend to, 0 for padding, `[row, position]`; ignored in training.
        training: whether gradients are needed, so that all scores must be kept.

    Returns:
        `[row, position, head, channel]`.
    """
    query = query * float(query.shape[-1]) ** -0.5
    if distances is not None:
        distances = ops.cast(distances, query.dtype)
    if training:
        bias = None
        if distances is not None:
            near = ops.pad(distances, [(0, 1), (0, 0)])
            bias = _by_key(ops.einsum("rqhc,dc->rhqd", query, near), ops.shape(key)[1])
        return ops.dot_product_attention(query, key, value, bias=bias, scale=1.0)
    rows, num_positions, heads, channels = ops.shape(query)
    # Bring the axes into the order of the matrix products.
    query, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, value))
    key = ops.transpose(key, (0, 2, 3, 1))
    if valid is not None:
        valid = ops.cast(valid, "float32")[:, None, None]
    if query.shape[2] is not None and query.shape[2] <= WHOLE:
        near = None if distances is None else ops.pad(distances, [(0, 1), (0, 0)])
        return ops.transpose(_of_block(query, key, value, near, valid), (0, 2, 1, 3))

    num_blocks = (num_positions + BLOCK - 1) // BLOCK
    query = ops.pad(query, [(0, 0), (0, 0), (0, BLOCK - 1), (0, 0)])[:, :, : num_blocks * BLOCK]
    blocks = ops.reshape(query, (rows, heads, num_blocks, BLOCK, channels))
    if distances is not None:
        # The padded queries at the end are farther from the first key than any real query.
        distances = ops.pad(distances, [(BLOCK - 1, 1), (0, 0)])

    def one_block(part: tuple[Tensor, Tensor]) -> Tensor:
        queries, first = part
        near = None
        if distances is not None:
            start = num_positions - 1 - first
            near = ops.slice(distances, (start, 0), (num_positions + BLOCK, channels))
        return _of_block(queries, key, value, near, valid)

    firsts = BLOCK * ops.arange(num_blocks, dtype="int32")
    found = ops.map(one_block, (ops.transpose(blocks, (2, 0, 1, 3, 4)), firsts))
    found = ops.transpose(found, (1, 0, 3, 2, 4))
    return ops.reshape(found, (rows, num_blocks * BLOCK, heads, channels))[:, :num_positions]


def _of_block(
    query: Tensor, key: Tensor, value: Tensor, near: Tensor | None, valid: Tensor | None
) -> Tensor:
    """Attention from some scaled queries to all keys.

    Args:
        query: `[row, head, query, channel]`.
        key: `[row, head, channel, key]`.
        value: `[row, head, key, channel]`.
        near: vectors in order of falling distance, from the last query to the first key on, and one
            more, `[query + key, channel]`.
        valid: float32 `[row, 1, 1, key]`.

    Returns:
        `[row, head, query, channel]`.
    """
    scores = ops.matmul(query, key)
    if near is not None:
        scores = scores + _by_key(ops.einsum("rhqc,dc->rhqd", query, near), ops.shape(key)[-1])
    scores = ops.cast(scores, "float32")
    if valid is not None:
        scores = scores + _NEVER * (1 - valid)
    # Not `ops.softmax`, which warns if there is a single key.
    weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
    weights = weights / ops.sum(weights, axis=-1, keepdims=True)
    return ops.matmul(ops.cast(weights, value.dtype), value)


def _by_key(by_distance: Tensor, num_keys: Any) -> Tensor:
    """Reorders `[row, head, query, query + key]` by distance to `[row, head, query, key]`.

    The score of query i and key j is in column j - i + query - 1; the last column is unused. In the
    flattened array, each row of the result starts one place earlier relative to its row of the
    input. Reshaping it to rows that are one shorter therefore aligns the rows.
    """
    rows, heads, queries, width = ops.shape(by_distance)
    line = ops.reshape(by_distance, (rows, heads, queries * width))
    line = line[..., queries - 1 : queries - 1 + queries * (width - 1)]
    return ops.reshape(line, (rows, heads, queries, width - 1))[..., :num_keys]


def attend_among_few(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention among few members, for many groups.

    Small matrix products (such as 2 × 2) are slow; this uses sums of elementwise products.

    Args:
        query: `[group, member, position, head, channel]`; the members of a group attend to each
            other at the same position.
        key: the same shape as `query`.
        value: the same shape as `query`.

    Returns:
        `[group, member, position, head, channel]`.
    """
    scores = ops.sum(ops.expand_dims(query, 2) * ops.expand_dims(key, 1), axis=-1)
    scores = ops.cast(scores, "float32") * float(query.shape[-1]) ** -0.5
    # Without the channel axis: oneDNN's softmax takes at most five dimensions.
    weights = ops.cast(ops.softmax(scores, axis=2), value.dtype)[..., None]
    return ops.sum(weights * ops.expand_dims(value, 1), axis=2)


def rotate(inputs: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions: rotates pairs of channels by angles that grow with the position.

    The product of a rotated query and key depends only on the distance between them. Channel c is
    paired with c + channel / 2, and the angle is position · base ** (-2c / channel).

    Args:
        inputs: queries or keys, `[row, position, head, channel]`, with an even number of channels.
        base: base of the angles.

    Returns:
        Tensor of the same shape and dtype.
    """
    half = inputs.shape[-1] // 2
    speeds = ops.convert_to_tensor(base ** (-np.arange(half) / half), "float32")
    angles = ops.cast(ops.arange(ops.shape(inputs)[1]), "float32")[:, None, None] * speeds
    cosine, sine = ops.cos(angles), ops.sin(angles)
    exact = ops.cast(inputs, "float32")
    first, second = exact[..., :half], exact[..., half:]
    turned = [first * cosine - second * sine, first * sine + second * cosine]
    return ops.cast(ops.concatenate(turned, axis=-1), inputs.dtype)


@keras.saving.register_keras_serializable("voices_apart")
class RelativePositions(keras.layers.Layer):
    """A learned vector for each distance between two positions, clipped at the farthest.

    Args:
        channels: size of each vector.
        farthest: distances from -farthest to farthest - 1 have vectors of their own.

    Call arguments:
        inputs: any tensor with the positions on axis 1, `[row, position, ...]`.

    Returns:
        Vectors for the distances position - 1, position - 2, …, 1 - position,
        `[2 · position - 1, channel]`.
    """

    def __init__(self, channels: int, farthest: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.farthest = farthest

    def build(self, input_shape: Any) -> None:
        self.vectors = self.add_weight(
            shape=(2 * self.farthest, self.channels),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="vectors",
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        num_positions = ops.shape(inputs)[1]
        distances = num_positions - 1 - ops.arange(2 * num_positions - 1, dtype="int32")
        distances = ops.clip(distances, -self.farthest, self.farthest - 1)
        return ops.take(self.vectors, distances + self.farthest, axis=0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "farthest": self.farthest}
