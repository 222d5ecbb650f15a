"""The spectrogram of `pipeline.features` in `keras.ops`: differentiable, on any backend.

Complex numbers are pairs of float32 tensors (real, imaginary). Lengths may be unknown until the
graph runs. Everything is float32 whatever the precision of the surrounding layers: log-magnitudes
and sums of squares lose too much in half precision.

Some export runtimes lack FFT operations. `transform` selects equivalent ones, with the same results
up to rounding.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import numpy as np
from keras import ops

from pipeline import schema

Tensor = Any

# Lower bound of the sum of squared windows in the inverse STFT.
WEIGHT_FLOOR = 1e-10

# Implementations of the Fourier transform: see `transform`.
_BOTH, FORWARD, PRODUCTS = "both", "forward", "products"
_kind = contextvars.ContextVar("kind", default=_BOTH)


@contextlib.contextmanager
def transform(kind: str) -> Iterator[None]:
    """Selects how Fourier transforms are computed, or traced to a graph, inside the context.

    Args:
        kind: `FORWARD` uses only the forward transform of real signals, from which the inverse is
            derived by symmetry; `PRODUCTS` uses only matrix products.
    """
    token = _kind.set(kind)
    try:
        yield
    finally:
        _kind.reset(token)


def window(frame_length: int = schema.FRAME_LENGTH) -> np.ndarray:
    """Returns the periodic Hann window, float64 `[sample]`."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame_length) / frame_length)


def stft(
    waveform: Tensor, frame_length: int = schema.FRAME_LENGTH, hop: int = schema.HOP
) -> tuple[Tensor, Tensor]:
    """Computes the STFT; by default with the dataset's settings, as in the record.

    Args:
        waveform: `[..., sample]`.
        frame_length: frame length in samples, even.
        hop: hop in samples.

    Returns:
        Real and imaginary part, float32 `[..., frame, bin]`, `ceil(sample / hop) + 1` frames.
    """
    waveform = ops.cast(waveform, "float32")
    half, weights = frame_length // 2, window(frame_length)
    # This padding gives the right number of frames for every length, so the length may be unknown.
    widths = [(0, 0)] * (len(waveform.shape) - 1) + [(half, half + hop - 1)]
    if _kind.get() != _BOTH:
        frames = _frames(ops.pad(waveform, widths), frame_length, hop)
        return _rfft(frames * ops.convert_to_tensor(weights / weights.sum(), "float32"))
    return ops.stft(
        ops.pad(waveform, widths),
        sequence_length=frame_length,
        sequence_stride=hop,
        fft_length=frame_length,
        window=ops.convert_to_tensor(weights / weights.sum(), "float32"),
        center=False,
    )


def inverse_stft(
    real: Tensor,
    imaginary: Tensor,
    num_samples: Any,
    frame_length: int = schema.FRAME_LENGTH,
    hop: int = schema.HOP,
) -> Tensor:
    """Computes the inverse STFT by least squares (Griffin and Lim 1984).

    Args:
        real: real part, `[..., frame, bin]`.
        imaginary: imaginary part, of the same shape.
        num_samples: length of the signal; the number of frames must match it.
        frame_length: frame length in samples, a multiple of `hop` and at least twice `hop`.
        hop: hop in samples.

    Returns:
        float32 `[..., sample]`.
    """
    half = frame_length // 2
    frames, squares = inverse_frames(real, imaginary, frame_length)
    weight = overlap_add(ops.ones_like(real[..., :1]) * squares, hop)
    # The weight is near zero only within the padding, which is cut off.
    signal = overlap_add(frames, hop) / ops.maximum(weight, WEIGHT_FLOOR)
    return signal[..., half : half + num_samples]


def forward_frames(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the spectra of frames that are already cut out, scaled as in `stft`.

    Args:
        frames: `[..., frame, sample]`.

    Returns:
        Real and imaginary part, float32 `[..., frame, bin]`.
    """
    weights = window(frames.shape[-1])
    weights = ops.convert_to_tensor(weights / weights.sum(), "float32")
    return _rfft(ops.cast(frames, "float32") * weights)


def inverse_frames(
    real: Tensor, imaginary: Tensor, frame_length: int = schema.FRAME_LENGTH
) -> tuple[Tensor, Tensor]:
    """Returns the frames that `inverse_stft` adds up, and their weights.

    Args:
        real: real part, `[..., frame, bin]`.
        imaginary: imaginary part, of the same shape.
        frame_length: frame length in samples.

    Returns:
        Frames, float32 `[..., frame, sample]`, and the weight of each sample, `[sample]`. The
        signal is the sum of the frames divided by the sum of the weights (at least `WEIGHT_FLOOR`).
    """
    real, imaginary = ops.cast(real, "float32"), ops.cast(imaginary, "float32")
    weights = window(frame_length)
    frames = _irfft(real, imaginary, frame_length)
    frames = frames * ops.convert_to_tensor(weights * weights.sum(), "float32")
    return frames, ops.convert_to_tensor(weights**2, "float32")


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Adds up overlapping frames, each shifted by `hop` samples from the one before.

    Args:
        frames: `[..., frame, sample]`; the frame length is a multiple of `hop`.
        hop: hop in samples.

    Returns:
        `[..., (frame - 1) · hop + sample]`.

    Raises:
        ValueError: a frame's length is not a multiple of `hop`.
    """
    num_blocks, rest = divmod(frames.shape[-1], hop)
    if rest:
        raise ValueError(f"frames of {frames.shape[-1]} samples are not a multiple of {hop}")
    leading = [(0, 0)] * (len(frames.shape) - 2)
    total = 0
    # Block j of frame t is at position t + j, in hops. The gradient of a split costs less than that
    # of slices.
    for j, block in enumerate(ops.split(frames, num_blocks, axis=-1)):
        total = total + ops.pad(block, [*leading, (j, num_blocks - 1 - j), (0, 0)])
    shape = ops.shape(total)
    return ops.reshape(total, (*shape[:-2], shape[-2] * shape[-1]))


def _frames(padded: Tensor, frame_length: int, hop: int) -> Tensor:
    """Splits `[..., sample]` into `[..., frame, frame_length]`; an incomplete frame is dropped."""
    num_blocks, rest = divmod(frame_length, hop)
    if rest:
        raise ValueError(f"frames of {frame_length} samples are not a multiple of {hop}")
    shape = ops.shape(padded)
    count = shape[-1] // hop
    leading, first = shape[:-1], (0,) * (len(padded.shape) - 1)
    # LiteRT takes far less time for these slices than for indexing.
    whole = ops.slice(padded, (*first, 0), (*leading, count * hop))
    blocks = ops.reshape(whole, (*leading, count, hop))
    frames = count - num_blocks + 1
    # Block j of frame t is block t + j of the signal.
    parts = [ops.slice(blocks, (*first, j, 0), (*leading, frames, hop)) for j in range(num_blocks)]
    return ops.concatenate(parts, axis=-1)


def _rfft(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[..., sample]` to real and imaginary part, `[..., bin]`."""
    if _kind.get() != PRODUCTS:
        return ops.rfft(frames)
    length = frames.shape[-1]
    num_bins = length // 2 + 1
    angles = 2 * np.pi / length * (np.outer(np.arange(length), np.arange(num_bins)) % length)
    matrix = np.concatenate([np.cos(angles), -np.sin(angles)], axis=1)
    found = ops.matmul(frames, ops.convert_to_tensor(matrix, "float32"))
    return found[..., :num_bins], found[..., num_bins:]


def _irfft(real: Tensor, imaginary: Tensor, length: int) -> Tensor:
    """Maps real and imaginary part, `[..., bin]`, to `[..., sample]`."""
    if _kind.get() == _BOTH:
        return ops.irfft((real, imaginary), length)
    # The first and last bin of a real signal are real; the inverse ignores their imaginary parts.
    inner = np.ones(length // 2 + 1, np.float32)
    inner[[0, -1]] = 0
    # The Hartley transform is its own inverse up to a factor.
    spectrum = _rfft(_hartley(real, imaginary * inner))
    return _hartley(*spectrum) / length


def _hartley(real: Tensor, imaginary: Tensor) -> Tensor:
    """Real minus imaginary part of all bins, from the first half: `[..., 2 · (bin - 1)]`."""
    _, inner, _ = ops.split(real + imaginary, [1, real.shape[-1] - 1], axis=-1)
    mirrored = ops.flip(inner, axis=-1)
    return ops.concatenate([real - imaginary, mirrored], axis=-1)


def magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """`max(|X|, 1e-7)`; the gradient is zero, not infinite, where the magnitude is zero."""
    power = ops.square(real) + ops.square(imaginary)
    return ops.sqrt(ops.maximum(power, schema.MAGNITUDE_FLOOR**2))


def log_magnitude(real: Tensor, imaginary: Tensor) -> Tensor:
    """`log10(max(|X|, 1e-7))`."""
    power = ops.square(real) + ops.square(imaginary)
    return 0.5 * ops.log10(ops.maximum(power, schema.MAGNITUDE_FLOOR**2))


def active_level_db(waveform: Tensor) -> Tensor:
    """Active level of speech, as defined by `pipeline.features.active_level_db`.

    Args:
        waveform: `[batch, sample]`, at least one sample.

    Returns:
        float32 `[batch]`, dB; minus infinity for silence.
    """
    waveform = ops.cast(waveform, "float32")
    energy = ops.sum(ops.square(_blocks(waveform)), axis=-1)
    # The same for the whole batch: a constant that XLA would otherwise compute for every row.
    lengths = ops.sum(_blocks(ops.ones_like(waveform[:1])), axis=-1)
    power = energy / lengths
    loudest = ops.max(power, axis=-1, keepdims=True)
    active = ops.cast(power >= loudest * 10 ** (-schema.ACTIVITY_RANGE_DB / 10), "float32")
    mean = ops.sum(energy * active, axis=-1) / ops.sum(lengths * active, axis=-1)
    return 10 * ops.log10(mean)


def _blocks(waveform: Tensor) -> Tensor:
    """Splits `[batch, sample]` into `[batch, block, 256]`; the last block is padded with zeros."""
    length = schema.FRAME_LENGTH
    num_samples = ops.shape(waveform)[-1]
    whole = (num_samples + length - 1) // length * length
    padded = ops.pad(waveform, [(0, 0), (0, length - 1)])[:, :whole]
    return ops.reshape(padded, (ops.shape(padded)[0], whole // length, length))
