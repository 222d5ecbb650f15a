"""Finds who speaks when, from voices given block by block, using little memory.

A turn is a stretch in which a voice's power over 0.1 s is within 40 dB of its own loudest 0.1 s;
gaps of less than 0.3 s are closed. Only the powers are kept, ten per second for each voice.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

FRAMES_PER_SECOND = 10
# Below a voice's own loudest frame.
RANGE_DB = 40.0
# Gaps of fewer frames are closed: 0.3 s.
MIN_GAP_FRAMES = 3
# A voice whose loudest frame is this far below that of the loudest voice is taken as silent: it is
# only rounding noise.
SILENT_DB = 60.0


@dataclasses.dataclass(frozen=True)
class Turn:
    """A stretch in which one voice speaks.

    Attributes:
        speaker: index of the voice, from 0.
        start: seconds from the beginning of the recording.
        end: in seconds; greater than `start`, at most the recording's duration.
        level_db: mean power of the voice in the turn, averaged over channels; 0 dB is a mean square
            of 1.
    """

    speaker: int
    start: float
    end: float
    level_db: float


@dataclasses.dataclass(frozen=True)
class Activity:
    """Who speaks when in a recording.

    Attributes:
        turns: sorted by start, then by speaker.
        seconds: duration of the recording.
        speech: seconds in which each voice speaks.
        overlap: seconds in which two or more voices speak.
        silence: seconds in which nobody speaks.
    """

    turns: tuple[Turn, ...]
    seconds: float
    speech: tuple[float, ...]
    overlap: float
    silence: float

    @property
    def share(self) -> tuple[float, ...]:
        """The fraction of the recording in which each voice speaks, 0 to 1."""
        return tuple(spoken / self.seconds if self.seconds else 0.0 for spoken in self.speech)

    @property
    def num_voices(self) -> int:
        """Number of voices that speak at all."""
        return sum(spoken > 0 for spoken in self.speech)


class Meter:
    """Measures voices block by block; `activity` then returns who speaks when."""

    def __init__(self, num_sources: int, rate: int) -> None:
        """Creates a meter for `num_sources` voices at `rate` Hz."""
        self._rate = rate
        self._taken = 0
        self._powers = np.zeros((num_sources, 64))
        self._num_frames = 0
        self._energy = np.zeros(num_sources)  # Of the incomplete frame.

    def add(self, voices: np.ndarray) -> None:
        """Adds the next samples, float `[source, sample]` or `[source, sample, channel]`."""
        squares = np.square(voices, dtype=np.float64)
        if squares.ndim == 3:
            squares = squares.mean(axis=2)
        place, length = 0, squares.shape[1]
        while place < length:
            # Frame k begins at the first sample at or after k / 10 s.
            end = self._edge(self._num_frames + 1)
            step = min(length - place, end - self._taken)
            self._energy += squares[:, place : place + step].sum(axis=1)
            self._taken += step
            place += step
            if self._taken == end:
                self._close()

    @property
    def powers(self) -> np.ndarray:
        """Mean square of each complete frame so far, float64 `[source, frame]`."""
        return self._powers[:, : self._num_frames]

    def activity(self) -> Activity:
        """Returns who spoke when in all samples so far."""
        powers, taken = self.powers, self._taken
        first = self._edge(self._num_frames)
        if taken > first:
            powers = np.concatenate([powers, self._energy[:, None] / (taken - first)], axis=1)
        edges = np.array([self._edge(k) for k in range(powers.shape[1])] + [taken]) / self._rate
        active = active_frames(powers)
        seconds = np.diff(edges)
        turns = []
        for speaker, row in enumerate(active):
            bounds = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
            for start, end in bounds.reshape(-1, 2):
                energy = float((powers[speaker, start:end] * seconds[start:end]).sum())
                length = float(edges[end] - edges[start])
                level = 10 * np.log10(max(energy / length, 1e-30))
                turns.append(Turn(speaker, float(edges[start]), float(edges[end]), float(level)))
        turns.sort(key=lambda turn: (turn.start, turn.speaker))
        count = active.sum(axis=0)
        return Activity(
            turns=tuple(turns),
            seconds=taken / self._rate,
            speech=tuple(float(spoken) for spoken in active @ seconds),
            overlap=float(seconds[count > 1].sum()),
            silence=float(seconds[count == 0].sum()),
        )

    def _edge(self, frame: int) -> int:
        return -(-frame * self._rate // FRAMES_PER_SECOND)

    def _close(self) -> None:
        if self._num_frames == self._powers.shape[1]:
            self._powers = np.concatenate([self._powers, np.zeros_like(self._powers)], axis=1)
        length = self._taken - self._edge(self._num_frames)
        self._powers[:, self._num_frames] = self._energy / length
        self._num_frames += 1
        self._energy[:] = 0


def active_frames(powers: np.ndarray) -> np.ndarray:
    """Returns in which frames of 0.1 s each voice speaks, by the definition of a turn.

    Args:
        powers: mean squares, `[source, frame]`.

    Returns:
        bool `[source, frame]`.
    """
    active = np.zeros(powers.shape, bool)
    if not powers.size:
        return active
    loudest = powers.max(axis=1)
    for row, power, most in zip(active, powers, loudest, strict=True):
        if most <= loudest.max() * 10 ** (-SILENT_DB / 10):
            continue
        row[:] = power >= most * 10 ** (-RANGE_DB / 10)
        heard = np.flatnonzero(row)
        for before in np.flatnonzero((np.diff(heard) > 1) & (np.diff(heard) <= MIN_GAP_FRAMES)):
            row[heard[before] : heard[before + 1]] = True
    return active


def find_turns(blocks: Iterable[np.ndarray], rate: int) -> Activity:
    """Finds who speaks when in voices given block by block.

    Args:
        blocks: float `[source, sample]` or `[source, sample, channel]`, in order.
        rate: in Hz.

    Raises:
        ValueError: there are no blocks, so the number of voices is unknown.
    """
    meter = None
    for block in blocks:
        meter = meter or Meter(len(block), rate)
        meter.add(block)
    if meter is None:
        raise ValueError("there are no voices")
    return meter.activity()
