"""Separates a stream as it arrives, in bounded memory.

    stream = Stream("exported/lstm", gain_db=3)
    for samples in microphone:
        voices = stream.feed(samples)  # [source, sample], as many as are available by now
    rest = stream.finish()

The concatenated output equals the model's output for the whole recording at that gain, however the
samples are split into blocks.
"""

import os

import numpy as np
import soxr

from export import pretrained
from export.separation import full_band, loading
from pipeline import errors
from pipeline.audio import limits

_QUALITY = "HQ"
# Exceeds the model samples lost by the resamplers' rounding.
_SPARE_SAMPLES = 8
# Maximum number of samples per call of the model, to limit memory.
_AT_ONCE = 2**14


class Stream:
    """Separates one stream of samples, whose level is not known in advance.

    Attributes:
        model: the model that separates.
        rate: rate of the input and output samples, in Hz.
        delay: the model's algorithmic delay, by which voices lag behind the mixture, in samples at
            `rate`. Waiting for a `block` to fill adds half a block on average, and resampling adds
            the delay of soxr's filters in both directions.
        block: in samples at the model's rate; it is called with multiples of this.
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
            model: a model with a causal network, or its path (`export.separation.loading.load`).
            gain_db: gain applied to the mixture before the network. Ideally it brings the speech to
                the level at which the network was trained, `active_level_db` in
                `voices_apart.json`. The voices have the mixture's level.
            rate: the samples' rate in Hz, by default the model's. Other rates are resampled.
            block_seconds: duration of the blocks passed to the model, rounded to a multiple of its
                hop; at least one hop, which is the default. Longer blocks need less computation,
                but add their duration to the delay.
            band: at rates above the model's, `full` divides the frequencies above its band between
                the voices, which then add up to the mixture; `model` omits them.

        Raises:
            UserError: there is no such model, it is not causal, or the rate is impossible.
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
        # The first call builds the graph, for a second or more: do it before samples arrive.
        model.stream(np.zeros((1, self.block), np.float32), 0, gain_db, self._state)
        self._waiting = np.zeros(0, np.float32)
        self._taken = self._given = 0  # At `rate`.
        self._heard = 0  # At the model's rate.
        self._due = -self._lag  # The voices' samples from the model; negative during the lag.
        self._finished = False
        self._there = self._back = None
        self._upper: full_band.Follower | None = None
        self._mixture = np.zeros(0, np.float32)  # At `rate`, from the first unreturned sample.
        if self.rate != model.sample_rate:
            rates, kind = (self.rate, model.sample_rate), {"dtype": "float32", "quality": _QUALITY}
            self._there = soxr.ResampleStream(*rates, 1, **kind)
            self._back = soxr.ResampleStream(*rates[::-1], model.num_sources, **kind)
            if band == "full":
                self._upper = full_band.Follower(model.num_sources, model.sample_rate)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples and returns the voices available by now.

        Args:
            samples: `[sample]`, any number of them, float with full scale 1.

        Returns:
            float32 `[source, sample]`, continuing the previous result.

        Raises:
            ValueError: the shape or type is not supported, or the stream has ended.
            UserError: the samples or the model's output have values that are not finite.
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
        """Ends the stream and returns the rest of the voices, up to the mixture's length."""
        if self._finished:
            raise ValueError("the stream has ended")
        self._finished = True
        parts = []
        if self._there is not None:
            # Rounding of lengths in both resamplings must not lose the last samples.
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
        """Runs the model on all complete blocks of the pending and the given samples."""
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
        """Runs the model on complete blocks and drops output from before the beginning."""
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
        """Resamples the voices to `rate`, in total at most as many samples as were taken."""
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
