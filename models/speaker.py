"""Two small networks about who speaks, in NumPy: an embedding of a speaker, and one or two voices.

Both are temporal convolutions over log-power features of 20 ms. `trainer.speaker_embedding` trains
them; `Networks.load` reads what it wrote. They only judge separated voices and never make sound.
"""

import itertools
import os
from typing import BinaryIO

import numpy as np

RATE = 8000
HOP = 160
# Harmonics of a low voice are 80 Hz apart, and a bin of 512 samples is 16 Hz.
_WINDOW = 512
_LINEAR_BINS = 64  # Up to 1 kHz bins as they are; above it bands of growing width.
_NUM_BANDS = 24
NUM_FEATURES = _LINEAR_BINS - 2 + _NUM_BANDS
# Of full scale 1; far below what 16 bits hold.
_FLOOR = 1e-10
# Frames so far below a segment's loudest are no speech, in dB.
SPEECH_RANGE_DB = 25.0


def _bands() -> np.ndarray:
    """Weights `[bin, feature]` of the bins in each feature."""
    bins = _WINDOW // 2 + 1
    weights = np.zeros((bins, NUM_FEATURES), np.float32)
    linear = np.arange(2, _LINEAR_BINS)  # Not what lies below 32 Hz.
    weights[linear, linear - 2] = 1
    edges = np.geomspace(_LINEAR_BINS, bins, _NUM_BANDS + 1).round().astype(int)
    for band, (first, last) in enumerate(itertools.pairwise(edges)):
        weights[first:last, _LINEAR_BINS - 2 + band] = 1 / (last - first)
    return weights


_BANDS = _bands()
_TAPER = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def features(signal: np.ndarray) -> np.ndarray:
    """The log-power of each band every 20 ms.

    Args:
        signal: float `[sample]` at `RATE`.

    Returns:
        float32 `[frame, feature]` in dB; frame k is centred on sample 160·k + 80.
    """
    frames = -(-len(signal) // HOP)
    if not frames:
        return np.zeros((0, NUM_FEATURES), np.float32)
    before = (_WINDOW - HOP) // 2
    padded = np.zeros((frames - 1) * HOP + _WINDOW, np.float32)
    padded[before : before + len(signal)] = signal
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP]
    parts = []
    for first in range(0, frames, 4096):
        spectra = np.fft.rfft(windows[first : first + 4096] * _TAPER)
        power = np.square(np.abs(spectra)).astype(np.float32) / _WINDOW
        parts.append(10 * np.log10(power @ _BANDS + _FLOOR))
    return np.concatenate(parts).astype(np.float32)


def speech_frames(values: np.ndarray) -> np.ndarray:
    """Which frames of `features` hold speech, bool `[frame]`, by their level alone."""
    level = levels(values)
    return level >= level.max(initial=-np.inf) - SPEECH_RANGE_DB


def levels(values: np.ndarray) -> np.ndarray:
    """The level of each frame of `features`, `[frame]` in dB."""
    return 10 * np.log10(np.power(10, values / 10).sum(axis=-1))


def embedding_inputs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the embedding's network takes: features at a level of their own, and who counts.

    Args:
        values: `features`, `[frame, feature]`.

    Returns:
        float32 `[frame, feature]`, and float32 `[frame]`, 1 where there is speech.
    """
    weights = speech_frames(values)
    mean = levels(values)[weights].mean() if weights.any() else 0.0
    return ((values - mean + 25) / 10).astype(np.float32), weights.astype(np.float32)


def overlap_inputs(first: np.ndarray, second: np.ndarray, level: float) -> np.ndarray:
    """What the network takes that tells one voice from two; the same for voices exchanged.

    Args:
        first: `features` of one of the model's outputs, `[frame, feature]`.
        second: of the other.
        level: of speech in the two together, in dB (`levels`).

    Returns:
        float32 `[frame, 2 · feature]`.
    """
    both = 10 * np.log10(np.power(10, first / 10) + np.power(10, second / 10))
    apart = np.abs(first - second)
    return np.concatenate([(both - level + 25) / 10, apart / 10], axis=1).astype(np.float32)


def _convolve(values: np.ndarray, kernel: np.ndarray, bias: np.ndarray, rate: int) -> np.ndarray:
    """A dilated convolution with zeros beyond the ends, then ReLU; `[frame, channel]`."""
    size = len(kernel)
    reach = (size - 1) // 2 * rate
    padded = np.pad(values, ((reach, reach), (0, 0)))
    out = np.broadcast_to(bias, (len(values), len(bias))).copy()
    for tap in range(size):
        out += padded[tap * rate : tap * rate + len(values)] @ kernel[tap]
    return np.maximum(out, 0)


# Of each convolution, by network.
DILATIONS = {"embedding": (1, 2, 3), "overlap": (1, 3, 6)}


class Networks:
    """The trained networks."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        """Takes arrays by name, as `trainer.speaker_embedding` writes them."""
        self._weights = {name: value.astype(np.float32) for name, value in weights.items()}

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> "Networks":
        """Reads the `.npz` that `trainer.speaker_embedding` wrote."""
        with np.load(file) as archive:
            return cls({name: archive[name] for name in archive.files})

    def vector(self, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The embedding as it is trained, of length 1, from `embedding_inputs`."""
        hidden = self._convolutions("embedding", inputs)
        weights = (weights / max(float(weights.sum()), 1.0))[:, np.newaxis]
        mean = (weights * hidden).sum(axis=0)
        variance = (weights * np.square(hidden)).sum(axis=0) - np.square(mean)
        pooled = np.concatenate([mean, np.sqrt(np.maximum(variance, 1e-4))])
        vector = pooled @ self._weights["embedding/dense"]
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    def embed(self, values: np.ndarray) -> np.ndarray:
        """Who speaks: a point; those of 2 s of one speaker lie about 1 apart along each axis.

        Args:
            values: `features` of a segment, `[frame, feature]`.

        Returns:
            float32 `[dimension]`.
        """
        return self.vector(*embedding_inputs(values)) @ self._weights["embedding/whiten"]

    @property
    def spread(self) -> np.ndarray:
        """The variance of different speakers' points along each axis, `[dimension]`."""
        return self._weights["embedding/spread"]

    def overlap(self, inputs: np.ndarray) -> np.ndarray:
        """The probability that two voices speak, float32 `[frame]`, from `overlap_inputs`."""
        hidden = self._convolutions("overlap", inputs)
        logits = hidden @ self._weights["overlap/dense"][:, 0] + self._weights["overlap/bias"][0]
        return 1 / (1 + np.exp(-logits))

    def _convolutions(self, network: str, values: np.ndarray) -> np.ndarray:
        for layer, rate in enumerate(DILATIONS[network]):
            name = f"{network}/{layer}"
            values = _convolve(
                values, self._weights[f"{name}/kernel"], self._weights[f"{name}/bias"], rate
            )
        return values
