"""Spectrogram, voice activity and levels in NumPy, batched over leading axes, in float32.

The spectrogram is that of `scipy.signal.stft(x, window="hann", nperseg=256, noverlap=192)`, without
its special cases for short signals. `models.spectral` is the same in `keras.ops`; a test compares
both with each other and with SciPy.
"""

import numpy as np

from pipeline import schema

# Periodic Hann, as the definition requires: the symmetric window of one more point, less the last.
WINDOW = (
    0.5 - 0.5 * np.cos(2 * np.pi * np.arange(schema.FRAME_LENGTH) / schema.FRAME_LENGTH)
).astype(np.float32)
_LEVEL_BLOCK = 256 * schema.FRAME_LENGTH
_ACTIVITY_POWER_RATIO = 10 ** (-schema.ACTIVITY_RANGE_DB / 10)


def stft(signals: np.ndarray) -> np.ndarray:
    """Computes the spectrogram.

    Args:
        signals: float32 `[..., sample]`.

    Returns:
        complex64 `[..., frame, bin]` with `ceil(sample / 64) + 1` frames and 129 bins.
    """
    # Imported here, since it would double the time of --help in commands that use this module.
    import scipy.fft

    signals = np.asarray(signals, np.float32)
    num_samples = signals.shape[-1]
    num_frames = schema.num_frames(num_samples)
    half = schema.FRAME_LENGTH // 2
    padded = np.zeros(
        (*signals.shape[:-1], (num_frames - 1) * schema.HOP + schema.FRAME_LENGTH), np.float32
    )
    padded[..., half : half + num_samples] = signals
    frames = np.lib.stride_tricks.sliding_window_view(padded, schema.FRAME_LENGTH, axis=-1)
    frames = frames[..., :: schema.HOP, :]
    return scipy.fft.rfft(frames * (WINDOW / WINDOW.sum()), axis=-1, overwrite_x=True)


def inverse_stft(spectrograms: np.ndarray, num_samples: int) -> np.ndarray:
    """Returns the signals of given spectrograms, by least squares (Griffin and Lim 1984).

    Args:
        spectrograms: complex64 `[..., frame, bin]`.
        num_samples: length of the signals.

    Returns:
        float32 `[..., sample]`.

    Raises:
        ValueError: the number of frames does not fit `num_samples`.
    """
    import scipy.fft

    num_frames = spectrograms.shape[-2]
    if num_frames != schema.num_frames(num_samples):
        raise ValueError(
            f"{num_samples} samples have {schema.num_frames(num_samples)} frames, not {num_frames}"
        )
    frames = scipy.fft.irfft(spectrograms, schema.FRAME_LENGTH, axis=-1) * (WINDOW * WINDOW.sum())
    overlap = schema.FRAME_LENGTH // schema.HOP
    # Overlap-add in blocks of one hop: block j of frame t starts at hop t + j.
    total = np.zeros((*frames.shape[:-2], num_frames + overlap - 1, schema.HOP), np.float32)
    weight = np.zeros((num_frames + overlap - 1, schema.HOP), np.float32)
    blocks = frames.reshape(*frames.shape[:-1], overlap, schema.HOP)
    squares = (WINDOW**2).reshape(overlap, schema.HOP)
    for j in range(overlap):
        total[..., j : j + num_frames, :] += blocks[..., j, :]
        weight[j : j + num_frames] += squares[j]
    # The first and the last half window are padding, in which the weight approaches zero.
    half = schema.FRAME_LENGTH // 2
    signal = total / np.maximum(weight, 1e-10)
    return signal.reshape(*signal.shape[:-2], -1)[..., half : half + num_samples]


def log_magnitude(spectrograms: np.ndarray) -> np.ndarray:
    """Returns `log10(max(|X|, 1e-7))`, float32, of the same shape."""
    # NumPy has vector instructions for log but not for log10: this is five times as fast.
    magnitudes = np.maximum(np.abs(spectrograms), np.float32(schema.MAGNITUDE_FLOOR))
    return np.log(magnitudes) * np.float32(1 / np.log(10))


def voice_activity(spectrograms: np.ndarray) -> np.ndarray:
    """Returns which frames contain speech: power within 40 dB of the voice's loudest frame.

    Args:
        spectrograms: complex64 `[..., frame, bin]`.

    Returns:
        bool `[..., frame]`; all false if the voice is zero throughout.
    """
    power = (spectrograms.real**2 + spectrograms.imag**2).sum(axis=-1)
    loudest = power.max(axis=-1, keepdims=True)
    return (power >= loudest * np.float32(_ACTIVITY_POWER_RATIO)) & (power > 0)


def active_level_db(signal: np.ndarray) -> float:
    """Returns the level of the parts that contain speech.

    It is the mean power of the frames (256 samples, rectangular, without overlap, over the whole
    recording; the rest at the end is a shorter frame) that are within 40 dB of the loudest.

    Args:
        signal: `[sample]`, full scale 1.

    Returns:
        Level in dB, where 0 dB is a mean square of 1; minus infinity for silence.
    """
    signal = np.asarray(signal)
    starts = np.arange(0, signal.size, schema.FRAME_LENGTH)
    if not starts.size:
        return -np.inf
    # In blocks of whole frames: for an hour, two arrays of float64 would take half a gigabyte.
    blocks = (signal[n : n + _LEVEL_BLOCK] for n in range(0, signal.size, _LEVEL_BLOCK))
    energy = np.concatenate([_frame_energy(block.astype(np.float64)) for block in blocks])
    lengths = np.diff(np.append(starts, signal.size))
    power = energy / lengths
    loudest = power.max()
    if loudest <= 0:
        return -np.inf
    active = power >= loudest * _ACTIVITY_POWER_RATIO
    return float(10 * np.log10(energy[active].sum() / lengths[active].sum()))


def _frame_energy(signal: np.ndarray) -> np.ndarray:
    """Returns the energy of each frame of `[sample]`, the last one shorter: `[frame]`."""
    return np.add.reduceat(signal**2, np.arange(0, signal.size, schema.FRAME_LENGTH))


def counted_bins(mixture: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """Returns the bins on which mask accuracy is computed.

    Args:
        mixture: float32 `[frame, bin]`, magnitude of the mixture.
        magnitudes: float32 `[source, frame, bin]`, magnitudes of the voices.

    Returns:
        bool `[frame, bin]`: within 40 dB of the mixture's loudest bin, and without a tie.
    """
    threshold = mixture.max() * 10 ** (-schema.ACTIVITY_RANGE_DB / 20)
    ordered = np.sort(magnitudes, axis=0)
    return (mixture >= threshold) & (mixture > 0) & (ordered[-1] > ordered[-2])
