"""Shards of clean utterances of the train split, for mixing anew at every step, and their index.

From the side-cars, the job makes one index (`schema.UTTERANCES_INDEX_FILE`) with the place of each
utterance's samples, so that a reader can map the files and read only what it needs.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np

from pipeline import fact_table, features, inspection, plan, schema
from pipeline.dataset import dataset, recordings, shards, tfrecord
from pipeline.io import atomic, stored_json

SPLIT = "train"
_INT16 = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance to be stored: its id, samples at the dataset's rate, and recording.

    The samples are those at the start of the recording, or all unless it is very long.
    """

    id: str
    num_samples: int
    recording: recordings.Recording


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A line of the index without its shard (`schema.UTTERANCES_INDEX_COLUMNS`)."""

    offset: stored_json.Count
    num_samples: stored_json.Count
    utterance_id: str
    speaker_id: str
    sex: str
    active_level_db: float


class Sidecar(shards.Sidecar, frozen=True, kw_only=True):
    """The JSON beside a shard of utterances, with their index entries in order."""

    utterances: tuple[Entry, ...]


@dataclasses.dataclass(frozen=True)
class Totals:
    """All shards of utterances together.

    Attributes:
        sidecars: their side-cars without the entries, in order.
        utterances: number of utterances in them.
        samples: total length of the utterances.
        speakers: number of speakers.
    """

    sidecars: Sequence[shards.Sidecar] = ()
    utterances: int = 0
    samples: int = 0
    speakers: int = 0


class Columns(shards.Columns, frozen=True, kw_only=True):
    """Everything that determines the bytes of one shard of utterances, in the records' order.

    Attributes:
        ids: ids of the utterances.
        num_samples: number of stored samples of each.
        speakers: speaker of each utterance.
        sexes: sex of each utterance's speaker.
        sha256: SHA-256 of the file of each utterance's recording.
    """

    FOLDER: ClassVar[str] = f"{schema.UTTERANCES_FOLDER}/"

    ids: list[str]
    num_samples: list[int]
    speakers: list[str]
    sexes: list[str]
    sha256: list[str]

    @property
    def features(self) -> tuple[schema.Feature, ...]:
        """The features of its records."""
        return schema.UTTERANCE_FEATURES


@dataclasses.dataclass(frozen=True)
class ShardPlan(shards.ShardPlan[Sidecar]):
    """The plan as a worker uses it."""

    COLUMNS: ClassVar[type[Columns]] = Columns
    SIDECAR: ClassVar[type[Sidecar]] = Sidecar
    SPEED: ClassVar[float] = 2000.0

    utterances: tuple[Utterance, ...]

    @property
    def num_records(self) -> int:
        """Number of planned records."""
        return len(self.utterances)

    @property
    def columns(self) -> Columns:
        """Returns the plan in columns."""
        found = [utterance.recording for utterance in self.utterances]
        return Columns(
            name=self.name,
            sample_rate=self.sample_rate,
            ids=[utterance.id for utterance in self.utterances],
            num_samples=[utterance.num_samples for utterance in self.utterances],
            speakers=[recording.speaker for recording in found],
            sexes=[recording.sex for recording in found],
            sha256=[recording.sha256 for recording in found],
            paths=[recording.path for recording in found],
        )

    @classmethod
    def of(cls, columns: Columns) -> "ShardPlan":
        """The inverse of `columns`."""
        found = (columns.paths, columns.speakers, columns.sexes, columns.sha256)
        utterances = map(
            Utterance, columns.ids, columns.num_samples, map(recordings.Recording, *found)
        )
        return cls(columns.name, columns.sample_rate, tuple(utterances))

    def maker(self) -> "Maker":
        """Returns the maker of its records."""
        return Maker(self)


class Maker(shards.Maker[Sidecar]):
    """Makes the records of a shard of utterances."""

    def __init__(self, shard: ShardPlan) -> None:
        self._shard = shard
        self._entries: list[Entry] = []

    def records(self) -> Iterator[dict[str, Any] | None]:
        """Yields the values of each utterance; None if it is silent."""
        for utterance in self._shard.utterances:
            recording = utterance.recording
            samples = recordings.load(recording, self._shard.sample_rate, utterance.num_samples)
            values = compute(samples, self._shard.sample_rate) | {
                "utterance_id": utterance.id,
                "speaker_id": recording.speaker,
                "sex": recording.sex,
            }
            # The audible part of a recording may be beyond where it is cut.
            yield values if values["samples"].any() else None

    def count(self, values: Mapping[str, Any], record: bytes, offset: int) -> None:
        """Records where an utterance was written."""
        self._entries.append(entry(values, record, offset))

    def sidecar(self, shard: dataset.ShardInfo, plan_digest: str) -> Sidecar:
        """Returns the side-car with the places of all utterances."""
        return Sidecar(shard=shard, plan_digest=plan_digest, utterances=tuple(self._entries))


def make_plans(
    facts: Iterable[inspection.Facts],
    wanted: np.ndarray | None = None,
    *,
    sample_rate: int,
    num_shards: int,
    seed: int,
    max_samples: int = plan.MAX_SAMPLES,
) -> shards.Plans[ShardPlan]:
    """Distributes utterances over shards, as `mixture_shards.make_plans` does with mixtures.

    Args:
        facts: facts of the usable recordings, preferably a `FactTable`.
        wanted: bool `[row]`, the utterances to store; by default all. Those so quiet that nothing
            is left of them in 16 bits are left out.
        sample_rate: sample rate of the dataset in Hz.
        num_shards: desired number of shards.
        seed: salt of the order.
        max_samples: longer recordings are cut to this at their end.
    """
    table = fact_table.FactTable.of(facts)
    heard = table.peaks * schema.FULL_SCALE > 0.5
    rows = np.flatnonzero(heard if wanted is None else heard & wanted).astype(np.int32)
    samples = table.num_samples
    if samples.max(initial=0) > max_samples:
        samples = np.minimum(samples, max_samples)

    def make(name: schema.ShardName, own: np.ndarray) -> Columns:
        return Columns(
            name=name,
            sample_rate=sample_rate,
            ids=table.names(own),
            num_samples=samples[own].tolist(),
            speakers=table.speakers_of(own),
            sexes=table.sexes(own),
            sha256=table.checksums(own),
            paths=table.paths(own),
        )

    ordered = rows[plan.order(seed, len(rows), lambda part: table.names(rows[part]))]
    dealt = list(plan.deal(SPLIT, ordered, num_shards))
    return shards.Plans(
        ShardPlan,
        [name for name, _ in dealt],
        [own for _, own in dealt],
        samples,
        # The samples, the names, and the overhead of protobuf.
        lambda lengths: 2 * lengths + 210,
        sample_rate,
        make,
    )


def compute(samples: np.ndarray, sample_rate: int) -> dict[str, Any]:
    """Computes the audio features of a record.

    Args:
        samples: float32 `[sample]`, full scale 1. If they exceed 16 bits, all are scaled down.
        sample_rate: sample rate in Hz.

    Returns:
        By feature: `samples` int16 `[sample]`, and their `sample_rate`, `num_samples` and
        `active_level_db`.
    """
    scale = float(schema.FULL_SCALE)
    low, high = float(samples.min()), float(samples.max())
    if round(high * scale) > _INT16.max or round(low * scale) < _INT16.min:
        scale = _INT16.max / max(high, -low)
    stored = np.rint(samples * np.float32(scale)).astype(np.int16)
    level = features.active_level_db(stored.astype(np.float32) / schema.FULL_SCALE)
    return {
        "samples": stored,
        "sample_rate": sample_rate,
        "num_samples": len(stored),
        # With the precision of gains, to which all processors agree.
        "active_level_db": round(level, 2),
    }


def entry(values: Mapping[str, Any], record: bytes, offset: int) -> Entry:
    """Returns an utterance's entry in the index.

    Args:
        values: values of `schema.UTTERANCE_FEATURES`.
        record: serialised record of these values.
        offset: byte of the file at which it begins.
    """
    named = {name: values[name] for name in Entry.__struct_fields__ if name != "offset"}
    return Entry(offset=offset + tfrecord.bytes_offset(record, "samples"), **named)


def index_csv(sidecars: Iterable[Sidecar]) -> str:
    """Returns the index as a table, from the side-cars of all shards."""
    ordered = sorted(sidecars, key=lambda sidecar: sidecar.shard.name)
    return _header() + "".join(map(_lines, ordered))


def write_index(path: str, sidecars: Iterable[Sidecar]) -> Totals:
    """Writes the index while side-cars are read, so that only a few are in memory.

    Args:
        path: path of the index.
        sidecars: side-cars of all shards, in the order of their names.

    Returns:
        What is left of the side-cars, and the counts.
    """
    shells: list[shards.Sidecar] = []
    utterances = samples = 0
    speakers: set[str] = set()
    with atomic.create(path) as file:
        file.write(_header().encode())
        for sidecar in sidecars:
            file.write(_lines(sidecar).encode())
            utterances += len(sidecar.utterances)
            samples += sum(line.num_samples for line in sidecar.utterances)
            speakers.update(line.speaker_id for line in sidecar.utterances)
            shells.append(msgspec.structs.replace(sidecar, utterances=()))
    return Totals(shells, utterances, samples, len(speakers))


def _header() -> str:
    return ",".join(schema.UTTERANCES_INDEX_COLUMNS) + "\n"


def _lines(sidecar: Sidecar) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for line in sidecar.utterances:
        *cells, level = msgspec.structs.astuple(line)
        writer.writerow([sidecar.shard.name, *cells, f"{level:.2f}"])
    return text.getvalue()
