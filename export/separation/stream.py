"""The voices of a stream, as it comes, in bounded memory.

    stream = Stream("exported/lstm", gain_db=3)
    for samples in microphone:
        voices = stream.feed(samples)  # [source, sample], as many as are known by now
    rest = stream.finish()

All that comes out, put together, is what the model gives for the whole recording at that gain,
whatever the blocks are.
"""

import os

import numpy as np
import soxr

from export import pretrained
from export.separation import full_band, loading
from pipeline import errors
from pipeline.audio import limits

_QUALITY = "HQ"
# More model samples than the resamplers' rounding loses.
_SPARE_SAMPLES = 8
# Samples that the model is handed in one call at most: what it needs for them is memory.
_AT_ONCE = 2**14


class Stream:
    """Separates one stream of samples, whose level is not known before its end.

    Attributes:
        model: separates.
        rate: of the samples, in and out, in Hz.
        delay: in samples at `rate`, by which voices lag behind the mixture: the model's algorithmic
            delay. To it comes, on the average, half a `block`, which has to fill; and at another
            rate than the model's what soxr's filters need, there and back.
        block: in samples of the model: it is handed a multiple of so many.
    """

    def __init__(
        self,
        model: loading.LoadedModel | str | os.PathLike[str],
        *,
        gain_db: float,
        rate: int | None = None,
        block_seconds: float = 0.0,
        band: str = "full",
    ) -> None:
        """Begins a stream.

        Args:
            model: whose network is causal; or its path (`export.separation.loading.load`).
            gain_db: what the mixture is changed by before the network sees it. Best is what brings
                its speech to the level that the network was trained at, which stands in
                `voices_apart.json` as `active_level_db`. The voices have the mixture's level.
            rate: of the samples, in Hz; by default the model's. Another one is resampled.
            block_seconds: that the model is handed at a time, to the nearest whole hop of its own,
                and one hop at least; by default just that. Longer blocks take less
                computing, and add their length to the delay.
            band: `full`: at a higher rate than the model's, what lies above its band is divided
                between the voices, which add up to the mixture; `model`: it is left out.

        Raises:
            UserError: there is no such model, it is not causal, or no recording has such a rate.
        """
        if not isinstance(model, loading.LoadedModel):
            model = loading.load(pretrained.resolve(os.fspath(model)))
        if band not in ("full", "model"):
            raise ValueError(f"band is 'full' or 'model', not {band!r}")
        if not np.isfinite(gain_db):
            raise ValueError(f"gain_db is {gain_db}")
        self.model = model
        self._state = model.initial_state()
        assert model.info.stream is not None
        hop, self._lag = model.info.stream.hop, model.info.stream.delay
        self.rate = model.sample_rate if rate is None else rate
        limits.check_rate_and_channels(self.rate, 1)
        self.delay = -(-self._lag * self.rate // model.sample_rate)
        self.block = hop * max(1, round(block_seconds * model.sample_rate / hop))
        self._gain_db = gain_db
        # The first call sets the graph up, for a second or more: before there are samples to wait.
        model.stream(np.zeros((1, self.block), np.float32), 0, gain_db, self._state)
        self._waiting = np.zeros(0, np.float32)
        self._taken = self._given = 0  # At `rate`.
        self._heard = 0  # At the model's.
        self._due = -self._lag  # Voices' samples that the model has given; what is below 0 is none.
        self._finished = False
        self._there = self._back = None
        self._upper: full_band.Follower | None = None
        self._mixture = np.zeros(0, np.float32)  # At `rate`, from the first sample not yet given.
        if self.rate != model.sample_rate:
            rates, kind = (self.rate, model.sample_rate), {"dtype": "float32", "quality": _QUALITY}
            self._there = soxr.ResampleStream(*rates, 1, **kind)
            self._back = soxr.ResampleStream(*rates[::-1], model.num_sources, **kind)
            if band == "full":
                self._upper = full_band.Follower(model.num_sources, model.sample_rate)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples, and gives what is known of the voices by now.

        Args:
            samples: `[sample]`, any number of them, float with full scale 1.

        Returns:
            float32 `[source, sample]`: what follows on what was given before.

        Raises:
            ValueError: samples of another shape or type, or after the end.
            UserError: samples that are NaN or infinite, or a model that gives such.
        """
        samples = np.asarray(samples)
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError(
                f"samples are [sample] of float, not {samples.dtype} of shape {samples.shape}"
            )
        if self._finished:
            raise ValueError("the stream has ended")
        if not np.isfinite(samples).all():
            raise errors.UserError("the stream holds samples that are NaN or infinite")
        self._taken += len(samples)
        samples = samples.astype(np.float32)
        if self._upper is not None:
            self._mixture = np.concatenate([self._mixture, samples])
        if self._there is not None:
            samples = self._there.resample_chunk(samples)
        return self._out(self._separate(samples))

    def finish(self) -> np.ndarray:
        """Ends the stream; gives the rest of the voices, so that all have the mixture's length."""
        if self._finished:
            raise ValueError("the stream has ended")
        self._finished = True
        parts = []
        if self._there is not None:
            # Rounding of lengths, there and back, must not cost the last samples.
            spare = np.zeros(-(-_SPARE_SAMPLES * self.rate // self.model.sample_rate), np.float32)
            parts.append(self._separate(self._there.resample_chunk(spare, last=True)))
        while self._due < self._heard + len(self._waiting):
            length = len(self._waiting)
            padded = np.pad(self._waiting, (0, -length % self.block or (not length) * self.block))
            self._waiting = padded[:0]
            parts.append(self._step(padded, length))
            if self._due >= self._heard:
                parts[-1] = parts[-1][:, : parts[-1].shape[1] - (self._due - self._heard)]
        nothing = np.zeros((self.model.num_sources, 0), np.float32)
        return self._out(np.concatenate([nothing, *parts], axis=1), last=True)

    def _separate(self, samples: np.ndarray) -> np.ndarray:
        """What the model gives for all whole blocks of what waits and these samples."""
        samples = np.concatenate([self._waiting, samples])
        whole = len(samples) // self.block * self.block
        self._waiting = samples[whole:].copy()
        at_once = max(1, _AT_ONCE // self.block) * self.block
        parts = [np.zeros((self.model.num_sources, 0), np.float32)]
        for first in range(0, whole, at_once):
            part = samples[first : min(first + at_once, whole)]
            parts.append(self._step(part, len(part)))
        return np.concatenate(parts, axis=1)

    def _step(self, samples: np.ndarray, length: int) -> np.ndarray:
        """What the model gives for whole blocks, less what lies before the beginning."""
        voices, self._state = self.model.stream(
            samples[np.newaxis], length, self._gain_db, self._state
        )
        if not np.isfinite(voices).all():
            raise errors.UserError(
                f"{self.model.path}: the model gives values that are no numbers; train or export "
                "it again"
            )
        early = min(max(-self._due, 0), len(samples))
        self._due += len(samples)
        self._heard += length
        return voices[0, :, early:]

    def _out(self, voices: np.ndarray, last: bool = False) -> np.ndarray:
        """The voices at `rate`, in all no more of them than samples that were taken."""
        if self._back is not None:
            if self._upper is not None:
                self._upper.hear(voices)
            flat = np.ascontiguousarray(voices.T)
            voices = self._back.resample_chunk(flat, last=last).T[:, : self._taken - self._given]
        if self._upper is not None:
            count = voices.shape[1]
            voices = self._upper.add(voices, self._mixture[:count], self._given, self.rate)
            self._mixture = self._mixture[count:]
        self._given += voices.shape[1]
        return np.ascontiguousarray(voices)
