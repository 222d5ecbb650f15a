"""The blocks that SepReformer is built of; `models.sepreformer` says what they come from.

All take and give features `[row, frame, channel]`, where a row is a mixture or one voice of it, and
add what they find to what they were given, times a learned factor a channel that starts near zero.
Norms are in float32 whatever the precision.
"""

from typing import Any

import keras
from keras import ops

from models.layers import attention, normalisation

Tensor = Any

_FEED_FORWARD_WIDTH = 6


def batch_norm() -> keras.layers.Layer:
    """Over all rows and frames, with running statistics that follow within some tens of steps."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32")


def _layer_norm() -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype="float32")


class ChannelScale(keras.layers.Layer):
    """A factor for each channel, near zero at first (LayerScale: Touvron et al., ICCV 2021).

    Args:
        initial: all factors before training.

    Call arguments:
        inputs: `[..., channel]`.

    Returns:
        Of the same shape.
    """

    def __init__(self, initial: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Any) -> None:
        initializer = keras.initializers.Constant(self.initial)
        self.factors = self.add_weight(
            shape=(input_shape[-1],), initializer=initializer, name="factors"
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * ops.cast(self.factors, inputs.dtype)


class FeedForward(keras.layers.Layer):
    """Dense layers with a gate, which see the neighbouring frames too.

    Args:
        channels: of the features.
        dropout: share of values that is dropped in training.

    Call arguments:
        inputs: `[row, frame, channel]`.
        valid: 1 for frames that count, 0 for padding, `[row, frame]`; all count without it.
        training: whether dropout is active.

    Returns:
        Of the same shape.
    """

    def __init__(self, channels: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        width = _FEED_FORWARD_WIDTH * channels
        self.norm = _layer_norm()
        self.expand = keras.layers.Dense(width, dtype=self.dtype_policy)
        self.neighbours = keras.layers.DepthwiseConv1D(3, padding="same", dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.reduce = keras.layers.Dense(channels, dtype=self.dtype_policy)
        self.scale = ChannelScale(dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        width = _FEED_FORWARD_WIDTH * channels
        self.norm.build((None, None, channels))
        self.expand.build((None, None, channels))
        self.neighbours.build((None, None, width))
        self.reduce.build((None, None, width // 2))
        self.scale.build((None, None, channels))
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        x = normalisation.without_padding(self.expand(self.norm(inputs)), valid)
        x = ops.glu(self.neighbours(x))
        x = self.reduce(self.drop(x, training=training))
        return inputs + self.scale(self.drop(x, training=training))


class GlobalBlock(keras.layers.Layer):
    """Attention over the whole length between means of some frames, then a feed-forward layer.

    What is found for a mean is added to each of its frames, as far as that frame's gate is open.

    Args:
        channels: of the features.
        heads: of the attention.
        pooling: frames in each mean.
        dropout: share of values that is dropped in training.

    Call arguments:
        inputs: `[row, frame, channel]`, frames a multiple of `pooling`.
        distances: `attention.RelativePositions` of the means.
        valid: 1 for frames that count, 0 for padding, `[row, frame]`; all count without it.
        valid_means: likewise for the means, `[row, mean]`.
        training: whether dropout is active.

    Returns:
        Of the same shape as `inputs`.
    """

    def __init__(
        self, channels: int, heads: int, pooling: int, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pooling = pooling
        self.attention = SelfAttention(channels, heads, dropout, dtype=self.dtype_policy)
        self.gate_norm = _layer_norm()
        self.gate = keras.layers.Dense(channels, "sigmoid", dtype=self.dtype_policy)
        self.feed_forward = FeedForward(channels, dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        for layer in (self.attention, self.gate_norm, self.gate, self.feed_forward):
            layer.build((None, None, input_shape[-1]))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        distances: Tensor,
        valid: Tensor | None = None,
        valid_means: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        rows, frames, channels = ops.shape(inputs)
        shape = (rows, frames // self.pooling, self.pooling, channels)
        means = ops.mean(ops.reshape(normalisation.without_padding(inputs, valid), shape), axis=2)
        found = self.attention(means, distances, valid=valid_means, training=training)
        gates = ops.reshape(self.gate(self.gate_norm(inputs)), shape)
        x = inputs + ops.reshape(gates * ops.expand_dims(found, 2), (rows, frames, channels))
        return self.feed_forward(x, valid=valid, training=training)


class SelfAttention(keras.layers.Layer):
    """Multi-head attention over frames, or between voices, with the norm before and scale after.

    Args:
        channels: of the features, a multiple of `heads`.
        heads: of the attention.
        dropout: share of values that is dropped in training, of what comes out; the weights of the
            attention stay whole.

    Call arguments:
        inputs: `[row, frame, channel]`; with `voices`, `[row, voice, frame, channel]`.
        distances: for relative positions of the frames, `[2 · frame - 1, channel / heads]`.
        valid: 1 for frames to attend to, 0 for padding, `[row, frame]`; all count without it.
        voices: attend between voices in each frame, not between frames.
        training: whether dropout is active.

    Returns:
        Of the same shape; not added to the inputs yet.
    """

    def __init__(self, channels: int, heads: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.norm = _layer_norm()
        self.project = keras.layers.Dense(3 * channels, dtype=self.dtype_policy)
        self.merge = keras.layers.Dense(channels, dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.scale = ChannelScale(dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        for layer in (self.norm, self.project, self.merge, self.scale):
            layer.build((None, None, input_shape[-1]))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        distances: Tensor | None = None,
        valid: Tensor | None = None,
        voices: bool = False,
        training: bool | None = None,
    ) -> Tensor:
        shape = ops.shape(inputs)
        x = self.project(self.norm(inputs))
        x = ops.reshape(x, (*shape[:-1], 3, self.heads, shape[-1] // self.heads))
        query, key, value = (x[..., i, :, :] for i in range(3))
        if voices:
            x = attention.attend_among_few(query, key, value)
        else:
            x = attention.attend(query, key, value, distances, valid, training=training)
        x = self.merge(ops.reshape(x, shape))
        return self.scale(self.drop(x, training=training))


class LocalBlock(keras.layers.Layer):
    """A long convolution of each channel by itself between dense layers, then a feed-forward layer.

    Args:
        channels: of the features.
        kernel: frames that the convolution sees.
        dropout: share of values that is dropped in training.

    Call arguments:
        inputs: `[row, frame, channel]`.
        valid: 1 for frames that count, 0 for padding, `[row, frame]`; all count without it.
        training: whether dropout is active, and the batch norm takes the batch's statistics.

    Returns:
        Of the same shape.
    """

    def __init__(self, channels: int, kernel: int, dropout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.norm = _layer_norm()
        self.enter = keras.layers.Dense(2 * channels, dtype=self.dtype_policy)
        self.convolve = keras.layers.DepthwiseConv1D(
            kernel, padding="same", dtype=self.dtype_policy
        )
        self.widen = keras.layers.Dense(2 * channels, dtype=self.dtype_policy)
        self.batch_norm = batch_norm()
        self.leave = keras.layers.Dense(channels, dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.scale = ChannelScale(dtype=self.dtype_policy)
        self.feed_forward = FeedForward(channels, dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        channels = input_shape[-1]
        narrow = (self.norm, self.enter, self.convolve, self.widen, self.scale, self.feed_forward)
        for layer in narrow:
            layer.build((None, None, channels))
        for layer in (self.batch_norm, self.leave):
            layer.build((None, None, 2 * channels))
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        x = normalisation.without_padding(ops.glu(self.enter(self.norm(inputs))), valid)
        x = self.widen(self.convolve(x))
        x = self.leave(ops.gelu(self.batch_norm(x, training=training), approximate=False))
        x = inputs + self.scale(self.drop(x, training=training))
        return self.feed_forward(x, valid=valid, training=training)


class SpeakerBlock(keras.layers.Layer):
    """Attention between the voices in each frame, then a feed-forward layer.

    Args:
        channels: of the features.
        heads: of the attention.
        num_voices: rows that belong together.
        dropout: share of values that is dropped in training.

    Call arguments:
        inputs: `[batch · voice, frame, channel]`.
        valid: 1 for frames that count, 0 for padding, `[row, frame]`; all count without it.
        training: whether dropout is active.

    Returns:
        Of the same shape.
    """

    def __init__(
        self, channels: int, heads: int, num_voices: int, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_voices = num_voices
        self.attention = SelfAttention(channels, heads, dropout, dtype=self.dtype_policy)
        self.feed_forward = FeedForward(channels, dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        for layer in (self.attention, self.feed_forward):
            layer.build((None, None, input_shape[-1]))
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        rows, frames, channels = ops.shape(inputs)
        together = ops.reshape(inputs, (-1, self.num_voices, frames, channels))
        found = self.attention(together, voices=True, training=training)
        x = inputs + ops.reshape(found, (rows, frames, channels))
        return self.feed_forward(x, valid=valid, training=training)


class Stage(keras.layers.Layer):
    """Some times a global and a local block, and attention between the voices where there are any.

    Args:
        channels: of the features.
        repeats: how many times.
        heads: of the attention.
        pooling: frames in each mean that the global attention sees.
        kernel: frames that the local blocks' convolution sees.
        dropout: share of values that is dropped in training.
        num_voices: rows that belong together; one where nothing is separated yet.

    Call arguments:
        inputs: `[row, frame, channel]`, frames a multiple of `pooling`.
        distances: `attention.RelativePositions` of the means.
        valid: 1 for frames that count, 0 for padding, `[row, frame]`; all count without it.
        valid_means: likewise for the means, `[row, mean]`.
        training: whether dropout is active, and the batch norm takes the batch's statistics.

    Returns:
        Of the same shape as `inputs`.
    """

    def __init__(
        self,
        channels: int,
        repeats: int,
        heads: int,
        pooling: int,
        kernel: int,
        dropout: float,
        num_voices: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.global_blocks: list[keras.layers.Layer] = [
            GlobalBlock(channels, heads, pooling, dropout, dtype=policy) for _ in range(repeats)
        ]
        self.local_blocks = [
            LocalBlock(channels, kernel, dropout, dtype=policy) for _ in range(repeats)
        ]
        self.speaker_blocks = [
            SpeakerBlock(channels, heads, num_voices, dropout, dtype=policy)
            for _ in range(repeats if num_voices > 1 else 0)
        ]

    def build(self, input_shape: Any) -> None:
        for layer in [*self.global_blocks, *self.local_blocks, *self.speaker_blocks]:
            layer.build((None, None, input_shape[-1]))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        distances: Tensor,
        valid: Tensor | None = None,
        valid_means: Tensor | None = None,
        training: bool | None = None,
    ) -> Tensor:
        x = inputs
        for i, (wide, near) in enumerate(zip(self.global_blocks, self.local_blocks, strict=True)):
            x = wide(x, distances, valid=valid, valid_means=valid_means, training=training)
            x = near(x, valid=valid, training=training)
            if self.speaker_blocks:
                x = self.speaker_blocks[i](x, valid=valid, training=training)
        return x
