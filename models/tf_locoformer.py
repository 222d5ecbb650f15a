"""TF-Locoformer: alternating attention and gated convolutions along frequency and time.

K. Saijo, G. Wichern, F. G. Germain, Z. Pan, J. Le Roux: "TF-Locoformer: transformer with local
modeling by convolution for speech separation and enhancement", IWAENC 2024. N. Shazeer: "GLU
variants improve transformer", 2020 (the gate).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from models import spectral
from models.layers import attention, normalisation

Tensor = Any

# Settings by size.
SIZES: dict[str, dict[str, int]] = {
    "M": {"channels": 128, "num_blocks": 6, "hidden": 384, "attention_channels": 128},
    "S": {"channels": 96, "num_blocks": 4, "hidden": 256, "attention_channels": 128},
    "tiny": {"channels": 48, "num_blocks": 3, "hidden": 128, "attention_channels": 64},
    "nano": {"channels": 24, "num_blocks": 2, "hidden": 64, "attention_channels": 32},
}
# Lower bound of the mixture's variance when it is normalised to one.
_SILENCE = 1e-20


@keras.saving.register_keras_serializable("voices_apart")
class TFLocoformer(keras.Model):
    """Maps the mixture's spectrogram directly to the voices' spectrograms, without masks.

    Where the sources leave details open, this implementation adds feed-forward layers with factor 1
    instead of 1/2; computes the RMS of a group over its channels, with epsilon under the root; uses
    base 10,000 for rotary angles; and scales the spectrogram so that noise of variance one has bins
    of variance one. The size `tiny`, which the paper does not have, uses 64 attention channels.

    Args:
        num_outputs: number of voices.
        size: one of `SIZES`: `S` and `M` are the paper's; `tiny` and `nano` are small ones for slow
            processors. It sets those of the following arguments that are not given.
        channels: number of feature channels, a multiple of `groups`.
        num_blocks: number of pairs of a frequency path and a time path.
        hidden: channels within the feed-forward layers.
        attention_channels: number of channels of all heads together, a multiple of twice `heads`.
        heads: number of attention heads.
        conv_kernel: kernel size of the feed-forward layers' convolutions, in bins or frames.
        groups: number of groups of channels that are normalised together.
        frame_length: frame length of the STFT, in samples.
        hop: hop of the STFT, in samples.
        dropout: dropout rate after attention and in the feed-forward layers.

    Call arguments:
        waveform: `[batch, sample]`, of any length. Trailing zeros of a row are taken for padding:
            outside training, the amount of padding does not change the output before it.
        training: whether dropout is active.

    Returns:
        float32 `[batch, output, sample]`.

    Raises:
        ValueError: the size is unknown, or a width is not the required multiple.

    Example:
        voices = TFLocoformer(num_outputs=2)(np.zeros((1, 32000), "float32"))
    """

    takes = "waveform"

    def __init__(
        self,
        num_outputs: int = 2,
        size: str = "S",
        channels: int | None = None,
        num_blocks: int | None = None,
        hidden: int | None = None,
        attention_channels: int | None = None,
        heads: int = 4,
        conv_kernel: int = 4,
        groups: int = 4,
        frame_length: int = 128,
        hop: int = 64,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # The waveform keeps its precision.
        super().__init__(**{"autocast": False, **kwargs})
        if size not in SIZES:
            raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")
        chosen = SIZES[size]
        self.num_outputs = num_outputs
        self.size = size
        self.channels = chosen["channels"] if channels is None else channels
        self.num_blocks = chosen["num_blocks"] if num_blocks is None else num_blocks
        self.hidden = chosen["hidden"] if hidden is None else hidden
        if attention_channels is None:
            attention_channels = chosen["attention_channels"]
        self.attention_channels = attention_channels
        self.heads = heads
        self.conv_kernel = conv_kernel
        self.groups = groups
        self.frame_length = frame_length
        self.hop = hop
        self.dropout = dropout
        if frame_length % 2 or not 0 < hop <= frame_length or frame_length % hop:
            raise ValueError(f"frame_length {frame_length} is even and a multiple of hop, {hop}")
        if self.channels % groups:
            raise ValueError(f"{self.channels} channels are not a multiple of {groups} groups")
        if self.attention_channels % (2 * heads):
            raise ValueError(f"{self.attention_channels} is not a multiple of twice {heads} heads")

        # These layers act on the spectrogram itself; their precision limits that of the result.
        self.enter = keras.layers.Conv2D(self.channels, 3, padding="same", dtype="float32")
        self.norm = normalisation.GlobalLayerNorm(dtype="float32")
        self.along_frequency = [self._new_path() for _ in range(self.num_blocks)]
        self.along_time = [self._new_path() for _ in range(self.num_blocks)]
        self.leave = keras.layers.Conv2DTranspose(
            2 * num_outputs, 3, padding="same", dtype="float32"
        )

    def _new_path(self) -> "Path":
        return Path(
            self.channels,
            self.hidden,
            self.attention_channels,
            self.heads,
            self.conv_kernel,
            self.groups,
            self.dropout,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self.enter.build((None, None, None, 2))
        self.norm.build((None, None, None, self.channels))
        for path in (*self.along_frequency, *self.along_time):
            path.build((None, None, self.channels))
        self.leave.build((None, None, None, self.channels))
        self.built = True

    def call(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        waveform = ops.cast(waveform, "float32")
        length = normalisation.sounding_samples(waveform)
        # Mean square: speech has no DC offset. Below the floor the gradient is zero, not infinite.
        power = ops.sum(ops.square(waveform), axis=-1, keepdims=True)
        power = power / ops.cast(ops.maximum(length, 1), "float32")
        deviation = ops.sqrt(ops.maximum(power, _SILENCE))
        real, imaginary = spectral.stft(waveform / deviation, self.frame_length, self.hop)
        window = spectral.window(self.frame_length)
        scale = float(window.sum() / np.sqrt(np.sum(window**2)))
        # [batch, frame, bin, channel]
        x = self.enter(scale * ops.stack([real, imaginary], axis=-1))
        numbers = ops.arange(ops.shape(x)[1], dtype="int32")
        valid = ops.cast(numbers * self.hop < length + self.hop, "float32")
        x = ops.cast(self.norm(x, valid), self.compute_dtype)
        # Few training examples are padded, so masking the padding is not worth its cost.
        mask = None if training else ops.repeat(valid, ops.shape(x)[2], axis=0)
        for frequency, time in zip(self.along_frequency, self.along_time, strict=True):
            x = _along_last(frequency, x, training)
            x = ops.transpose(x, (0, 2, 1, 3))
            x = _along_last(time, x, training, mask)
            x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.cast(x, "float32") * valid[..., None, None]
        # Real parts of all voices, then imaginary parts: [batch, output, frame, bin] each.
        spectra = ops.transpose(self.leave(x) / scale, (0, 3, 1, 2))
        voices = spectral.inverse_stft(
            spectra[:, : self.num_outputs],
            spectra[:, self.num_outputs :],
            ops.shape(waveform)[-1],
            self.frame_length,
            self.hop,
        )
        return voices * deviation[:, None]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "size": self.size,
            "channels": self.channels,
            "num_blocks": self.num_blocks,
            "hidden": self.hidden,
            "attention_channels": self.attention_channels,
            "heads": self.heads,
            "conv_kernel": self.conv_kernel,
            "groups": self.groups,
            "frame_length": self.frame_length,
            "hop": self.hop,
            "dropout": self.dropout,
        }


def _along_last(
    path: "Path", x: Tensor, training: bool | None, valid: Tensor | None = None
) -> Tensor:
    """Applies a path along the second last axis of `[batch, row, position, channel]`."""
    shape = ops.shape(x)
    x = path(ops.reshape(x, (-1, *shape[2:])), valid, training=training)
    return ops.reshape(x, shape)


class RMSGroupNorm(keras.layers.Layer):
    """Divides each group of channels by its RMS, then applies a gain per channel; in float32.

    Args:
        groups: number of groups.
        epsilon: constant added to the mean square.

    Call arguments:
        inputs: `[..., channel]`; the number of channels is a multiple of `groups`.

    Returns:
        float32, the same shape.
    """

    def __init__(self, groups: int, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        self.gain = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gain")
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        shape = ops.shape(inputs)
        x = ops.reshape(inputs, (*shape[:-1], self.groups, shape[-1] // self.groups))
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return ops.reshape(x, shape) * self.gain


class ConvFeedForward(keras.layers.Layer):
    """Norm, a convolution into a gated hidden layer, and a transposed convolution back.

    Both convolutions are matrix products over neighbouring positions laid side by side. This is the
    fastest way for so few channels, and the same on every backend.

    Args:
        channels: number of feature channels.
        hidden: channels of the hidden layer, after the gate.
        kernel: kernel size of the convolutions, in positions.
        groups: number of groups of channels that are normalised together.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, position, channel]`.
        valid: 1 for valid positions, 0 for padding, `[row, position]`; by default all are valid.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`, before the residual addition.
    """

    def __init__(
        self, channels: int, hidden: int, kernel: int, groups: int, dropout: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.hidden = hidden
        self.kernel = kernel
        self.norm = RMSGroupNorm(groups)
        self.expand = keras.layers.Dense(2 * hidden, dtype=self.dtype_policy)
        self.reduce = keras.layers.Dense(kernel * channels, use_bias=False, dtype=self.dtype_policy)
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.norm.build((None, None, self.channels))
        self.expand.build((None, None, self.kernel * self.channels))
        self.reduce.build((None, None, self.hidden))
        self.bias = self.add_weight(shape=(self.channels,), initializer="zeros", name="bias")
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        more = self.kernel - 1
        x = ops.cast(normalisation.without_padding(self.norm(inputs), valid), self.compute_dtype)
        x = ops.pad(x, [(0, 0), (more, more), (0, 0)])
        # Position p of the padded input and the `more` positions after it.
        near = [x[:, k : k - more or None] for k in range(self.kernel)]
        value, gate = ops.split(self.expand(ops.concatenate(near, axis=-1)), 2, axis=-1)
        x = self.reduce(self.drop(value * ops.silu(gate), training=training))
        # Contributions of each position to its neighbours; those beyond the ends are dropped.
        parts = ops.split(x, self.kernel, axis=-1)
        found = sum(part[:, more - k : -k or None] for k, part in enumerate(parts))
        return self.drop(found + ops.cast(self.bias, x.dtype), training=training)


class RotaryAttention(keras.layers.Layer):
    """Norm, then multi-head attention with rotary positions, without biases.

    Args:
        channels: number of feature channels.
        attention_channels: number of channels of all heads together.
        heads: number of attention heads.
        groups: number of groups of channels that are normalised together.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, position, channel]`.
        valid: 1 for valid positions, 0 for padding, `[row, position]`; by default all are valid.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`, before the residual addition.
    """

    def __init__(
        self,
        channels: int,
        attention_channels: int,
        heads: int,
        groups: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.attention_channels = attention_channels
        self.heads = heads
        policy = self.dtype_policy
        self.norm = RMSGroupNorm(groups)
        self.project = keras.layers.Dense(3 * attention_channels, use_bias=False, dtype=policy)
        self.merge = keras.layers.Dense(channels, use_bias=False, dtype=policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, input_shape: Any) -> None:
        self.norm.build((None, None, self.channels))
        self.project.build((None, None, self.channels))
        self.merge.build((None, None, self.attention_channels))
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        width = self.attention_channels // self.heads
        positions = ops.shape(inputs)[1]
        x = self.project(self.norm(inputs))
        x = ops.reshape(x, (-1, positions, 3, self.heads, width))
        query, key, value = attention.rotate(x[:, :, 0]), attention.rotate(x[:, :, 1]), x[:, :, 2]
        x = attention.attend(query, key, value, valid=valid, training=training)
        x = self.merge(ops.reshape(x, (-1, positions, self.attention_channels)))
        return self.drop(x, training=training)


class Path(keras.layers.Layer):
    """Feed-forward, attention and feed-forward layer, each with a residual connection.

    Args:
        channels: number of feature channels.
        hidden: channels of the hidden layer in the feed-forward layers.
        attention_channels: number of channels of all heads together.
        heads: number of attention heads.
        kernel: kernel size of the convolutions, in positions.
        groups: number of groups of channels that are normalised together.
        dropout: dropout rate.

    Call arguments:
        inputs: `[row, position, channel]`.
        valid: 1 for valid positions, 0 for padding, `[row, position]`; by default all are valid.
        training: whether dropout is active.

    Returns:
        The same shape as `inputs`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        attention_channels: int,
        heads: int,
        kernel: int,
        groups: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.steps: list[keras.layers.Layer] = [
            ConvFeedForward(channels, hidden, kernel, groups, dropout, dtype=policy),
            RotaryAttention(channels, attention_channels, heads, groups, dropout, dtype=policy),
            ConvFeedForward(channels, hidden, kernel, groups, dropout, dtype=policy),
        ]

    def build(self, input_shape: Any) -> None:
        for layer in self.steps:
            layer.build(input_shape)
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        x = inputs
        for layer in self.steps:
            x = x + layer(x, valid, training=training)
        return x
