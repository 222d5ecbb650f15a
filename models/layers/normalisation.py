"""Norms over frames and channels together, in float32, with few passes over the data."""

import math
from typing import Any

import keras
from keras import ops

Tensor = Any

_EPSILON = 1e-8


def sounding_samples(waveform: Tensor) -> Tensor:
    """Returns the number of samples of each row up to its last non-zero sample.

    What follows is padding.

    Args:
        waveform: `[batch, sample]`.

    Returns:
        int32 `[batch, 1]`.
    """
    numbers = ops.arange(1, ops.shape(waveform)[1] + 1, dtype="int32")
    return ops.max(numbers * ops.cast(waveform != 0, "int32"), axis=1, keepdims=True)


def without_padding(inputs: Tensor, valid: Tensor | None) -> Tensor:
    """Sets `[row, position, channel]` to zero where `valid`, `[row, position]`, is zero."""
    return inputs if valid is None else inputs * ops.cast(valid[..., None], inputs.dtype)


class _LayerNorm(keras.layers.Layer):
    """Common part of the norms: a gain and a bias per channel."""

    def __init__(self, **kwargs: Any) -> None:
        # Under mixed precision Keras would cast all inputs to half precision.
        super().__init__(**{"autocast": False, **kwargs})

    def build(self, input_shape: Any) -> None:
        channels = (input_shape[-1],)
        self.gain = self.add_weight(shape=channels, initializer="ones", name="gain")
        self.bias = self.add_weight(shape=channels, initializer="zeros", name="bias")
        self.built = True

    def _apply(self, x: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """Normalises float32 `x` by the given statistics; returns the compute dtype."""
        deviation = ops.sqrt(ops.maximum(square - ops.square(mean), 0.0) + _EPSILON)
        scale = self.gain / deviation
        return ops.cast(x * scale + (self.bias - mean * scale), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return tuple(input_shape)


@keras.saving.register_keras_serializable("voices_apart")
class GlobalLayerNorm(_LayerNorm):
    """Zero mean and unit variance over all frames and channels, then gain and bias per channel.

    Call arguments:
        inputs: `[batch, frame, channel]`, or `[batch, frame, bin, channel]`.
        valid: 1 for valid frames, 0 for padding, float32 `[batch, frame]`.

    Returns:
        The same shape, in the compute dtype; padding is set to zero.
    """

    def call(self, inputs: Tensor, valid: Tensor) -> Tensor:
        x, valid = ops.cast(inputs, "float32"), ops.cast(valid, "float32")
        count = ops.maximum(ops.sum(valid, axis=1), 1.0) * math.prod(x.shape[2:])
        flat = ops.reshape(x, (*ops.shape(x)[:2], math.prod(x.shape[2:])))
        ones = [1] * (len(x.shape) - 1)
        mean, square = (
            # A product with `valid` sums over frames and leaves the padding out.
            ops.reshape(ops.sum(ops.matmul(valid[:, None], y), axis=(1, 2)) / count, (-1, *ones))
            for y in (flat, ops.square(flat))
        )
        mask = ops.reshape(valid, (*ops.shape(valid), *ones[1:]))
        return self._apply(x, mean, square) * ops.cast(mask, self.compute_dtype)


@keras.saving.register_keras_serializable("voices_apart")
class CumulativeLayerNorm(_LayerNorm):
    """Causal norm: normalises each frame by the statistics of that frame and all before it.

    Call arguments:
        inputs: `[batch, frame, channel]`.
        valid: not needed, since padding comes last.

    Returns:
        The same shape, in the compute dtype.
    """

    def call(self, inputs: Tensor, valid: Tensor | None = None) -> Tensor:
        x = ops.cast(inputs, "float32")
        frames = ops.cast(ops.arange(1, ops.shape(x)[1] + 1), "float32")
        mean, square = (
            (ops.cumsum(ops.mean(y, axis=-1), axis=1) / frames)[..., None]
            for y in (x, ops.square(x))
        )
        return self._apply(x, mean, square)

    def step(self, inputs: Tensor, state: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Normalises the next frames of a stream.

        Args:
            inputs: `[batch, frame, channel]`.
            state: mean and mean square of all frames before, float32 `[batch, 2]`; zeros at first.
            frames: number of frames before, an integer.

        Returns:
            The normalised inputs, in the compute dtype, and the new state. The state has means
            because sums would lose precision within hours.
        """
        x = ops.cast(inputs, "float32")
        count = ops.cast(ops.arange(1, ops.shape(x)[1] + 1, dtype=frames.dtype) + frames, "float32")
        now = ops.stack([ops.mean(y, axis=-1) for y in (x, ops.square(x))], axis=-1)
        before = state[:, None]
        means = before + ops.cumsum(now - before, axis=1) / count[:, None]
        return self._apply(x, means[..., :1], means[..., 1:]), means[:, -1]
