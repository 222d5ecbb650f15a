"""Dynamic mixing: every batch is mixed anew, as a function of the seed and its number alone.

N. Zeghidour, D. Grangier: "Wavesplit: end-to-end speech separation by speaker clustering", IEEE/ACM
Transactions on Audio, Speech, and Language Processing 29, 2021, show what it is worth.

The batches are a `keras.utils.PyDataset`, which reads ahead in threads on every backend, and where
TensorFlow cannot be imported at all.
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

_MAX_PIECES = 8


@dataclasses.dataclass(frozen=True)
class Settings:
    """How mixtures are drawn.

    Attributes:
        num_sources: voices, each another speaker's.
        num_samples: of a window.
        batch_size: windows in a batch.
        sample_rate: sample rate, in Hz.
        max_snr_db: two voices differ by up to this much; each of more is moved by up to half.
        speed: each voice is played faster or slower by up to this share: pitch, formants and rate
            change together, which makes new speakers.
        noise: share of mixtures that noise is added to.
        noise_snr_db: lowest and highest level of all voices together over the noise.
        rooms: share of mixtures whose voices are heard in a room; the target is what arrives.
        sparse: share of mixtures in which not all voices are heard all the time; see
            `sparse.envelopes`.
        seed: of all draws.
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
        store: what to draw from.
        settings: how.
        surroundings: where noise and room responses come from.
    """

    def __init__(
        self,
        store: clean_utterances.Utterances,
        settings: Settings,
        surroundings: acoustics.Surroundings | None = None,
    ) -> None:
        if len(store.by_speaker) < settings.num_sources:
            raise ValueError(
                f"{settings.num_sources} voices need as many speakers, not {len(store.by_speaker)}"
            )
        self.store = store
        self.settings = settings
        # Of each speaker, the share of all their speech up to the end of each utterance.
        self._shares = [_shares(store, own) for own in store.by_speaker]
        self.surroundings = surroundings or acoustics.Surroundings(settings.sample_rate)

    def batch(self, number: int) -> dict[str, np.ndarray]:
        """Batch `number` of the run.

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
        """Mixture `number` of the run: voices `[source, sample]` and noise `[sample]`, float32."""
        settings = self.settings
        # A generator of its own, keyed by seed and number: no draw depends on those before it.
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
        """Of voices at the target level: float32 `[source]`."""
        half = self.settings.max_snr_db / 2
        if count == 2:
            move = random.uniform(-half, half)
            moves = np.array([move, -move])
        else:
            moves = random.uniform(-half, half, count)
        return (10 ** (moves / 20)).astype(np.float32)

    def _voice(self, random: np.random.Generator, speaker: int) -> np.ndarray:
        """A window of one speaker at the target active level, float32 `[sample]`.

        Utterances shorter than the window follow one another, each at its own level, from a
        random place in the first.
        """
        own, settings = self.store.by_speaker[speaker], self.settings
        factor = 1 + random.uniform(-settings.speed, settings.speed) if settings.speed else 1.0
        needed = math.ceil(settings.num_samples * factor) + (16 if settings.speed else 0)
        pieces: list[np.ndarray] = []
        for _ in range(_MAX_PIECES):
            # Every second of a speaker is as likely.
            number = own[self._shares[speaker].searchsorted(random.random(), side="right")]
            samples = self.store.samples[number]
            latest = len(samples) - needed if not pieces else 0
            # What is shorter than the window begins somewhere in its first half.
            start = int(random.integers(0, max(latest, len(samples) // 2 if not pieces else 0) + 1))
            piece = samples[start : start + needed].astype(np.float32)
            level_db = self.store.levels_db[number]
            piece *= np.float32(10 ** ((plan.TARGET_LEVEL_DB - level_db) / 20) / schema.FULL_SCALE)
            pieces.append(piece)
            needed -= len(piece)
            if needed <= 0:
                break
        voice = np.concatenate(pieces)
        if factor != 1:
            # As if recorded at another rate.
            voice = soxr.resample(voice, settings.sample_rate * factor, settings.sample_rate, "MQ")
        window = np.zeros(settings.num_samples, np.float32)
        window[: len(voice)] = voice[: settings.num_samples]
        return window


def _shares(store: clean_utterances.Utterances, numbers: np.ndarray) -> np.ndarray:
    """How likely one of the first utterances is, by how many they are: float64 `[utterance]`."""
    lengths = np.array([len(store.samples[number]) for number in numbers], np.float64)
    # As `Generator.choice` does it, bit by bit.
    shares = np.cumsum(lengths / lengths.sum())
    return shares / shares[-1]


class Batches(keras.utils.PyDataset):
    """The batches of an epoch: those after all that came in the epochs before.

    Args:
        mixer: makes them.
        steps: batches of an epoch.
        workers: threads that mix ahead.

    Attributes:
        epoch: which it is. `callbacks.NextEpoch` sets it, since Keras calls `on_epoch_end` of such
            a dataset before the first epoch, too.
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
        """What mixing has taken since this was last asked, on average of the threads."""
        with self._lock:
            seconds, self._busy_seconds = self._busy_seconds, 0.0
        return seconds / self.workers
