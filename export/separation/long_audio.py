"""Separates a recording of any rate, number of channels and length, block by block."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from export.separation import chunks, loading
from pipeline import errors, features
from pipeline.audio import decoding

CHUNK_SECONDS = 60.0
OVERLAP_SECONDS = 5.0

# A voice this far below the loudest is not counted as one.
_NOTHING_DB = -30.0
# An estimate is a copy of the mixture if the difference is this far below.
_COPY_DB = -20.0
# Exceeds the model samples lost by the resamplers' rounding.
_SPARE_SAMPLES = 8
_BLOCK = 2**16
# Signals per call of the model: a recurrent network takes as long for four as for one, and each
# minute-long signal needs some 100 MB. All channels of that many chunks are held in memory.
_AT_ONCE = 4

# A constant offset is estimated over this many seconds, and ignored below this fraction of the
# deviation: it would change the model's input level by 0.04 dB.
_OFFSET_SECONDS = 10.0
OFFSET_SHARE = 0.1

# Called with pieces of the mixture [sample, channel] and its voices [source, sample, channel].
Listener = Callable[[np.ndarray, np.ndarray], None]


def voices_of(
    blocks: Iterable[np.ndarray],
    rate: int,
    model: loading.LoadedModel,
    *,
    offset: np.ndarray | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    overlap_seconds: float | None = None,
    listeners: Iterable[Listener] = (),
) -> Iterator[np.ndarray]:
    """Separates a recording given in blocks, in memory that does not grow with its length.

    It is resampled to the model's rate and separated, and the voices are resampled back.

    Args:
        blocks: float32 `[sample, channel]`, in order.
        rate: in Hz.
        model: the model that separates.
        offset: float32 `[channel]`, removed before the model (`find_offset`); each voice gets an
            equal share of it back.
        chunk_seconds: longer recordings are separated in pieces of this length.
        overlap_seconds: minimum overlap of two pieces; by default `OVERLAP_SECONDS`, or half a
            piece if that is less.
        listeners: called with the model's input and output, at its rate.

    Yields:
        float32 `[source, sample, channel]` at `rate`, with as many samples in total as the input.
        The voices add up to the recording, within the band of the model's rate.

    Raises:
        UserError: the model's output has values that are not finite.
    """
    counted = Counted(without(offset, blocks))
    pieces = model_voices(
        counted, rate, model, chunk_seconds=chunk_seconds, overlap_seconds=overlap_seconds
    )
    shape = (model.num_sources, 1)

    def separated() -> Iterator[np.ndarray]:
        nonlocal shape
        for mixture, voices in pieces:
            for listener in listeners:
                listener(mixture, voices)
            shape = (voices.shape[0], voices.shape[2])
            flat = voices.transpose(1, 0, 2).reshape(voices.shape[1], -1)
            for first in range(0, len(flat), _BLOCK):
                yield np.ascontiguousarray(flat[first : first + _BLOCK])

    given = 0
    for block in decoding.resample_blocks(separated(), model.sample_rate, rate):
        block = block[: counted.num_samples - given]
        given += len(block)
        if len(block):
            voices = block.reshape(-1, *shape).transpose(1, 0, 2)
            yield voices if offset is None else voices + offset / np.float32(shape[0])


def model_voices(
    blocks: Iterable[np.ndarray],
    rate: int,
    model: loading.LoadedModel,
    *,
    chunk_seconds: float = CHUNK_SECONDS,
    overlap_seconds: float | None = None,
    in_pauses: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Separates a recording given in blocks and yields the result at the model's rate.

    Args:
        blocks: float32 `[sample, channel]`, in order, without an offset.
        rate: in Hz.
        model: the model that separates.
        chunk_seconds: longer recordings are separated in pieces of this length.
        overlap_seconds: minimum overlap of two pieces; by default `OVERLAP_SECONDS`, or half a
            piece if that is less.
        in_pauses: see `chunks.separate_blocks`.

    Yields:
        Pieces of the mixture, float32 `[sample, channel]`, and of its voices,
        `[source, sample, channel]`. In total they have a few samples more than the recording, so
        that rounding of lengths when resampling back does not lose the last ones.

    Raises:
        UserError: the model's output has values that are not finite.
    """
    model_rate = model.sample_rate
    if overlap_seconds is None:
        overlap_seconds = min(OVERLAP_SECONDS, chunk_seconds / 2)
    blocks = iter(blocks)
    first_block = next(blocks, None)
    if first_block is None:
        return
    blocks = itertools.chain([first_block], blocks)

    def with_spare() -> Iterator[np.ndarray]:
        yield from blocks
        if rate != model_rate:
            yield np.zeros((num_spare(rate, model_rate), first_block.shape[1]), np.float32)

    yield from chunks.separate_blocks(
        decoding.resample_blocks(with_spare(), rate, model_rate),
        lambda mixtures: _separate_chunks(model, mixtures),
        chunk=round(chunk_seconds * model_rate),
        overlap=round(overlap_seconds * model_rate),
        at_once=max(1, min(_AT_ONCE, 2 * _AT_ONCE // first_block.shape[1])),
        in_pauses=in_pauses,
    )


def num_spare(rate: int, model_rate: int) -> int:
    """Returns how many samples to append at `rate` so that resampling does not lose any."""
    return -(-_SPARE_SAMPLES * rate // model_rate)


class Counted:
    """Iterates over blocks and counts their samples.

    Attributes:
        num_samples: number of samples so far.
    """

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        """Starts at 0."""
        self._blocks = blocks
        self.num_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.num_samples += len(block)
            yield block


def find_offset(
    blocks: Iterable[np.ndarray], rate: int
) -> tuple[np.ndarray | None, Iterator[np.ndarray]]:
    """Estimates a recording's constant (DC) offset, such as from a badly adjusted converter.

    Models are not trained on such recordings: an offset of 0.4 costs 7 dB.

    Args:
        blocks: float32 `[sample, channel]`, in order; only as many as needed are read.
        rate: in Hz.

    Returns:
        The offset and all blocks. The offset is float32 `[channel]`: the mean of the first ten
        seconds if it exceeds a tenth of their deviation, else 0; None if no channel has an offset,
        or under one second.
    """
    blocks = iter(blocks)
    first: list[np.ndarray] = []
    while (
        sum(map(len, first)) < _OFFSET_SECONDS * rate and (block := next(blocks, None)) is not None
    ):
        first.append(block)
    heard = np.concatenate(first) if first else np.zeros((0, 1), np.float32)
    every = itertools.chain(first, blocks)
    if len(heard) < rate:
        return None, every
    mean = heard.mean(axis=0, dtype=np.float64)
    deviation = heard.std(axis=0, dtype=np.float64)
    offset = np.where(np.abs(mean) > OFFSET_SHARE * deviation, mean, 0).astype(np.float32)
    return (offset if offset.any() else None), every


def offset_notes(offset: np.ndarray | None) -> tuple[str, ...]:
    """Returns the notes to the user about the result of `find_offset`."""
    if offset is None:
        return ()
    values = ", ".join(f"{value:.3g}" for value in offset)
    return (f"has a constant offset ({values}), of which each voice has an equal share",)


def without(offset: np.ndarray | None, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Subtracts a constant from the blocks."""
    for block in blocks:
        yield block if offset is None else block - offset


class Tally:
    """Measures the voices, to detect outputs that are silent or copies of the input."""

    def __init__(self, num_sources: int) -> None:
        """Starts without any samples."""
        self._mixture = 0.0
        self._voices = np.zeros(num_sources)
        self._products = np.zeros(num_sources)

    def __call__(self, mixture: np.ndarray, voices: np.ndarray) -> None:
        """Adds one piece, `[sample, channel]` and `[source, sample, channel]`."""
        sound, parts = mixture.astype(np.float64), voices.astype(np.float64)
        self._mixture += float(np.square(sound).sum())
        self._voices += np.square(parts).sum(axis=(1, 2))
        self._products += np.einsum("snc,nc->s", parts, sound)

    def note(self, by_model: bool = True) -> str:
        """What the user has to know about the result; empty if voices were separated.

        Args:
            by_model: whether the model has separated them, or else they are the channels.
        """
        if self._mixture == 0:
            return "is silent within the model's band, and so are its voices"
        if not by_model:
            return ""
        nothing = 10 ** (_NOTHING_DB / 10)
        loudest = int(np.argmax(self._voices))
        weak = self._voices < nothing * self._voices[loudest]
        if weak.sum() == len(weak) - 1:
            return (
                f"the model finds one voice only: the others are more than {-_NOTHING_DB:.0f} dB "
                f"below voice {loudest + 1}, which is the recording as it was"
            )
        others = self._voices - np.square(self._products) / self._mixture
        copies = weak | (others < 10 ** (_COPY_DB / 10) * self._voices)
        if copies.all():
            return (
                "the model does not tell the voices apart: each output is the recording itself, "
                "at another level"
            )
        return ""


def _separate_chunks(
    model: loading.LoadedModel, mixtures: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Separates mixtures `[sample, channel]` into voices `[source, sample, channel]`.

    Each channel is separated on its own, so its voices add up to it with any network. The order of
    the voices is decided by the mean of the channels, which contains all speakers even if each
    channel has its own (two sides of a telephone call).
    """
    signals = [_signals(mixture) for mixture in mixtures]
    rows = np.concatenate(signals)
    voices = [_run(model, rows[i : i + _AT_ONCE]) for i in range(0, len(rows), _AT_ONCE)]
    ends = np.cumsum([len(rows) for rows in signals])
    return [
        _ordered(part, mixture.shape[1])
        for part, mixture in zip(np.split(np.concatenate(voices), ends[:-1]), mixtures, strict=True)
    ]


def _signals(mixture: np.ndarray) -> np.ndarray:
    """Returns the signals to separate, `[row, sample]`: a reference, followed by the channels.

    The reference is the mean of the channels, or the loudest channel if they cancel out in the
    mean. Identical channels are reduced to one row.
    """
    channels = np.ascontiguousarray(mixture.T)
    if (channels == channels[0]).all():
        return channels[:1]
    mean = channels.mean(axis=0)
    powers = np.square(channels, dtype=np.float64).mean(axis=1)
    cancelled = np.square(mean, dtype=np.float64).mean() < 0.05 * powers.mean()
    reference = channels[np.argmax(powers)] if cancelled else mean
    return np.concatenate([reference[np.newaxis], channels])


def _ordered(voices: np.ndarray, num_channels: int) -> np.ndarray:
    """Orders the voices `[row, source, sample]` of `_signals`, `[source, sample, channel]`."""
    if len(voices) == 1:
        return np.repeat(voices[0][..., np.newaxis], num_channels, axis=2)
    # Magnitudes, because distant microphones receive the same voice with different delays.
    guide = _magnitudes(voices[0])
    channels = []
    for channel in voices[1:]:
        similarity = np.einsum("ifb,jfb->ij", guide, _magnitudes(channel), optimize=True)
        channels.append(channel[chunks.best_order(similarity)])
    return np.stack(channels, axis=2)


def _run(model: loading.LoadedModel, rows: np.ndarray) -> np.ndarray:
    voices = model.separate(rows)
    if not np.isfinite(voices).all():
        raise errors.UserError(
            f"{model.path}: the model gives values that are no numbers; train or export it again"
        )
    return voices


def _magnitudes(voices: np.ndarray) -> np.ndarray:
    return np.abs(features.stft(voices))
