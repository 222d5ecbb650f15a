"""Attention between positions: long inputs in blocks of queries, and what tells positions apart.

A. Vaswani et al.: «Attention is all you need», NeurIPS 2017; P. Shaw, J. Uszkoreit, A. Vaswani:
«Self-attention with relative position representations», NAACL 2018; J. Su et al.: «RoFormer:
enhanced transformer with rotary position embedding», Neurocomputing 568, 2024.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

# Up to so many positions all scores are held at once; so do training steps, of any length.
WHOLE = 1024
# Queries in a block, where there are more positions or nobody knows how many.
BLOCK = 64
# Added to a score, it leaves nothing of the weight.
_NEVER = -1e9


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    distances: Tensor | None = None,
    valid: Tensor | None = None,
    training: bool | None = None,
) -> Tensor:
    """Scaled dot-product attention of each row's positions to all positions of that row.

    The softmax is in float32. Outside training, memory grows with the number of positions, not with
    its square: queries come in blocks.

    Args:
        query: `[row, position, head, channel]`.
        key: likewise.
        value: likewise.
        distances: for relative positions, what is added to the keys at each distance between query
            and key, `[2 · position - 1, channel]`, `RelativePositions`' result.
        valid: 1 for positions to attend to, 0 for padding, `[row, position]`; not in training.
        training: whether gradients are wanted, so that everything must be kept anyway.

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
    # In the order of axes that the products want.
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
        # The filled queries at the end are farther from the first key than any real one.
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
    """Attention of some scaled queries to all keys.

    Args:
        query: `[row, head, query, channel]`.
        key: `[row, head, channel, key]`.
        value: `[row, head, key, channel]`.
        near: vectors of falling distances from that of the last query to the first key on, and one
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
    # Not `ops.softmax`, which warns of a single key.
    weights = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
    weights = weights / ops.sum(weights, axis=-1, keepdims=True)
    return ops.matmul(ops.cast(weights, value.dtype), value)


def _by_key(by_distance: Tensor, num_keys: Any) -> Tensor:
    """`[row, head, query, query + key]` by falling distance to `[row, head, query, key]`.

    Query i finds key j in column j - i + query - 1; the last column is there for its place alone.
    In one long line of all rows, what each row of the result wants starts one place earlier than in
    the row before: cut into rows that are one shorter, it stands one below the other.
    """
    rows, heads, queries, width = ops.shape(by_distance)
    line = ops.reshape(by_distance, (rows, heads, queries * width))
    line = line[..., queries - 1 : queries - 1 + queries * (width - 1)]
    return ops.reshape(line, (rows, heads, queries, width - 1))[..., :num_keys]


def attend_among_few(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same for a handful of members, of which there are very many groups.

    Matrix products of two by two are the slowest way; these are sums of products of whole tensors.

    Args:
        query: `[group, member, position, head, channel]`; members of one group at one position
            attend to each other.
        key: likewise.
        value: likewise.

    Returns:
        `[group, member, position, head, channel]`.
    """
    scores = ops.sum(ops.expand_dims(query, 2) * ops.expand_dims(key, 1), axis=-1)
    scores = ops.cast(scores, "float32") * float(query.shape[-1]) ** -0.5
    # Without the channels' axis: oneDNN's softmax takes at most five dimensions.
    weights = ops.cast(ops.softmax(scores, axis=2), value.dtype)[..., None]
    return ops.sum(weights * ops.expand_dims(value, 1), axis=2)


def rotate(inputs: Tensor, base: float = 10000.0) -> Tensor:
    """Rotary positions: pairs of channels turned by angles that grow with the position.

    Products of a query and a key so turned depend on the distance between them alone. Channel c is
    paired with c + channel / 2, and turns by position · base ** (-2c / channel).

    Args:
        inputs: queries or keys, `[row, position, head, channel]`, of even width.
        base: of the angles.

    Returns:
        Of the same shape and dtype.
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
    """A learned vector for each distance between two positions; one for all that are farther.

    Args:
        channels: of each vector.
        farthest: distances from -farthest to farthest - 1 have vectors of their own.

    Call arguments:
        inputs: whose positions are meant, `[row, position, ...]`.

    Returns:
        Vectors of the distances position - 1, position - 2, …, 1 - position,
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
