"""Separates long recordings in bounded memory, in overlapping chunks with consistent voice order.

A network outputs voices in an arbitrary order, which may differ from chunk to chunk. Where two
chunks overlap, both estimate the same speech: the later chunk is given the order that best matches
the earlier one's estimates. If there is no speech in the overlap, it is given the order that best
matches the long-term spectra of the voices so far. The estimates are cross-faded with weights that
add up to one, so the voices still add up to the mixture.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipeline import features, schema

# Chunks are compared in blocks that are at most this far below the loudest.
_LOUD_RANGE_DB = 30.0
# Relative to the correlation in the overlap: it only matters for voices that are silent there.
_COLOUR_WEIGHT = 0.02
# The overlap is this many times longer than a fade in a pause: 5 s and 0.1 s.
_PAUSE_FADES = 50

# Maps the mixtures [sample, channel] of some chunks of equal length to the voices of each,
# [source, sample, channel].
Separate = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def separate_blocks(
    blocks: Iterable[np.ndarray],
    separate: Separate,
    chunk: int,
    overlap: int,
    at_once: int = 1,
    in_pauses: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separates a recording given in blocks.

    A recording of at most `chunk` samples is separated in one piece. All chunks of a longer one
    have that length; the last chunk ends with the recording. Two chunks overlap by `overlap`
    samples, or by up to half a chunk if these contain too little speech to distinguish the voices.

    Args:
        blocks: float32 `[sample, channel]`, in order, of any lengths.
        separate: separates chunks.
        chunk: samples in a chunk.
        overlap: minimum overlap of two chunks in samples, at most half a chunk.
        at_once: maximum number of chunks passed to `separate` in one call.
        in_pauses: join chunks where the mixture is quietest within the overlap, instead of in its
            middle.

    Yields:
        Contiguous pieces of the mixture, float32 `[sample, channel]`, and of its voices,
        `[source, sample, channel]`.

    Raises:
        ValueError: the chunk is shorter than a frame of the spectrogram, or the overlap is
            negative or longer than half a chunk.
    """
    if chunk < schema.FRAME_LENGTH:
        raise ValueError(f"a chunk of {chunk} samples is less than a frame")
    if not 0 <= overlap <= chunk // 2:
        raise ValueError(f"overlap is {overlap} samples, but half a chunk {chunk // 2}")
    cuts = _cut(blocks, chunk, overlap)
    mixture = voices = np.zeros((0, 1), np.float32)
    memory: _Spectra | None = None
    done = 0
    while group := list(itertools.islice(cuts, at_once)):
        for cut, later in zip(group, separate([c.mixture for c in group]), strict=True):
            start = cut.start
            if not len(mixture):
                mixture, voices = cut.mixture, later
            else:
                # All positions are relative to the first sample of the earlier chunk.
                memory = memory or _Spectra(voices)
                similarity = _COLOUR_WEIGHT * memory.likeness(later)
                if cut.heard:
                    similarity += _correlations(voices[:, start:], later[:, : chunk - start])
                later = later[best_order(similarity)]
                memory.add(later)
                mixture = np.concatenate([mixture[:start], cut.mixture])
                middle, fade = voices.shape[1] - overlap // 2, overlap // 4
                if in_pauses:
                    fade = overlap // _PAUSE_FADES
                    middle = _quietest(mixture, voices.shape[1] - overlap, voices.shape[1], fade)
                voices = _join(voices, later, start, middle, fade)
            until = len(mixture) if cut.last else len(mixture) - overlap
            yield mixture[done:until], voices[:, done:until]
            # Keep what the next chunk may overlap, relative to this chunk's first sample.
            done = until - start
            mixture, voices = mixture[start:], voices[:, start:]


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A chunk: its mixture, and its position relative to the previous one.

    Attributes:
        mixture: float32 `[sample, channel]`.
        start: its first sample, relative to the first sample of the previous chunk.
        heard: whether there is speech in the overlap.
        last: whether it is the last chunk.
    """

    mixture: np.ndarray
    start: int
    heard: bool
    last: bool


def _cut(blocks: Iterable[np.ndarray], chunk: int, overlap: int) -> Iterator[_Cut]:
    source = _Source(blocks)
    source.fill(chunk + 1)
    if not len(source.samples):
        return
    last = len(source.samples) <= chunk
    yield _Cut(source.samples[:chunk], 0, False, last)
    while not last:
        loud = _loud_from_end(source.samples[:chunk])
        start = chunk - _shared(loud, chunk, overlap)
        source.fill(start + chunk + 1)
        last = len(source.samples) <= start + chunk
        if last:
            # The last chunk is full-length too: a longer overlap helps to match the voices.
            start = len(source.samples) - chunk
        heard = loud[(chunk - start) // schema.FRAME_LENGTH] >= _enough(overlap) / 4
        source.drop(start)
        yield _Cut(source.samples[:chunk], start, bool(heard), last)


def best_order(similarity: np.ndarray) -> np.ndarray:
    """Finds the later voice that continues each of the earlier ones.

    Args:
        similarity: `[earlier, later]`; larger means more similar.

    Returns:
        Indices of the later voices, `[earlier]`, that maximise the sum of similarities.
    """
    if len(similarity) == 2:
        straight, crossed = np.trace(similarity), similarity[0, 1] + similarity[1, 0]
        return np.array([1, 0] if crossed > straight else [0, 1])
    from scipy import optimize

    return optimize.linear_sum_assignment(similarity, maximize=True)[1]


class _Source:
    """The part of the recording in memory, from the first sample that is still needed."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self.samples = np.zeros((0, 1), np.float32)

    def fill(self, length: int) -> None:
        """Reads until there are `length` samples, or the recording ends."""
        parts = [self.samples] if len(self.samples) else []
        held = len(self.samples)
        while held < length:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(block)
            held += len(block)
        if parts:
            self.samples = np.concatenate(parts)

    def drop(self, length: int) -> None:
        self.samples = self.samples[length:]


class _Spectra:
    """The long-term spectrum of each voice so far, for overlaps in which it is silent."""

    def __init__(self, voices: np.ndarray) -> None:
        self._power = self._measure(voices)

    def add(self, voices: np.ndarray) -> None:
        self._power = self._power + self._measure(voices)

    def likeness(self, voices: np.ndarray) -> np.ndarray:
        """Computes the correlation of the spectra in dB, `[earlier, later]`."""
        return self._colour(self._power) @ self._colour(self._measure(voices)).T

    @staticmethod
    def _measure(voices: np.ndarray) -> np.ndarray:
        spectra = features.stft(voices.mean(axis=-1))
        return np.square(np.abs(spectra)).sum(axis=1, dtype=np.float64)

    @staticmethod
    def _colour(power: np.ndarray) -> np.ndarray:
        decibels = np.log10(power + 1e-20)
        decibels -= decibels.mean(axis=-1, keepdims=True)
        return decibels / (np.linalg.norm(decibels, axis=-1, keepdims=True) + 1e-20)


def _correlations(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Computes inner products of all pairs, `[earlier, later]`; a larger sum is a smaller distance.

    They are divided by the total energy of all voices, so louder voices count for more.
    """
    products = np.einsum("isc,jsc->ij", earlier, later, optimize=True).astype(np.float64)
    energy = np.linalg.norm(earlier.ravel()) * np.linalg.norm(later.ravel())
    return products / max(float(energy), 1e-30)


def _loud_from_end(mixture: np.ndarray) -> np.ndarray:
    """Counts how many of the last 0, 1, 2, … blocks of 256 samples are loud."""
    length = schema.FRAME_LENGTH
    blocks = mixture[len(mixture) % length :].reshape(-1, length * mixture.shape[1])
    power = np.square(blocks, dtype=np.float64).mean(axis=1)
    loud = (power >= power.max() * 10 ** (-_LOUD_RANGE_DB / 10)) & (power > 0)
    return np.concatenate([[0], np.cumsum(loud[::-1])])


def _shared(loud: np.ndarray, chunk: int, overlap: int) -> int:
    """Returns the overlap with the next chunk: enough loud blocks, but at most half a chunk.

    Args:
        loud: the result of `_loud_from_end`.
        chunk: samples in a chunk.
        overlap: the minimum overlap.
    """
    wanted = schema.FRAME_LENGTH * int(np.searchsorted(loud, _enough(overlap)))
    return min(max(overlap, wanted), chunk // 2)


def _enough(overlap: int) -> int:
    """Returns the number of loud blocks needed to match voices: half of `overlap`."""
    return max(1, overlap // (2 * schema.FRAME_LENGTH))


def _quietest(mixture: np.ndarray, first: int, last: int, fade: int) -> int:
    """Finds the centre of the quietest `fade` samples in the middle half of `first` to `last`."""
    quarter = (last - first) // 4
    power = np.square(mixture[first + quarter : last - quarter], dtype=np.float64).sum(axis=1)
    if len(power) <= fade or fade == 0:
        return (first + last) // 2
    total = np.cumsum(np.pad(power, (1, 0)))
    return first + quarter + fade // 2 + int(np.argmin(total[fade:] - total[:-fade]))


def _join(earlier: np.ndarray, later: np.ndarray, start: int, middle: int, fade: int) -> np.ndarray:
    """Joins two chunks with a cross-fade over `fade` samples around `middle`.

    The fade stays away from the ends of the chunks, where the network has little context.
    """
    first = middle - fade // 2
    weight = ((np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1))[:, np.newaxis]
    between = slice(first, first + fade)
    mixed = earlier[:, between] * (1 - weight)
    mixed += later[:, first - start : first - start + fade] * weight
    return np.concatenate([earlier[:, :first], mixed, later[:, first - start + fade :]], axis=1)
