"""Recordings with one speaker on each of two channels, as in many calls and interviews.

`examine` detects them. Where one person speaks, the other channel contains only a little of it, as
crosstalk. Its level in both directions distinguishes such a recording from stereo, in which
everybody is heard on both sides. The crosstalk is predicted from the other channel by a short
filter, estimated by least squares where the other speaker speaks alone, and is moved to that
speaker's voice. The voices therefore still add up to the recording.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline import errors

FRAME_SECONDS = 0.1
# Frames within this range of a channel's loudest frame are speech.
SPEECH_DB = 30.0
# A channel whose loudest frame is this far below the other's has no speaker.
SILENT_DB = 60.0
# A channel is at least this far below the other in a tenth of the frames in which the other speaks.
CROSSTALK_DB = -14.0
# Each channel has at least this many seconds in which its speaker is that much louder.
LEAST_SECONDS = 0.5
_QUIETEST = 0.1
# Beyond this level difference, one speaker is assumed alone and the other channel all crosstalk.
_ALONE_DB = 15.0
# The filter's maximum delay or advance in seconds, and how much energy it must remove where the
# other speaks alone to be used at all.
_REACH_SECONDS = 0.016
_WORTH_DB = 3.0
_WINDOW_SECONDS = 0.128


@dataclasses.dataclass(frozen=True)
class Crosstalk:
    """The crosstalk between two channels.

    Attributes:
        rate: the recording's rate in Hz.
        levels_db: level of the crosstalk from the first to the second channel, and back; None if
            there does not seem to be one speaker on each channel.
        filters: float64 `[2, tap]`, each channel's crosstalk from the other; zeros if removing it
            would not help.
    """

    rate: int
    levels_db: tuple[float, float] | None
    filters: np.ndarray

    def note(self) -> str:
        """What the user has to know."""
        found = "there does not seem to be a speaker on each channel"
        if self.levels_db is not None:
            found = f"there is a speaker on each channel (crosstalk {max(self.levels_db):.0f} dB)"
        cleaned = "freed of crosstalk" if self.filters.any() else "as they are"
        return (
            f"{found}: the voices are the channels, {cleaned}; --channels=mix lets the model "
            "separate them"
        )

    def voices(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the voices of the recording.

        Args:
            blocks: float32 `[sample, 2]`.

        Yields:
            float32 `[2, sample, 2]`: each voice has its own channel without crosstalk, and its own
            crosstalk on the other channel. They add up to the recording.
        """
        from scipy import signal

        reach = self.filters.shape[1] // 2
        held = np.zeros((reach, 2), np.float32)  # From `reach` samples before the next output.

        def step(samples: np.ndarray) -> np.ndarray:
            """Computes the voices of the middle n of `[reach + n + reach, 2]` samples."""
            middle = samples[reach : len(samples) - reach]
            found = np.zeros((2, len(middle), 2), np.float32)
            for own in (0, 1):
                foreign = np.zeros(len(middle), np.float32)
                if self.filters[own].any():
                    foreign = signal.oaconvolve(
                        samples[:, 1 - own], self.filters[own], "valid"
                    ).astype(np.float32)
                found[own, :, own] = middle[:, own] - foreign
                found[1 - own, :, own] = foreign
            return found

        for block in blocks:
            held = np.concatenate([held, block])
            if len(held) > 4 * reach + 1:
                yield step(held)
                held = held[len(held) - 2 * reach :]
        held = np.concatenate([held, np.zeros((reach, 2), np.float32)])
        if len(held) > 2 * reach:
            yield step(held)


def examine(
    blocks: Iterable[np.ndarray], rate: int, wanted: bool, num_sources: int = 2
) -> Crosstalk | None:
    """Detects whether there is one speaker per channel, and estimates the crosstalk.

    Args:
        blocks: the recording, float32 `[sample, channel]`.
        rate: in Hz.
        wanted: assume one speaker per channel.
        num_sources: number of voices of the model; unless it is two, nothing is detected.

    Returns:
        The crosstalk; None if the recording is a mixture for a model.

    Raises:
        UserError: one speaker per channel is assumed, but there are not two channels, or the
            model does not separate two voices.
    """
    iterator = iter(blocks)
    first = next(iterator, None)
    if first is None or first.shape[1] != 2 or (num_sources != 2 and not wanted):
        if wanted and first is not None:
            raise errors.UserError(
                f"--channels=separate is for two channels, not {first.shape[1]}; use --channels=mix"
            )
        return None
    if num_sources != 2:
        raise errors.UserError(
            f"--channels=separate gives two voices, and the model has {num_sources}; use "
            "--channels=mix"
        )
    frame = max(1, round(FRAME_SECONDS * rate))
    parts, spectra, rest = [], _Spectra(rate), np.zeros((0, 2), np.float32)
    # The loudest frame is not known at the beginning; the loudest so far is used instead.
    block: np.ndarray | None = first
    while block is not None:
        rest = np.concatenate([rest, block])
        whole = len(rest) // frame * frame
        frames = rest[:whole].reshape(-1, frame, 2)
        rest = rest[whole:]
        parts.append(np.square(frames, dtype=np.float64).mean(axis=1))
        spectra.add(frames, parts[-1])
        block = next(iterator, None)
    powers = np.concatenate(parts)
    levels = leakage(powers)
    if not wanted and (levels is None or max(levels) > CROSSTALK_DB):
        return None
    filters = spectra.filters()
    if levels is not None:
        # The energy that a filter removes is the better measure.
        taken = 10 * np.log10(np.square(filters).sum(axis=1) + 1e-12)
        to_second, to_first = (
            float(gain) if used.any() else level
            for gain, used, level in zip(taken[::-1], filters[::-1], levels, strict=True)
        )
        levels = to_second, to_first
    return Crosstalk(rate, levels, filters)


def leakage(powers: np.ndarray) -> tuple[float, float] | None:
    """Measures how much of each channel's speech leaks into the other.

    Args:
        powers: powers of both channels in frames of 0.1 s, `[frame, 2]`.

    Returns:
        In dB: the leakage of the first channel's speech into the second, and of the second's into
        the first. None if the channels do not have one speaker each.
    """
    if not len(powers):
        return None
    level = 10 * np.log10(powers + 1e-12)
    loudest = level.max(axis=0)
    if abs(loudest[0] - loudest[1]) > SILENT_DB:
        return None
    found = []
    for own in (0, 1):
        speaks = level[:, own] > max(loudest[own] - SPEECH_DB, -100.0)
        below = (level[:, 1 - own] - level[:, own])[speaks]
        if (below < CROSSTALK_DB).sum() * FRAME_SECONDS < LEAST_SECONDS:
            return None
        found.append(float(np.quantile(below, _QUIETEST)))
    return found[0], found[1]


class _Spectra:
    """Cross-spectra of the channels where one is much louder than the other."""

    def __init__(self, rate: int) -> None:
        self._length = max(32, round(_WINDOW_SECONDS * rate) // 2 * 2)
        self._reach = max(1, min(round(_REACH_SECONDS * rate), self._length // 4))
        bins = self._length // 2 + 1
        self._cross = np.zeros((2, bins), complex)
        self._own = np.full((2, bins), 1e-12)
        self._other = np.full(2, 1e-12)
        self._loudest = np.zeros(2)

    def add(self, frames: np.ndarray, powers: np.ndarray) -> None:
        """Adds frames `[frame, sample, 2]` with these powers `[frame, 2]`."""
        if not len(frames):
            return
        self._loudest = np.maximum(self._loudest, powers.max(axis=0))
        for target in (0, 1):
            talker = 1 - target
            alone = powers[:, talker] > np.maximum(
                powers[:, target] * 10 ** (_ALONE_DB / 10),
                self._loudest[talker] * 10 ** (-SPEECH_DB / 10),
            )
            if not alone.any():
                continue
            taper = np.hanning(frames.shape[1])[:, np.newaxis]
            # A frame counts more the quieter the target channel is.
            taper = taper / np.sqrt(powers[alone, target] + 1e-12)[:, np.newaxis, np.newaxis]
            spectra = np.fft.rfft(frames[alone] * taper, self._length, axis=1)
            self._cross[target] += (spectra[..., target] * spectra[..., talker].conj()).sum(axis=0)
            self._own[target] += np.square(np.abs(spectra[..., talker])).sum(axis=0)
            self._other[target] += float(np.square(np.abs(spectra[..., target])).sum())

    def filters(self) -> np.ndarray:
        """See `Crosstalk.filters`."""
        found = np.zeros((2, 2 * self._reach + 1))
        for target in (0, 1):
            floor = 1e-4 * self._own[target].max()
            impulse = np.fft.irfft(self._cross[target] / (self._own[target] + floor), self._length)
            taps = np.roll(impulse, self._reach)[: 2 * self._reach + 1]
            response = np.fft.rfft(
                np.roll(np.pad(taps, (0, self._length - len(taps))), -self._reach)
            )
            # The residual crosstalk where the other speaks alone.
            left = (
                self._other[target]
                + (
                    np.square(np.abs(response)) * self._own[target]
                    - 2 * (response.conj() * self._cross[target]).real
                ).sum()
            )
            if left < self._other[target] * 10 ** (-_WORTH_DB / 10):
                found[target] = taps
        return found
