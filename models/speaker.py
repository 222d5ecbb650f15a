"""Two small speaker networks in NumPy: a speaker embedding, and a detector of overlapping speech.

Both are temporal convolutional networks over log-power features, one frame per 20 ms.
`trainer.speaker_embedding` trains them and `Networks.load` reads its file. They only rate separated
voices and never produce sound.
"""

import itertools
import os
from typing import BinaryIO

import numpy as np

RATE = 8000
HOP = 160
# Harmonics of a low voice are 80 Hz apart, and a bin of 512 samples is 16 Hz wide.
_WINDOW = 512
_LINEAR_BINS = 64  # Single bins up to 1 kHz; above it bands of growing width.
_NUM_BANDS = 24
NUM_FEATURES = _LINEAR_BINS - 2 + _NUM_BANDS
# Relative to full scale 1; far below the resolution of 16 bits.
_FLOOR = 1e-10
# Frames more than this below the loudest frame of a segment are not speech, in dB.
SPEECH_RANGE_DB = 25.0


def _bands() -> np.ndarray:
    """Returns the weights `[bin, feature]` of the bins in each feature."""
    bins = _WINDOW // 2 + 1
    weights = np.zeros((bins, NUM_FEATURES), np.float32)
    linear = np.arange(2, _LINEAR_BINS)  # Skips the bins below 32 Hz.
    weights[linear, linear - 2] = 1
    edges = np.geomspace(_LINEAR_BINS, bins, _NUM_BANDS + 1).round().astype(int)
    for band, (first, last) in enumerate(itertools.pairwise(edges)):
        weights[first:last, _LINEAR_BINS - 2 + band] = 1 / (last - first)
    return weights


_BANDS = _bands()
_TAPER = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def features(signal: np.ndarray) -> np.ndarray:
    """Returns the log-power of each band every 20 ms.

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
    """Returns which frames of `features` contain speech, judged by level, bool `[frame]`."""
    level = levels(values)
    return level >= level.max(initial=-np.inf) - SPEECH_RANGE_DB


def levels(values: np.ndarray) -> np.ndarray:
    """Returns the level of each frame of `features`, `[frame]` in dB."""
    return 10 * np.log10(np.power(10, values / 10).sum(axis=-1))


def embedding_inputs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs of the embedding network: level-normalised features, and weights.

    Args:
        values: result of `features`, `[frame, feature]`.

    Returns:
        Features, float32 `[frame, feature]`, and weights, float32 `[frame]`, 1 where there is
        speech.
    """
    weights = speech_frames(values)
    mean = levels(values)[weights].mean() if weights.any() else 0.0
    return ((values - mean + 25) / 10).astype(np.float32), weights.astype(np.float32)


def overlap_inputs(first: np.ndarray, second: np.ndarray, level: float) -> np.ndarray:
    """Returns the inputs of the overlap network; swapping the voices changes nothing.

    Args:
        first: `features` of one output of the model, `[frame, feature]`.
        second: `features` of the other output.
        level: level of speech in the sum of both, in dB (see `levels`).

    Returns:
        float32 `[frame, 2 · feature]`.
    """
    both = 10 * np.log10(np.power(10, first / 10) + np.power(10, second / 10))
    apart = np.abs(first - second)
    return np.concatenate([(both - level + 25) / 10, apart / 10], axis=1).astype(np.float32)


def _convolve(values: np.ndarray, kernel: np.ndarray, bias: np.ndarray, rate: int) -> np.ndarray:
    """Dilated convolution with zero padding, then ReLU; returns `[frame, channel]`."""
    size = len(kernel)
    reach = (size - 1) // 2 * rate
    padded = np.pad(values, ((reach, reach), (0, 0)))
    out = np.broadcast_to(bias, (len(values), len(bias))).copy()
    for tap in range(size):
        out += padded[tap * rate : tap * rate + len(values)] @ kernel[tap]
    return np.maximum(out, 0)


# Dilation of each convolution, by network.
DILATIONS = {"embedding": (1, 2, 3), "overlap": (1, 3, 6)}


class Networks:
    """The trained networks."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        """Takes arrays by name, as written by `trainer.speaker_embedding`."""
        self._weights = {name: value.astype(np.float32) for name, value in weights.items()}

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> "Networks":
        """Reads the `.npz` file written by `trainer.speaker_embedding`."""
        with np.load(file) as archive:
            return cls({name: archive[name] for name in archive.files})

    def vector(self, inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Returns the embedding used in training, of unit length, from `embedding_inputs`."""
        hidden = self._convolutions("embedding", inputs)
        weights = (weights / max(float(weights.sum()), 1.0))[:, np.newaxis]
        mean = (weights * hidden).sum(axis=0)
        variance = (weights * np.square(hidden)).sum(axis=0) - np.square(mean)
        pooled = np.concatenate([mean, np.sqrt(np.maximum(variance, 1e-4))])
        vector = pooled @ self._weights["embedding/dense"] + self._weights["embedding/bias"]
        return vector / max(float(np.linalg.norm(vector)), 1e-9)

    def embed(self, values: np.ndarray) -> np.ndarray:
        """Returns a speaker embedding; two of one speaker from 2 s differ by about 1 per axis.

        Args:
            values: `features` of a segment, `[frame, feature]`.

        Returns:
            float32 `[dimension]`.
        """
        return self.vector(*embedding_inputs(values)) @ self._weights["embedding/whiten"]

    @property
    def spread(self) -> np.ndarray:
        """Variance between speakers along each axis of the embedding, `[dimension]`."""
        return self._weights["embedding/spread"]

    def overlap(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the probability of two voices, float32 `[frame]`, from `overlap_inputs`."""
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
