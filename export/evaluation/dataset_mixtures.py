"""Reads a dataset's mixtures one at a time, for the evaluator."""

import dataclasses
import functools
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from pipeline import features, schema
from pipeline.dataset import dataset, tfrecord
from pipeline.io import storage

PAIRS = ("female-female", "male-male", "mixed", "unknown")


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One record.

    Attributes:
        id: unique in its dataset.
        speakers: one name per voice.
        sexes: `f`, `m`, or empty if unknown.
        rate: in Hz.
        sources: the voices, int16 `[source, sample]`.
        log_magnitude: the mixture's log-magnitude as stored, float32 `[frame, bin]`.
        utterances: the name of each voice's recording.
        noise: the rest of the mixture, int16 `[sample]`, or None.
    """

    id: str
    speakers: tuple[str, ...]
    sexes: tuple[str, ...]
    rate: int
    sources: np.ndarray
    log_magnitude: np.ndarray
    utterances: tuple[str, ...] = ()
    noise: np.ndarray | None = None

    @functools.cached_property
    def voices(self) -> np.ndarray:
        """The voices, float32 `[source, sample]`, full scale 1."""
        return self.sources.astype(np.float32) / schema.FULL_SCALE

    @functools.cached_property
    def waveform(self) -> np.ndarray:
        """The mixture, float32 `[sample]`, full scale 1: the integer sum of voices and noise."""
        whole = self.sources.sum(axis=0, dtype=np.int32)
        if self.noise is not None:
            whole += self.noise
        return whole.astype(np.float32) / schema.FULL_SCALE

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.sources.shape[1] / self.rate

    @property
    def pair(self) -> str:
        """Which of `PAIRS` it is: all voices female, all voices male, or mixed."""
        known = set(self.sexes)
        if not known <= {"f", "m"}:
            return "unknown"
        return {frozenset("f"): "female-female", frozenset("m"): "male-male"}.get(
            frozenset(known), "mixed"
        )

    def relative_levels_db(self) -> np.ndarray:
        """Each voice's active level minus the mean of the others', dB, float64 `[source]`."""
        levels = np.array([features.active_level_db(voice) for voice in self.voices])
        with np.errstate(invalid="ignore"):
            others = (levels.sum() - levels) / (len(levels) - 1)
            return levels - others

    def overlap(self) -> float:
        """The share of frames with two or more active speakers among those with at least one."""
        speaking = features.voice_activity(features.stft(self.voices)).sum(axis=0)
        return float((speaking > 1).sum() / max((speaking > 0).sum(), 1))


def read(
    data_dir: str, info: dataset.DatasetInfo, split: str, limit: int | None = None
) -> Iterator[Mixture]:
    """Yields the mixtures of a split in shard order, with one in memory at a time.

    Shards are filled by a salted hash, so the first `limit` mixtures are a fair and reproducible
    sample.

    Args:
        data_dir: the dataset's folder.
        info: the dataset's info, read by `pipeline.dataset.dataset`.
        split: one of the dataset's splits.
        limit: maximum number of mixtures; None for all.

    Raises:
        DatasetError: a shard is missing or damaged.
    """
    needed = [f for f in schema.mixture_features(()) if f.name != "voice_activity"]
    left = info.splits[split].mixtures if limit is None else limit
    for shard in info.splits[split].shards:
        path = storage.join(data_dir, shard.name)
        count = 0
        try:
            with _open(path) as file:
                for _, record in tfrecord.read(file):
                    if not left:
                        return
                    yield _mixture(schema.decode(needed, tfrecord.parse(record)))
                    count, left = count + 1, left - 1
        except (OSError, ValueError, storage.ReadError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
            raise _damaged(path, str(reason)) from error
        if count != shard.records:
            raise _damaged(path, f"it has {count} records, not {shard.records}")


def _open(path: str) -> BinaryIO:
    return io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else open(path, "rb")


def _damaged(path: str, reason: str) -> dataset.DatasetError:
    return dataset.DatasetError(
        f"{path} is missing or damaged ({reason}); make the dataset anew with pipeline.preprocess"
    )


def _mixture(record: dict) -> Mixture:
    return Mixture(
        id=record["mixture_id"],
        speakers=tuple(record["speaker_ids"]),
        sexes=tuple(record["sexes"]),
        rate=record["sample_rate"],
        sources=record["sources"],
        log_magnitude=record["log_magnitude"],
        utterances=tuple(record["utterance_ids"]),
    )
