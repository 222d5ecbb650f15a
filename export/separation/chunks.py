"""Long recordings in bounded memory: overlapping chunks whose voices keep their order.

A network puts its voices out in an order of its own, which may be another one in the next chunk.
Where two chunks overlap, both have estimated the same speech: the order of the later one is that
which fits the earlier one's estimates best; where nothing is said there, that which fits the
long-term spectra of the voices so far. Between the two the estimates are cross-faded with
weights that add up to one, so that the voices still add up to the mixture.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pipeline import features, schema

# Chunks are compared where they hold blocks that are at most so far below the loudest.
_LOUD_RANGE_DB = 30.0
# Against the correlation of what two chunks share: it decides between voices that are silent there.
_COLOUR_WEIGHT = 0.02
# A fade in a pause is this part of the overlap: 0.1 s of 5.
_PAUSE_FADES = 50

# From the mixtures [sample, channel] of some chunks of one length to the voices of each,
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
    """Separates a recording that comes in blocks.

    A recording of at most `chunk` samples is separated in one piece. All chunks of a longer one
    have that length; the last ends where the recording does. Two chunks share `overlap` samples, or
    more, up to half a chunk, where these hold too little speech to tell the voices apart.

    Args:
        blocks: float32 `[sample, channel]`, in order, of any lengths.
        separate: separates chunks.
        chunk: samples in a chunk.
        overlap: samples that two chunks share at least, at most half a chunk.
        at_once: most chunks that `separate` is given in one call.
        in_pauses: chunks meet where the mixture is quietest within what they share, and not in its
            middle.

    Yields:
        Pieces of the mixture, float32 `[sample, channel]`, and of its voices,
        `[source, sample, channel]`, which follow each other without gaps.

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
                # All positions are counted from the first sample of the chunk that is being left.
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
            # What the next chunk may share is kept, and counted from this chunk's first sample.
            done = until - start
            mixture, voices = mixture[start:], voices[:, start:]


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A chunk: its mixture, and how it lies to the one before.

    Attributes:
        mixture: float32 `[sample, channel]`.
        start: its first sample, counted from the first of the chunk before.
        heard: whether there is speech in what the two share.
        last: whether the recording ends with it.
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
            # It is a whole chunk too: what it hears twice helps to tell the voices apart.
            start = len(source.samples) - chunk
        heard = loud[(chunk - start) // schema.FRAME_LENGTH] >= _enough(overlap) / 4
        source.drop(start)
        yield _Cut(source.samples[:chunk], start, bool(heard), last)


def best_order(similarity: np.ndarray) -> np.ndarray:
    """Which of the later voices continues each of the earlier ones.

    Args:
        similarity: `[earlier, later]`, the greater the more alike.

    Returns:
        Indices into the later ones, `[earlier]`, whose similarities have the greatest sum.
    """
    if len(similarity) == 2:
        straight, crossed = np.trace(similarity), similarity[0, 1] + similarity[1, 0]
        return np.array([1, 0] if crossed > straight else [0, 1])
    from scipy import optimize

    return optimize.linear_sum_assignment(similarity, maximize=True)[1]


class _Source:
    """What is held of the recording: from the first sample that is still needed."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self.samples = np.zeros((0, 1), np.float32)

    def fill(self, length: int) -> None:
        """Reads on until there are `length` samples, or no more."""
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
    """The long-term spectrum of each voice so far, for seams at which it is silent."""

    def __init__(self, voices: np.ndarray) -> None:
        self._power = self._measure(voices)

    def add(self, voices: np.ndarray) -> None:
        self._power = self._power + self._measure(voices)

    def likeness(self, voices: np.ndarray) -> np.ndarray:
        """Correlation of the spectra in dB, `[earlier, later]`."""
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
    """Scalar products of all pairs, `[earlier, later]`: the greatest sum is the least distance.

    They are divided by the energy of all voices together, so that a loud one counts for more.
    """
    products = np.einsum("isc,jsc->ij", earlier, later, optimize=True).astype(np.float64)
    energy = np.linalg.norm(earlier.ravel()) * np.linalg.norm(later.ravel())
    return products / max(float(energy), 1e-30)


def _loud_from_end(mixture: np.ndarray) -> np.ndarray:
    """How many of the last 0, 1, 2, … blocks of 256 samples are loud."""
    length = schema.FRAME_LENGTH
    blocks = mixture[len(mixture) % length :].reshape(-1, length * mixture.shape[1])
    power = np.square(blocks, dtype=np.float64).mean(axis=1)
    loud = (power >= power.max() * 10 ** (-_LOUD_RANGE_DB / 10)) & (power > 0)
    return np.concatenate([[0], np.cumsum(loud[::-1])])


def _shared(loud: np.ndarray, chunk: int, overlap: int) -> int:
    """Samples that the next chunk shares with this one: enough loud blocks, if half of it will do.

    Args:
        loud: of `_loud_from_end`.
        chunk: samples in a chunk.
        overlap: the least that is shared.
    """
    wanted = schema.FRAME_LENGTH * int(np.searchsorted(loud, _enough(overlap)))
    return min(max(overlap, wanted), chunk // 2)


def _enough(overlap: int) -> int:
    """Loud blocks that tell voices apart: they fill half of `overlap`."""
    return max(1, overlap // (2 * schema.FRAME_LENGTH))


def _quietest(mixture: np.ndarray, first: int, last: int, fade: int) -> int:
    """The middle of the quietest `fade` samples in the middle half of `first` to `last`."""
    quarter = (last - first) // 4
    power = np.square(mixture[first + quarter : last - quarter], dtype=np.float64).sum(axis=1)
    if len(power) <= fade or fade == 0:
        return (first + last) // 2
    total = np.cumsum(np.pad(power, (1, 0)))
    return first + quarter + fade // 2 + int(np.argmin(total[fade:] - total[:-fade]))


def _join(earlier: np.ndarray, later: np.ndarray, start: int, middle: int, fade: int) -> np.ndarray:
    """One after the other, cross-faded over `fade` samples about `middle`.

    Near its ends a chunk has heard little of what surrounds it, so the fade keeps clear of them.
    """
    first = middle - fade // 2
    weight = ((np.arange(fade, dtype=np.float32) + 0.5) / max(fade, 1))[:, np.newaxis]
    between = slice(first, first + fade)
    mixed = earlier[:, between] * (1 - weight)
    mixed += later[:, first - start : first - start + fade] * weight
    return np.concatenate([earlier[:, :first], mixed, later[:, first - start + fade :]], axis=1)
