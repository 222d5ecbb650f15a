"""Shares the sound above a separator's band between its voices, by their levels below it.

Ten band levels of each voice are weighted for each frame of 8 ms. If a voice is strong near the top
of the model's band and weak at the bottom, the sound above is probably its own (a fricative); if it
is strong at the bottom, probably not (a vowel). The weights come from a logistic regression, fitted
by `trainer.upper_band`.
"""

import numpy as np

from pipeline import features, schema
from pipeline.audio import decoding

# Band edges in Hz for a model at 8,000 Hz; they scale with the model's sample rate.
_EDGES = (60, 300, 600, 1000, 1500, 2000, 2500, 3000, 3400, 3700, 3950)
NUM_BANDS = len(_EDGES) - 1
# Number of frames over which power is averaged: 8, 72 and 328 ms.
SPANS = (1, 9, 41)
NUM_WEIGHTS = NUM_BANDS * len(SPANS)
_FLOOR = 1e-12

# `[span, band]` per difference of 10 dB: `WEIGHTS` with future frames, `CAUSAL_WEIGHTS` without.
WEIGHTS = np.array(
    (
        (-0.31, -0.42, 0.08, -0.08, 0.1, 0.1, 0.16, 0.33, 0.2, 0.43),
        (0.06, -0.05, -0.09, -0.17, 0.05, -0.2, -0.2, 0.05, -0.1, 0.29),
        (0.03, 0.51, 0.06, -0.09, 0.1, -0.01, 0.22, 0.01, -0.34, -0.2),
    )
)
CAUSAL_WEIGHTS = np.array(
    (
        (-0.19, -0.46, -0.13, -0.22, 0.16, -0.13, -0.03, 0.26, 0.23, 0.6),
        (0.25, 0.33, -0.11, 0.04, -0.02, -0.02, 0.04, -0.08, -0.15, -0.03),
        (-0.25, 0.15, 0.12, -0.12, 0.18, 0.12, 0.1, 0.18, -0.17, -0.16),
    )
)


def above(signals: np.ndarray) -> np.ndarray:
    """Returns what a model at 8 kHz cannot hear of signals `[source, sample]` at 16 kHz."""
    rate = schema.DEFAULT_SAMPLE_RATE
    heard = decoding.resample(decoding.resample(signals.T, 2 * rate, rate), rate, 2 * rate).T
    length = min(heard.shape[1], signals.shape[1])
    return signals[:, :length] - heard[:, :length]


def band_powers(voices: np.ndarray) -> np.ndarray:
    """Returns the power of each voice in each band.

    Args:
        voices: float32 `[source, sample]` at the model's sample rate.

    Returns:
        float64 `[source, frame, band]`; frame k is centred on sample 64·k.
    """
    return in_bands(features.stft(voices))


def in_bands(spectrograms: np.ndarray) -> np.ndarray:
    """Returns the power in each band, `[source, frame, band]`, from `[source, frame, bin]`."""
    power = np.square(np.abs(spectrograms), dtype=np.float64)
    bins = np.array(_EDGES) / schema.DEFAULT_SAMPLE_RATE * schema.FRAME_LENGTH
    edges = np.ceil(bins).astype(int)
    total = np.cumsum(np.pad(power, ((0, 0), (0, 0), (1, 0))), axis=2)
    return total[..., edges[1:]] - total[..., edges[:-1]]


def inputs(powers: np.ndarray, causal: bool = False) -> np.ndarray:
    """Returns the inputs of the regression: levels averaged over the spans, in units of 10 dB.

    Args:
        powers: result of `band_powers`, `[source, frame, band]`.
        causal: whether each span ends at its frame instead of being centred on it.

    Returns:
        float64 `[source, frame, span · band]`.
    """
    total = np.cumsum(np.pad(powers, ((0, 0), (1, 0), (0, 0))), axis=1)
    place = np.arange(powers.shape[1])
    parts = []
    for span in SPANS:
        reach = 0 if causal else span // 2
        last = np.minimum(place + reach + 1, powers.shape[1])
        first = np.maximum(place + reach + 1 - span, 0)
        mean = (total[:, last] - total[:, first]) / (last - first)[:, np.newaxis]
        parts.append(np.log10(np.maximum(mean, 0) + _FLOOR))
    return np.concatenate(parts, axis=2)


def shares(powers: np.ndarray, causal: bool = False) -> np.ndarray:
    """Returns each voice's share of the sound above the model's band.

    Args:
        powers: result of `band_powers`, `[source, frame, band]`.
        causal: as in `inputs`.

    Returns:
        float64 `[source, frame]`, 0 to 1; the shares sum to 1 over the voices.
    """
    weights = CAUSAL_WEIGHTS if causal else WEIGHTS
    scores = inputs(powers, causal) @ weights.ravel()
    scores = np.exp(scores - scores.max(axis=0))
    return scores / scores.sum(axis=0)
