"""Separates a recorded conversation into one consistent, full-band signal per person.

The recording is processed in two passes. First the model separates it in chunks; its output is kept
in a temporary file at the model's rate, and is used to find who speaks when. Then each person's
signal is assembled at the recording's own rate and bandwidth.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from export.conversations import channels as channels_lib
from export.conversations import routing, speakers
from export.separation import full_band, loading, long_audio, spool
from pipeline import errors
from pipeline.audio import decoding

BANDS = ("full", "model")
CHANNELS = ("auto", "mix", "separate")
SEPARATING, WRITING = "separating", "writing"
MIX, SEPARATE = "mix", "separate"
_BLOCK = 2**16

# Returns the recording's blocks from the start, float32 [sample, channel], at every call.
Blocks = Callable[[], Iterable[np.ndarray]]
# Called with the stage and the number of samples of the recording processed so far.
Progress = Callable[[str, int], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """How a recording is separated.

    Attributes:
        band: `full` divides the whole recording between the voices; `model` omits frequencies above
            half the model's rate.
        gate: where one person speaks alone, give the whole recording to that person's voice.
        track: recognise persons by voice after a pause; otherwise pieces are only matched by their
            overlap. None means yes, except with `band="model"` and without `gate`, which then give
            just the model's output.
        channels: `mix` separates with the model; `separate` assumes one speaker on each of two
            channels and needs no model; `auto` detects which.
        chunk_seconds: longer recordings are separated in pieces of this length.
        overlap_seconds: minimum overlap of two pieces; by default 5, or half a piece if that is
            less.
    """

    band: str = "full"
    gate: bool = True
    track: bool | None = None
    channels: str = "auto"
    chunk_seconds: float = long_audio.CHUNK_SECONDS
    overlap_seconds: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown option."""
        for name, known in (("band", BANDS), ("channels", CHANNELS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {known}, not {getattr(self, name)!r}")

    @property
    def tracks(self) -> bool:
        """Whether persons are recognised by voice."""
        return self.gate or self.band == "full" if self.track is None else self.track


class Conversation:
    """The separation of one recording.

    Attributes:
        mode: `mix` or `separate`, known once `pieces` has begun.
        notes: what the user has to know, also known once `pieces` has begun.
    """

    def __init__(
        self,
        blocks: Blocks,
        rate: int,
        model: loading.LoadedModel,
        options: Options | None = None,
        *,
        offset: np.ndarray | None = None,
        listeners: Iterable[long_audio.Listener] = (),
        progress: Progress | None = None,
    ) -> None:
        """Stores the task; `pieces` carries it out.

        Args:
            blocks: returns the recording; called up to three times.
            rate: in Hz.
            model: the model that separates.
            options: by default the defaults of `Options`.
            offset: float32 `[channel]`, removed before the model (`long_audio.find_offset`); each
                voice gets an equal share of it back.
            listeners: called with the mixture and its voices at the model's rate, in their final
                order.
            progress: called with the progress; may raise to stop the separation.
        """
        self._blocks = lambda: long_audio.without(offset, blocks())
        self._offset, self._rate, self._model = offset, rate, model
        self._options = options or Options()
        self._listeners = tuple(listeners)
        self._progress = progress or (lambda stage, samples: None)
        self.mode = MIX
        self.notes: tuple[str, ...] = ()

    def pieces(self) -> Iterator[np.ndarray]:
        """Yields the voices, float32 `[source, sample, channel]` at the recording's rate.

        Raises:
            UserError: the model's output has values that are not finite, or there is no room for a
                temporary file.
            OSError: a temporary file cannot be created.
        """
        for piece in self._pieces():
            share = None if self._offset is None else self._offset / np.float32(len(piece))
            yield piece if share is None else piece + share

    def _pieces(self) -> Iterator[np.ndarray]:
        options = self._options
        crosstalk = None
        if options.channels != MIX:
            crosstalk = channels_lib.examine(
                self._blocks(), self._rate, options.channels == SEPARATE, self._model.num_sources
            )
        if crosstalk is not None:
            self.mode = SEPARATE
            self.notes = (crosstalk.note(),)
            yield from self._heard(crosstalk.voices(self._told(self._blocks(), WRITING)))
        elif options.band == "model" and not (options.gate or options.tracks):
            yield from long_audio.voices_of(
                self._told(self._blocks(), SEPARATING),
                self._rate,
                self._model,
                chunk_seconds=options.chunk_seconds,
                overlap_seconds=options.overlap_seconds,
                listeners=self._listeners,
            )
        else:
            with spool.Spool() as kept:
                yield from self._in_two_passes(kept)

    def _told(self, blocks: Iterable[np.ndarray], stage: str) -> Iterator[np.ndarray]:
        done = 0
        for block in blocks:
            yield block
            done += len(block)
            self._progress(stage, done)

    def _heard(self, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the pieces and passes them to the listeners at the model's rate."""
        if not self._listeners:
            yield from pieces
            return
        shape: tuple[int, int] | None = None
        waiting: list[np.ndarray] = []
        rate, model_rate = self._rate, self._model.sample_rate

        def flat() -> Iterator[np.ndarray]:
            nonlocal shape
            for piece in pieces:
                shape = (piece.shape[0], piece.shape[2])
                waiting.append(piece)
                yield _flat(piece)
            # Listeners are also called for a recording of a single sample.
            if shape is not None and rate != model_rate:
                spare = long_audio.num_spare(rate, model_rate)
                yield np.zeros((spare, shape[0] * shape[1]), np.float32)

        for low in decoding.resample_blocks(flat(), rate, model_rate):
            assert shape is not None
            voices = low.reshape(-1, *shape).transpose(1, 0, 2)
            for listener in self._listeners:
                listener(voices.sum(axis=0), voices)
            while waiting:
                yield waiting.pop(0)
        yield from waiting

    def _in_two_passes(self, kept: spool.Spool) -> Iterator[np.ndarray]:
        options, model = self._options, self._model
        counted = long_audio.Counted(self._told(self._blocks(), SEPARATING))
        num_channels = 1
        pieces = long_audio.model_voices(
            counted, self._rate, model,
            chunk_seconds=options.chunk_seconds, overlap_seconds=options.overlap_seconds,
            in_pauses=options.tracks,
        )  # fmt: skip
        for _, voices in pieces:
            num_channels = voices.shape[2]
            kept.append(voices.transpose(1, 0, 2).reshape(voices.shape[1], -1))
        if not kept.num_samples:
            return
        shape = (model.num_sources, num_channels)
        plan = routing.Routing.constant()
        if model.num_sources == 2 and (options.gate or options.tracks):
            plan = speakers.find(
                kept, num_channels, model.sample_rate, gate=options.gate, track=options.tracks
            )
        if options.band == "model":
            found = self._within_model_band(kept, shape, plan)
        else:
            found = self._full_band(kept, shape, plan)
        given = 0
        for piece in found:
            piece = piece[:, : counted.num_samples - given]
            given += piece.shape[1]
            if piece.shape[1]:
                yield piece
                self._progress(WRITING, given)
        if given != counted.num_samples:
            raise errors.UserError("the recording changed while it was read")

    def _outputs(self, kept: spool.Spool, shape: tuple[int, int]) -> Iterator[np.ndarray]:
        """Yields the model's outputs block by block, `[source, sample, channel]`."""
        for first in range(0, kept.num_samples, _BLOCK):
            block = kept.read(first, min(first + _BLOCK, kept.num_samples))
            yield block.reshape(-1, *shape).transpose(1, 0, 2)

    def _routed(
        self, kept: spool.Spool, shape: tuple[int, int], plan: routing.Routing
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields the model's outputs and the ordered voices; passes the latter to listeners."""
        first = 0
        for outputs in self._outputs(kept, shape):
            voices = plan.route(outputs, first, self._model.sample_rate)
            first += outputs.shape[1]
            for listener in self._listeners:
                listener(voices.sum(axis=0), voices)
            yield outputs, voices

    def _within_model_band(
        self, kept: spool.Spool, shape: tuple[int, int], plan: routing.Routing
    ) -> Iterator[np.ndarray]:
        blocks = (_flat(voices) for _, voices in self._routed(kept, shape, plan))
        for block in decoding.resample_blocks(blocks, self._model.sample_rate, self._rate):
            yield block.reshape(-1, *shape).transpose(1, 0, 2)

    def _full_band(
        self, kept: spool.Spool, shape: tuple[int, int], plan: routing.Routing
    ) -> Iterator[np.ndarray]:
        """Yields the model's outputs with their shares of what the model leaves out."""
        shares = full_band.shares_of(kept, shape)
        mixture = _Buffer(self._blocks())
        blocks = (_flat(outputs) for outputs, _ in self._routed(kept, shape, plan))
        first = 0
        for block in decoding.resample_blocks(blocks, self._model.sample_rate, self._rate):
            outputs = block.reshape(-1, *shape).transpose(1, 0, 2)
            sound = mixture.take(outputs.shape[1])
            outputs = outputs[:, : len(sound)]
            times = np.arange(first, first + len(sound)) / self._rate
            outputs = full_band.add(outputs, sound, shares, times, self._model.sample_rate)
            if len(outputs) == 2:
                outputs = plan.route(outputs, first, self._rate)
            yield outputs
            first += len(sound)


def _flat(voices: np.ndarray) -> np.ndarray:
    """Reshapes `[source, sample, channel]` to `[sample, source · channel]`."""
    return np.ascontiguousarray(voices.transpose(1, 0, 2)).reshape(voices.shape[1], -1)


class _Buffer:
    """Regroups blocks of samples into other lengths."""

    def __init__(self, blocks: Iterable[np.ndarray]) -> None:
        self._blocks = iter(blocks)
        self._held: list[np.ndarray] = []

    def take(self, length: int) -> np.ndarray:
        """Returns the next samples, fewer at the end."""
        have = sum(map(len, self._held))
        while have < length:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held.append(block)
            have += len(block)
        joined = np.concatenate(self._held) if self._held else np.zeros((0, 1), np.float32)
        self._held = [joined[length:]]
        return joined[:length]


def spooled(blocks: Iterable[np.ndarray], stack: contextlib.ExitStack) -> Blocks:
    """Makes blocks that can be read only once readable repeatedly.

    Args:
        blocks: float32 `[sample, channel]`.
        stack: closes the temporary file.
    """
    kept = stack.enter_context(spool.Spool())
    for block in blocks:
        kept.append(block)
    places = range(0, kept.num_samples, _BLOCK)
    return lambda: (kept.read(i, min(i + _BLOCK, kept.num_samples)) for i in places)
