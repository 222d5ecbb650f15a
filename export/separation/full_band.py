"""Full-band voices: divides frequencies above the model's band between its outputs.

`models.upper_band` estimates each voice's share, frame by frame, from the outputs within the
model's band. The outputs then add up to the whole recording.
"""

import numpy as np

from export.separation import spool
from models import upper_band
from pipeline import features, schema

_BLOCK = 2**16


def shares_of(kept: spool.Spool, shape: tuple[int, int]) -> np.ndarray:
    """Estimates each voice's share of the band above the model's, in frames of 64 samples.

    Args:
        kept: the model's outputs, `[sample, source · channel]`.
        shape: numbers of sources and channels.

    Returns:
        float32 `[source, channel, frame]`; frame k is at sample 64·k.
    """
    margin = 64 * schema.HOP
    parts = []
    for first in range(0, kept.num_samples, _BLOCK):
        block = kept.read(first - margin, first + _BLOCK + margin).reshape(-1, *shape)
        kept_frames = slice(margin // schema.HOP, (margin + _BLOCK) // schema.HOP)
        found = []
        for channel in range(shape[1]):
            signals = np.ascontiguousarray(block[..., channel].T)
            found.append(upper_band.shares(upper_band.band_powers(signals))[:, kept_frames])
        parts.append(np.stack(found, axis=1).astype(np.float32))
    return np.concatenate(parts, axis=2)


def add(
    outputs: np.ndarray, mixture: np.ndarray, shares: np.ndarray, times: np.ndarray, rate: int
) -> np.ndarray:
    """Adds the part of the mixture that the outputs lack, divided between them.

    Args:
        outputs: float32 `[source, sample, channel]` at the recording's rate.
        mixture: float32 `[sample, channel]`.
        shares: the result of `shares_of`.
        times: time of each sample in seconds.
        rate: the model's rate, to which the frames of the shares refer.

    Returns:
        float32 `[source, sample, channel]`, which add up to the mixture, up to rounding.
    """
    if not len(times):
        return outputs
    missing = mixture - outputs.sum(axis=0)
    place = times * (rate / schema.HOP)
    low = max(0, int(place[0]) - 1)
    high = int(place[-1]) + 3
    frames = np.arange(low, low + shares[..., low:high].shape[2])
    found = np.empty_like(outputs)
    rest = mixture.copy()
    for source in range(len(outputs) - 1):
        for channel in range(outputs.shape[2]):
            gain = np.interp(place, frames, shares[source, channel, low:high])
            found[source, :, channel] = outputs[source, :, channel] + gain * missing[:, channel]
        rest -= found[source]
    found[-1] = rest
    return found


class Follower:
    """Estimates shares for a stream, from past outputs only.

    A share is available as soon as the outputs up to its time are, and does not depend on how they
    are split into blocks.
    """

    def __init__(self, num_sources: int, rate: int) -> None:
        """Starts a stream.

        Args:
            num_sources: number of outputs of the model.
            rate: the model's rate in Hz.
        """
        self._rate = rate
        # Frame k ends at sample 64·k; there is silence before the first sample.
        self._held = np.zeros((num_sources, schema.FRAME_LENGTH - schema.HOP), np.float32)
        self._powers = np.zeros((num_sources, 0, upper_band.NUM_BANDS))
        self._shares = np.full((num_sources, 2), 1 / num_sources)
        self._first = 0  # Number of the first frame in `_shares`.

    def hear(self, outputs: np.ndarray) -> None:
        """Adds the model's next outputs, float32 `[source, sample]`."""
        self._held = np.concatenate([self._held, outputs], axis=1)
        count = (self._held.shape[1] - schema.FRAME_LENGTH) // schema.HOP + 1
        if count < 1:
            return
        windows = np.lib.stride_tricks.sliding_window_view(self._held, schema.FRAME_LENGTH, axis=1)[
            :, :: schema.HOP
        ][:, :count]
        spectra = np.fft.rfft(windows * (features.WINDOW / features.WINDOW.sum()), axis=2)
        powers = upper_band.in_bands(spectra)
        self._held = self._held[:, count * schema.HOP :]
        self._powers = np.concatenate([self._powers, powers], axis=1)
        shares = upper_band.shares(self._powers, causal=True)[:, -count:]
        self._shares = np.concatenate([self._shares, shares], axis=1)
        self._powers = self._powers[:, 1 - max(upper_band.SPANS) :]

    def add(self, outputs: np.ndarray, mixture: np.ndarray, first: int, rate: int) -> np.ndarray:
        """Adds the part of the mixture that the outputs lack, divided between them.

        Args:
            outputs: float32 `[source, sample]` at the recording's rate.
            mixture: float32 `[sample]`, of the same length.
            first: index of the first sample in the recording.
            rate: the recording's rate.

        Returns:
            float32 `[source, sample]`, which add up to the mixture, up to rounding.
        """
        if not len(mixture):
            return outputs
        # One frame late: the ramp to a frame's share begins when the frame ends.
        times = np.arange(first, first + len(mixture)) / rate - schema.HOP / self._rate
        shares = self._shares[:, np.newaxis]
        late = times - self._first * schema.HOP / self._rate
        found = add(outputs[..., np.newaxis], mixture[:, np.newaxis], shares, late, self._rate)
        done = max(0, int(late[-1] * self._rate / schema.HOP) - 2)
        self._shares, self._first = self._shares[:, done:], self._first + done
        return found[..., 0]
