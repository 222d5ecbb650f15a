"""The spectrogram of `pipeline.features` in `keras.ops`, differentiable, on any backend.

Complex numbers are pairs of float32 tensors (real, imaginary). Lengths may be unknown until a
graph runs. Everything is float32 whatever the layers around it use: log-magnitudes and sums of
squares lose too much in half precision.
"""

from typing import Any

import numpy as np
from keras import ops

from pipeline import schema

Tensor = Any

# Periodic Hann.
_PHASE = 2 * np.pi * np.arange(schema.FRAME_LENGTH) / schema.FRAME_LENGTH
_WINDOW = 0.5 - 0.5 * np.cos(_PHASE)
_OVERLAP = schema.FRAME_LENGTH // schema.HOP
_HALF = schema.FRAME_LENGTH // 2


def stft(waveform: Tensor) -> tuple[Tensor, Tensor]:
    """The spectrogram.

    Args:
        waveform: `[..., sample]`.

    Returns:
        Real and imaginary part, float32 `[..., frame, bin]`, `ceil(sample / 64) + 1` frames.
    """
    waveform = ops.cast(waveform, "float32")
    # These widths give the right number of frames for every length, so that it need not be known.
    widths = [(0, 0)] * (len(waveform.shape) - 1) + [(_HALF, _HALF + schema.HOP - 1)]
    return ops.stft(
        ops.pad(waveform, widths),
        sequence_length=schema.FRAME_LENGTH,
        sequence_stride=schema.HOP,
        fft_length=schema.FRAME_LENGTH,
        window=ops.convert_to_tensor(_WINDOW / _WINDOW.sum(), "float32"),
        center=False,
    )


def inverse_stft(real: Tensor, imaginary: Tensor, num_samples: Any) -> Tensor:
    """The signal whose spectrogram this is, by least squares (Griffin and Lim 1984).

    Args:
        real: real part, `[..., frame, bin]`.
        imaginary: imaginary part, likewise.
        num_samples: length of the signal; the frames must be those of that length.

    Returns:
        float32 `[..., sample]`.
    """
    real, imaginary = ops.cast(real, "float32"), ops.cast(imaginary, "float32")
    frames = ops.irfft((real, imaginary), schema.FRAME_LENGTH)
    frames = frames * ops.convert_to_tensor(_WINDOW * _WINDOW.sum(), "float32")
    squares = ops.convert_to_tensor(_WINDOW**2, "float32")
    weight = _overlap_add(ops.ones_like(real[..., :1]) * squares)
    # The weight nears zero only within the padding, which is cut off.
    signal = _overlap_add(frames) / ops.maximum(weight, 1e-10)
    return signal[..., _HALF : _HALF + num_samples]


def _overlap_add(frames: Tensor) -> Tensor:
    """`[..., frame, 256]` to `[..., (frame + 3) · 64]`: block j of frame t lies at hop t + j."""
    leading = [(0, 0)] * (len(frames.shape) - 2)
    total = 0
    for j in range(_OVERLAP):
        block = frames[..., j * schema.HOP : (j + 1) * schema.HOP]
        total = total + ops.pad(block, [*leading, (j, _OVERLAP - 1 - j), (0, 0)])
    shape = ops.shape(total)
    return ops.reshape(total, (*shape[:-2], shape[-2] * shape[-1]))


def magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """`max(|X|, 1e-7)`, whose gradient is zero, not infinite, where the magnitude is."""
    power = ops.square(real) + ops.square(imaginary)
    return ops.sqrt(ops.maximum(power, schema.MAGNITUDE_FLOOR**2))


def log_magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """`log10(max(|X|, 1e-7))`."""
    power = ops.square(real) + ops.square(imaginary)
    return 0.5 * ops.log10(ops.maximum(power, schema.MAGNITUDE_FLOOR**2))


def active_level_db(waveform: Tensor) -> Tensor:
    """The level of the parts that hold speech; `pipeline.features.active_level_db` defines it.

    Args:
        waveform: `[batch, sample]`, at least one sample.

    Returns:
        float32 `[batch]`, dB; minus infinity for silence.
    """
    waveform = ops.cast(waveform, "float32")
    energy = ops.sum(ops.square(_blocks(waveform)), axis=-1)
    # The same for the whole batch: a constant that XLA would otherwise work out for every row.
    lengths = ops.sum(_blocks(ops.ones_like(waveform[:1])), axis=-1)
    power = energy / lengths
    loudest = ops.max(power, axis=-1, keepdims=True)
    active = ops.cast(power >= loudest * 10 ** (-schema.ACTIVITY_RANGE_DB / 10), "float32")
    mean = ops.sum(energy * active, axis=-1) / ops.sum(lengths * active, axis=-1)
    return 10 * ops.log10(mean)


def _blocks(waveform: Tensor) -> Tensor:
    """`[batch, sample]` to `[batch, block, 256]`, the last one filled with zeros."""
    length = schema.FRAME_LENGTH
    num_samples = ops.shape(waveform)[-1]
    whole = (num_samples + length - 1) // length * length
    padded = ops.pad(waveform, [(0, 0), (0, length - 1)])[:, :whole]
    return ops.reshape(padded, (ops.shape(padded)[0], whole // length, length))
