"""The building blocks of SepReformer; `models.sepreformer` cites the paper.

All map features `[row, frame, channel]` to the same shape, where a row is a mixture or one of its
voices. Each is a residual block with a learned scale per channel that starts near zero. Norms are
in float32 at any precision.
"""

from typing import Any

import keras
from keras import ops

from models.layers import attention, normalisation

Tensor = Any

_FEED_FORWARD_WIDTH = 6


def batch_norm() -> keras.layers.Layer:
    """Batch norm over all rows and frames; its running statistics adapt within tens of steps."""
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32")


def _layer_norm() -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=1e-5, dtype="float32")


class ChannelScale(keras.layers.Layer):
    """A learned factor per channel, initially near zero (LayerScale: Touvron et al., ICCV 2021).

    Args:
        initial: initial value of all factors.

    Call arguments:
        inputs: `[..., channel]`.

    Returns:
        The same shape as `inputs`.
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
    """Feed-forward layer with a gate and a convolution over neighbouring frames.

    Args:
        channels: number of feature channels.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, frame, channel]`.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`.
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
    """Attention over the whole length between means of frames, then a feed-forward layer.

    The result for a mean is added to each of its frames, weighted by a gate per frame.

    Args:
        channels: number of feature channels.
        heads: number of attention heads.
        pooling: number of frames per mean.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, frame, channel]`; the number of frames is a multiple of `pooling`.
        distances: result of `attention.RelativePositions` for the means.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        valid_means: the same for the means, `[row, mean]`.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`.
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
    """Multi-head attention over frames or between voices, with pre-norm and a final scale.

    Args:
        channels: number of feature channels, a multiple of `heads`.
        heads: number of attention heads.
        dropout: dropout rate of the output; the attention weights have no dropout.

    Call arguments:
        inputs: `[row, frame, channel]`; with `voices`, `[row, voice, frame, channel]`.
        distances: vectors for relative positions, `[2 · frame - 1, channel / heads]`.
        valid: 1 for frames to attend to, 0 for padding, `[row, frame]`; by default all are valid.
        voices: whether to attend between voices in each frame instead of between frames.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`, before the residual addition.
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
    """A long depthwise convolution between dense layers, then a feed-forward layer.

    Args:
        channels: number of feature channels.
        kernel: kernel size of the convolution, in frames.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, frame, channel]`.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        training: whether dropout is active and batch norm uses the statistics of the batch.

    Returns:
        The same shape as `inputs`.
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
        channels: number of feature channels.
        heads: number of attention heads.
        num_voices: number of rows per mixture.
        dropout: dropout rate.

    Call arguments:
        inputs: `[batch · voice, frame, channel]`.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`.
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
    """Repeated global and local blocks, with attention between voices if there are several.

    Args:
        channels: number of feature channels.
        repeats: number of repetitions.
        heads: number of attention heads.
        pooling: number of frames per mean in the global attention.
        kernel: kernel size of the local blocks' convolution, in frames.
        dropout: dropout rate.
        num_voices: number of rows per mixture; one before the split.

    Call arguments:
        inputs: `[row, frame, channel]`; the number of frames is a multiple of `pooling`.
        distances: result of `attention.RelativePositions` for the means.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        valid_means: the same for the means, `[row, mean]`.
        training: whether dropout is active and batch norm uses the statistics of the batch.

    Returns:
        The same shape as `inputs`.
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
