"""Dynamic mixing: every batch is mixed anew and depends only on the seed and its number.

N. Zeghidour, D. Grangier: "Wavesplit: end-to-end speech separation by speaker clustering", IEEE/ACM
Transactions on Audio, Speech, and Language Processing 29, 2021, show its benefit.

The batches are a `keras.utils.PyDataset`, which prefetches in threads on every backend, even if
TensorFlow cannot be imported.
"""

import dataclasses
import math
import threading
import time
from typing import Any

import keras
import numpy as np
import soxr

from pipeline import plan, schema
from trainer.data import acoustics, clean_utterances, sparse


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings for drawing mixtures.

    Attributes:
        num_sources: number of voices, each of a different speaker.
        num_samples: number of samples in a window.
        batch_size: number of windows in a batch.
        sample_rate: sample rate, in Hz.
        max_snr_db: largest level difference of two voices, in dB; with more voices, the level of
            each changes by up to half of it.
        speed: largest relative speed change of a voice. Pitch, formants and rate change together,
            which simulates new speakers.
        noise: share of mixtures with added noise.
        noise_snr_db: lowest and highest level of all voices together relative to the noise.
        rooms: share of mixtures with reverberation; the targets are reverberant.
        sparse: share of mixtures in which not all voices are active all the time; see
            `sparse.envelopes`.
        seed: seed of all draws.
    """

    num_sources: int = 2
    num_samples: int = 32000
    batch_size: int = 16
    sample_rate: int = schema.DEFAULT_SAMPLE_RATE
    max_snr_db: float = 5.0
    speed: float = 0.0
    noise: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 25.0)
    rooms: float = 0.0
    sparse: float = 0.0
    seed: int = 0


class Mixer:
    """Draws mixtures of utterances.

    Args:
        store: utterances to draw from.
        settings: settings.
        surroundings: source of noise and room responses.
    """

    def __init__(
        self,
        store: clean_utterances.Utterances,
        settings: Settings,
        surroundings: acoustics.Surroundings | None = None,
    ) -> None:
        if len(store.by_speaker) < settings.num_sources:
            raise ValueError(
                f"mixtures of {settings.num_sources} voices need at least {settings.num_sources} "
                f"speakers; there is only {len(store.by_speaker)}"
            )
        self.store = store
        self.settings = settings
        # Per speaker, the cumulative share of speech up to the end of each utterance.
        self._shares = [_shares(store, own) for own in store.by_speaker]
        self.surroundings = surroundings or acoustics.Surroundings(settings.sample_rate)

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Returns batch `number` of the run.

        Returns:
            `sources`, float32 `[batch, source, sample]`, full scale 1; with noise also `noise`,
            float32 `[batch, sample]`. The mixture is their sum.
        """
        size = self.settings.batch_size
        rows = [self.mixture(number * size + row) for row in range(size)]
        batch = {"sources": np.stack([sources for sources, _ in rows])}
        if self.settings.noise:
            batch["noise"] = np.stack([noise for _, noise in rows])
        return batch

    def mixture(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns mixture `number`: voices `[source, sample]` and noise `[sample]`, float32."""
        settings = self.settings
        # A generator keyed by seed and number makes each mixture independent of earlier draws.
        random = np.random.Generator(np.random.Philox(key=[settings.seed, number]))
        speakers = random.choice(
            len(self.store.by_speaker), settings.num_sources, replace=False, shuffle=True
        )
        sources = np.stack([self._voice(random, speaker) for speaker in speakers])
        if settings.sparse and random.random() < settings.sparse:
            shape = (settings.num_sources, settings.num_samples)
            sources *= sparse.envelopes(random, *shape, settings.sample_rate)
        if settings.rooms and random.random() < settings.rooms:
            sources = self.surroundings.in_room(random, sources)
        sources *= self._gains(random, settings.num_sources)[:, np.newaxis]
        noise = np.zeros(settings.num_samples, np.float32)
        if settings.noise and random.random() < settings.noise:
            snr_db = random.uniform(*settings.noise_snr_db)
            noise = self.surroundings.noise(random, sources.sum(axis=0), snr_db)
        peak = np.abs(sources.sum(axis=0) + noise).max()
        common = np.float32(min(1.0, plan.MAX_PEAK / max(peak, 1e-9)))
        return sources * common, noise * common

    def _gains(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Draws gains for voices at the target level: float32 `[source]`."""
        half = self.settings.max_snr_db / 2
        if count == 2:
            move = random.uniform(-half, half)
            moves = np.array([move, -move])
        else:
            moves = random.uniform(-half, half, count)
        return (10 ** (moves / 20)).astype(np.float32)

    def _voice(self, random: np.random.Generator, speaker: int) -> np.ndarray:
        """Draws a window of one speaker at the target active level, float32 `[sample]`.

        If an utterance is shorter than the window, more follow it, each normalised by its own
        level. The first starts at a random position.
        """
        own, settings = self.store.by_speaker[speaker], self.settings
        factor = 1 + random.uniform(-settings.speed, settings.speed) if settings.speed else 1.0
        needed = math.ceil(settings.num_samples * factor) + (16 if settings.speed else 0)
        pieces: list[np.ndarray] = []
        while needed > 0:
            # Every second of a speaker's speech is equally likely.
            number = own[self._shares[speaker].searchsorted(random.random(), side="right")]
            samples = self.store.samples[number]
            latest = len(samples) - needed if not pieces else 0
            # A first utterance shorter than the window starts somewhere in its first half.
            start = int(random.integers(0, max(latest, len(samples) // 2 if not pieces else 0) + 1))
            piece = samples[start : start + needed].astype(np.float32)
            level_db = self.store.levels_db[number]
            piece *= np.float32(10 ** ((plan.TARGET_LEVEL_DB - level_db) / 20) / schema.FULL_SCALE)
            pieces.append(piece)
            needed -= len(piece)
        voice = np.concatenate(pieces)
        if factor != 1:
            # Treat the voice as recorded at another sample rate.
            voice = soxr.resample(voice, settings.sample_rate * factor, settings.sample_rate, "MQ")
        window = np.zeros(settings.num_samples, np.float32)
        window[: len(voice)] = voice[: settings.num_samples]
        return window


def _shares(store: clean_utterances.Utterances, numbers: np.ndarray) -> np.ndarray:
    """Cumulative shares of the utterances in their total length, float64 `[utterance]`."""
    lengths = np.array([len(store.samples[number]) for number in numbers], np.float64)
    # Bit for bit as in `Generator.choice`.
    shares = np.cumsum(lengths / lengths.sum())
    return shares / shares[-1]


class Batches(keras.utils.PyDataset):
    """The batches of the current epoch, which follow those of all earlier epochs.

    Args:
        mixer: makes the batches.
        steps: number of batches in an epoch.
        workers: number of threads that mix ahead.

    Attributes:
        epoch: current epoch. `callbacks.NextEpoch` sets it, because Keras calls `on_epoch_end` of
            such a dataset even before the first epoch.
    """

    def __init__(self, mixer: Mixer, steps: int, workers: int = 2) -> None:
        super().__init__(workers=workers, max_queue_size=4 * workers)
        self.mixer = mixer
        self.steps = steps
        self.epoch = 0
        self._lock = threading.Lock()
        self._busy_seconds = 0.0

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = time.monotonic()
        batch = self.mixer.batch(self.epoch * self.steps + index)
        with self._lock:
            self._busy_seconds += time.monotonic() - start
        return batch

    def busy_seconds(self) -> float:
        """Returns the time spent on mixing since the last call, as an average over the threads."""
        with self._lock:
            seconds, self._busy_seconds = self._busy_seconds, 0.0
        return seconds / self.workers
