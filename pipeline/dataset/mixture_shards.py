"""Shards of mixtures: their records and their side-cars."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from pipeline import features, ideal_masks, plan, schema
from pipeline.dataset import dataset, histogram, shards
from pipeline.dataset import recordings as recordings_lib
from pipeline.io import stored_json

# A mixture in which a voice is active for less than this is left out.
MIN_ACTIVE_SECONDS = 0.5


class Counts(shards.Sidecar, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """A side-car without its histogram, which would take 1 MB of memory.

    Attributes:
        samples: total of all mixtures in it.
        frames: total of all mixtures in it.
        dropped: ids of planned mixtures in which a voice is active for less than half a second.
        active_level_mdb: sum over the mixtures of their active level in thousandths of a dB.
    """

    samples: stored_json.Count
    frames: stored_json.Count
    dropped: tuple[str, ...]
    active_level_mdb: stored_json.Integer


class Sidecar(Counts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The JSON beside a shard of mixtures.

    Attributes:
        log_magnitude_codes: how often each float16 code of the log-magnitudes occurs.
    """

    log_magnitude_codes: histogram.Codes


class Columns(shards.Columns, frozen=True, kw_only=True):
    """Everything that determines the bytes of one shard of mixtures.

    Attributes:
        masks: names of the stored masks.
        ids: ids of the mixtures, in the order of the records.
        num_samples: of the mixtures, in the same order.
        voices: for each source `[mixture]`, an index into the utterances.
        gains: for each source `[mixture]`, in hundredths of a dB.
        utterances: ids of all that are needed, ascending.
        speakers: speaker of each utterance.
        sexes: sex of each utterance's speaker.
        sha256: SHA-256 of the file of each utterance's recording.
    """

    masks: tuple[str, ...]
    ids: list[str]
    num_samples: list[int]
    voices: list[list[int]]
    gains: list[list[int]]
    utterances: list[str]
    speakers: list[str]
    sexes: list[str]
    sha256: list[str]

    @property
    def features(self) -> tuple[schema.Feature, ...]:
        """The features of its records."""
        return schema.mixture_features(self.masks)


@dataclasses.dataclass(frozen=True)
class ShardPlan(shards.ShardPlan[Sidecar]):
    """The plan as a worker uses it.

    Attributes:
        masks: names of the stored masks.
        mixtures: in the order of the records.
        recordings: by utterance id.
    """

    COLUMNS: ClassVar[type[Columns]] = Columns
    SIDECAR: ClassVar[type[Sidecar]] = Sidecar
    SPEED: ClassVar[float] = 500.0

    masks: tuple[str, ...]
    mixtures: tuple[plan.Mixture, ...]
    recordings: dict[str, recordings_lib.Recording]

    @property
    def num_records(self) -> int:
        """Number of planned records."""
        return len(self.mixtures)

    @property
    def columns(self) -> Columns:
        """Returns the plan in columns."""
        utterances = sorted(self.recordings)
        places = {name: place for place, name in enumerate(utterances)}
        found = [self.recordings[name] for name in utterances]
        return Columns(
            name=self.name,
            sample_rate=self.sample_rate,
            masks=self.masks,
            ids=[m.id for m in self.mixtures],
            num_samples=[m.num_samples for m in self.mixtures],
            voices=_transposed([places[u] for u in m.utterance_ids] for m in self.mixtures),
            gains=_transposed([round(100 * g) for g in m.gains_db] for m in self.mixtures),
            utterances=utterances,
            speakers=[recording.speaker for recording in found],
            sexes=[recording.sex for recording in found],
            sha256=[recording.sha256 for recording in found],
            paths=[recording.path for recording in found],
        )

    @classmethod
    def of(cls, columns: Columns) -> "ShardPlan":
        """The inverse of `columns`."""
        found = (columns.paths, columns.speakers, columns.sexes, columns.sha256)
        recordings = map(recordings_lib.Recording, *found)
        voices = list(zip(*columns.voices, strict=True))
        mixtures = (
            plan.Mixture(
                columns.ids[row],
                columns.name.split,
                columns.num_samples[row],
                tuple(columns.utterances[voice] for voice in own),
                tuple(columns.speakers[voice] for voice in own),
                tuple(gains[row] / 100 for gains in columns.gains),
            )
            for row, own in enumerate(voices)
        )
        return cls(
            columns.name,
            columns.sample_rate,
            columns.masks,
            tuple(mixtures),
            dict(zip(columns.utterances, recordings, strict=True)),
        )

    def maker(self) -> "Maker":
        """Returns the maker of its records."""
        return Maker(self)


class Maker(shards.Maker[Sidecar]):
    """Makes the records of a shard of mixtures."""

    def __init__(self, shard: ShardPlan) -> None:
        self._shard = shard
        self._dropped: list[str] = []
        self._samples = self._frames = self._level = 0
        self._codes = np.zeros(histogram.NUM_CODES, np.int64)

    def records(self) -> Iterator[dict[str, Any] | None]:
        """Yields the values of each mixture; None if a voice is hardly active."""
        shard = self._shard
        for mixture in shard.mixtures:
            sources = mix(mixture, shard.recordings, shard.sample_rate)
            values = compute(sources, shard.masks)
            active = values["voice_activity"].sum(axis=1) * schema.HOP / shard.sample_rate
            if active.min() < MIN_ACTIVE_SECONDS:
                self._dropped.append(mixture.id)
                yield None
            else:
                yield values | _names(mixture, shard)

    def count(self, values: Mapping[str, Any], record: bytes, offset: int) -> None:
        """Counts a mixture that has been written."""
        self._codes += histogram.count(values["log_magnitude"])
        self._samples += values["num_samples"]
        self._frames += values["num_frames"]
        # Rounded to an integer, so that the mean is the same in any order.
        self._level += round(1000 * features.active_level_db(mixed(values["sources"])))

    def sidecar(self, shard: dataset.ShardInfo, plan_digest: str) -> Sidecar:
        """Returns the side-car with the counts."""
        return Sidecar(
            shard=shard,
            plan_digest=plan_digest,
            samples=self._samples,
            frames=self._frames,
            dropped=tuple(self._dropped),
            active_level_mdb=self._level,
            log_magnitude_codes=histogram.Codes.of(self._codes),
        )


def make_plans(
    mixtures: plan.Mixtures,
    *,
    sample_rate: int,
    masks: Sequence[str],
    num_shards: int,
    seed: int,
) -> shards.Plans[ShardPlan]:
    """Distributes the mixtures evenly over shards, in an order given by a salted hash.

    Args:
        mixtures: the mixtures of all splits.
        sample_rate: sample rate of the dataset in Hz.
        masks: names of the masks to store.
        num_shards: number for each split; a split of fewer mixtures has one shard for each.
        seed: salt of the hash.

    Returns:
        The shards by split and number; those of a split differ by at most one mixture.
    """
    names: list[schema.ShardName] = []
    parts: list[np.ndarray] = []
    for code, split in enumerate(schema.SPLITS):
        rows = np.flatnonzero(mixtures.splits == code).astype(np.int32)
        order = plan.order(seed, len(rows), functools.partial(_ids, mixtures, rows))
        for name, own in plan.deal(split, rows[order], num_shards):
            names.append(name)
            parts.append(own)

    table = mixtures.table

    def make(name: schema.ShardName, rows: np.ndarray) -> Columns:
        used, voices = np.unique(mixtures.voices[rows], return_inverse=True)
        voices = voices.reshape(len(rows), -1).T
        utterances = table.names(used)
        firsts = list(map(utterances.__getitem__, voices[0].tolist()))
        return Columns(
            name=name,
            sample_rate=sample_rate,
            masks=tuple(masks),
            ids=mixtures.ids(rows, firsts),
            num_samples=mixtures.num_samples[rows].tolist(),
            voices=voices.tolist(),
            gains=mixtures.gains[rows].T.tolist(),
            utterances=utterances,
            speakers=table.speakers_of(used),
            sexes=table.sexes(used),
            sha256=table.checksums(used),
            paths=table.paths(used),
        )

    num_sources = mixtures.voices.shape[1]
    bytes_of = functools.partial(record_bytes, num_sources=num_sources, masks=masks)
    return shards.Plans(ShardPlan, names, parts, mixtures.num_samples, bytes_of, sample_rate, make)


def record_bytes(num_samples: np.ndarray, num_sources: int, masks: Iterable[str]) -> np.ndarray:
    """Returns the approximate size of records in bytes: their arrays, and a little for the rest.

    Args:
        num_samples: int64 `[mixture]`.
        num_sources: voices in each mixture.
        masks: names of the stored masks.

    Returns:
        int64 `[mixture]`.
    """
    features = [f for f in schema.mixture_features(masks) if f.encoding]

    def arrays(samples: int) -> int:
        sizes = {
            "S": num_sources,
            "N": samples,
            "T": schema.num_frames(samples),
            "F": schema.NUM_BINS,
            "K": schema.num_stored_masks(num_sources),
        }
        return sum(feature.num_bytes(sizes) for feature in features)

    # The size of the arrays is proportional to the length, up to a few bytes.
    long = 2**20 * schema.HOP
    least = arrays(0)
    return least + num_samples * (arrays(long) - least) // long + 400 + 40 * num_sources


def mix(
    mixture: plan.Mixture, recordings: dict[str, recordings_lib.Recording], sample_rate: int
) -> np.ndarray:
    """Rebuilds the voices of a mixture from the plan.

    Args:
        mixture: the plan.
        recordings: by utterance id.
        sample_rate: sample rate of the dataset in Hz.

    Returns:
        int16 `[source, sample]`; their integer sum is the mixture.

    Raises:
        UserError: a recording cannot be read, or has changed since the plan was made.
    """
    sources = np.zeros((len(mixture.utterance_ids), mixture.num_samples), np.int16)
    for source, utterance, gain in zip(
        sources, mixture.utterance_ids, mixture.gains_db, strict=True
    ):
        samples = recordings_lib.load(recordings[utterance], sample_rate, mixture.num_samples)
        scaled = samples * np.float32(schema.FULL_SCALE * 10 ** (gain / 20))
        source[: len(scaled)] = np.rint(scaled, out=scaled)
    return sources


def mixed(sources: np.ndarray) -> np.ndarray:
    """Returns the mixture of int16 `[source, sample]`: float32 `[sample]`, full scale 1, exact."""
    return sources.sum(axis=0, dtype=np.int32).astype(np.float32) / schema.FULL_SCALE


def compute(sources: np.ndarray, masks: tuple[str, ...]) -> dict[str, Any]:
    """Computes the record's arrays.

    Args:
        sources: int16 `[source, sample]`.
        masks: names of the masks to compute.

    Returns:
        By feature: `sources`, `log_magnitude` float16 `[frame, bin]`, `voice_activity` bool
        `[source, frame]`, and the masks `[stored mask, frame, bin]`.
    """
    num_sources = len(sources)
    voices = features.stft(sources / np.float32(schema.FULL_SCALE))
    # The transform is linear, so the mixture does not need a transform of its own.
    mixture = functools.reduce(np.add, voices)
    values: dict[str, Any] = {
        "sources": sources,
        "log_magnitude": features.log_magnitude(mixture).astype(np.float16),
        "voice_activity": features.voice_activity(voices),
    }
    spectrograms = ideal_masks.Spectrograms(voices, mixture)
    for name in masks:
        stored = schema.num_stored_masks(num_sources)
        values[name] = ideal_masks.MASKS[name].ideal(spectrograms, stored)
    return values


def _transposed(rows: Iterable[list[int]]) -> list[list[int]]:
    return list(map(list, zip(*rows, strict=True)))


def _ids(mixtures: plan.Mixtures, rows: np.ndarray, part: np.ndarray) -> list[str]:
    return mixtures.ids(rows[part])


def _names(mixture: plan.Mixture, shard: ShardPlan) -> dict[str, Any]:
    return {
        "mixture_id": mixture.id,
        "utterance_ids": mixture.utterance_ids,
        "speaker_ids": mixture.speakers,
        "sexes": [shard.recordings[u].sex for u in mixture.utterance_ids],
        "gains_db": mixture.gains_db,
        "sample_rate": shard.sample_rate,
        "num_samples": mixture.num_samples,
        "num_frames": schema.num_frames(mixture.num_samples),
        "num_bins": schema.NUM_BINS,
        "num_sources": len(mixture.utterance_ids),
    }
