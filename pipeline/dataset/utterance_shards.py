"""Clean utterances of the train split, for mixing anew at every step: plan, shards and index.

As with mixtures a shard's bytes are a function of its plan, and the small JSON beside it says what
is in it. From those JSONs the job makes one index (`schema.UTTERANCES_INDEX_FILE`) with the place
of each utterance's samples, so that a reader maps the files and takes what it needs.
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline import features, inspection, plan, schema, version
from pipeline.dataset import dataset, shards, tfrecord
from pipeline.io import atomic, storage, stored_json

SPLIT = "train"
_INT16 = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True)
class Utterance:
    """One utterance to be stored: its id, samples at the dataset's rate, and recording.

    The samples are the recording's first ones, all of them unless it is very long.
    """

    id: str
    num_samples: int
    recording: plan.Recording


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """All that decides the bytes of one shard of utterances.

    Attributes:
        name: of the shard.
        sample_rate: in Hz.
        utterances: in the order of the records.
    """

    name: schema.ShardName
    sample_rate: int
    utterances: tuple[Utterance, ...]

    @property
    def path(self) -> str:
        """Of the shard, within the dataset's folder."""
        return f"{schema.UTTERANCES_FOLDER}/{self.name}"

    @property
    def num_samples(self) -> int:
        """Of all its utterances."""
        return sum(utterance.num_samples for utterance in self.utterances)

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the recordings' paths: a corpus may be moved.

        The list of features is part of it: it decides what the records hold.
        """
        rows = [
            [u.id, u.num_samples, u.recording.speaker, u.recording.sex, u.recording.sha256]
            for u in self.utterances
        ]
        record = schema.fingerprint(schema.UTTERANCE_FEATURES)
        facts = [record, self.path, self.sample_rate, rows]
        return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> str:
        """As text, which `from_json` reads."""
        return json.dumps({**dataclasses.asdict(self), "name": str(self.name)})

    @classmethod
    def from_json(cls, text: str) -> "ShardPlan":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        utterances = (
            Utterance(u["id"], u["num_samples"], plan.Recording(**u["recording"]))
            for u in fields["utterances"]
        )
        name = schema.ShardName.parse(fields["name"])
        return cls(name, fields["sample_rate"], tuple(utterances))


AnyShardPlan = plan.ShardPlan | ShardPlan


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the index, less its shard (`schema.UTTERANCES_INDEX_COLUMNS`)."""

    offset: int
    num_samples: int
    utterance_id: str
    speaker_id: str
    sex: str
    active_level_db: float


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What the JSON beside a shard of utterances holds.

    Attributes:
        shard: name, records, bytes, SHA-256.
        plan_digest: `ShardPlan.digest` of what was written.
        entries: of the index, in the order of the records.
        versions: of the libraries that wrote it, which decide its bytes too.
    """

    shard: dataset.ShardInfo
    plan_digest: str
    entries: tuple[Entry, ...]
    versions: dict[str, str] = dataclasses.field(default_factory=version.versions)

    def to_json(self) -> str:
        """The text of the file."""
        fields = {
            "schema_version": schema.SCHEMA_VERSION,
            "shard": dataclasses.asdict(self.shard),
            "plan_digest": self.plan_digest,
            "utterances": [dataclasses.astuple(entry) for entry in self.entries],
            "versions": self.versions,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Sidecar":
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no such text, or of another version of the schema.
        """
        try:
            fields = stored_json.loads(text)
            if fields["schema_version"] != schema.SCHEMA_VERSION:
                raise ValueError("another version of the schema")
            sidecar = cls(
                dataset.ShardInfo(**fields["shard"]),
                fields["plan_digest"],
                tuple(Entry(*entry) for entry in fields["utterances"]),
                fields["versions"],
            )
            for part in (sidecar, sidecar.shard, *sidecar.entries):
                stored_json.check(part)
            return sidecar
        except (KeyError, TypeError) as error:
            raise ValueError(f"damaged: {error}") from error


def make_plans(
    facts: Iterable[inspection.Facts],
    wanted: Iterable[str],
    *,
    sample_rate: int,
    num_shards: int,
    seed: int,
    max_samples: int = plan.MAX_SAMPLES,
) -> list[ShardPlan]:
    """Deals utterances out to shards, as `plan.make_shards` does with mixtures.

    Args:
        facts: of the usable recordings.
        wanted: ids of the utterances that are to be stored. Those so quiet that nothing of them is
            left in 16 bits are passed over.
        sample_rate: of the dataset, Hz.
        num_shards: that are wanted.
        seed: salt of the order.
        max_samples: longer recordings are cut to this at their end.
    """
    names = set(wanted)
    utterances = {
        f.utterance.id: Utterance(
            f.utterance.id, min(f.num_samples, max_samples), plan.recording(f)
        )
        for f in facts
        if f.utterance.id in names and f.peak * schema.FULL_SCALE > 0.5
    }
    return [
        ShardPlan(name, sample_rate, tuple(utterances[utterance_id] for utterance_id in ids))
        for name, ids in plan.deal(SPLIT, utterances, num_shards, seed)
    ]


def planned_bytes(shard: ShardPlan) -> int:
    """About how many bytes a shard takes: its samples, and a little for the rest."""
    names = sum(len(u.id) + len(u.recording.speaker) for u in shard.utterances)
    return 2 * shard.num_samples + names + 180 * len(shard.utterances)


def find(shard: ShardPlan, folder: str) -> Sidecar | None:
    """The side-car of a shard that is already there and whole.

    Args:
        shard: the plan.
        folder: of the dataset.

    Returns:
        None where the shard or its side-car is missing, damaged, of another plan, or of other
        versions.
    """
    return shards.find_whole(storage.join(folder, shard.path), shard.digest, Sidecar.from_json)


def read(shard: ShardPlan, folder: str) -> Sidecar:
    """The side-car of a shard that has been written.

    Args:
        shard: the plan.
        folder: of the dataset.

    Raises:
        UserError: it cannot be read, is damaged, or of another plan.
    """
    return shards.read_sidecar(storage.join(folder, shard.path), shard.digest, Sidecar.from_json)


def write(
    shard: ShardPlan, folder: str, on_utterance: Callable[[], None] = lambda: None
) -> Sidecar:
    """Makes and writes a shard and its side-car.

    Args:
        shard: the plan.
        folder: of the dataset.
        on_utterance: called after each utterance, for progress.

    Returns:
        What the side-car holds.

    Raises:
        UserError: a recording cannot be read, or is not the one that the plan was made for.
        OSError: the folder does not take the file.
    """
    atomic.make_folder(storage.join(folder, schema.UTTERANCES_FOLDER))
    path = storage.join(folder, shard.path)
    entries = []
    with atomic.create(path) as file:
        writer = tfrecord.Writer(file)
        for utterance in shard.utterances:
            recording = utterance.recording
            samples = shards.load(recording, shard.sample_rate, utterance.num_samples)
            values = compute(samples, shard.sample_rate) | {
                "utterance_id": utterance.id,
                "speaker_id": recording.speaker,
                "sex": recording.sex,
            }
            # What is loud enough may lie beyond where the recording is cut.
            if values["samples"].any():
                entries.append(append(writer, values))
            on_utterance()
    info = dataset.ShardInfo(str(shard.name), writer.records, writer.bytes, writer.sha256)
    sidecar = Sidecar(info, shard.digest, tuple(entries), version.versions())
    atomic.write_text(f"{path}.json", sidecar.to_json())
    return sidecar


def compute(samples: np.ndarray, sample_rate: int) -> dict[str, Any]:
    """What a record holds of the audio.

    Args:
        samples: float32 `[sample]`, full scale 1. What exceeds 16 bits is scaled down as a whole.
        sample_rate: in Hz.

    Returns:
        By feature: `samples` int16 `[sample]`, and `sample_rate`, `num_samples`, `active_level_db`
        of those.
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
        # As precise as gains are, and no more than every processor agrees on.
        "active_level_db": round(level, 2),
    }


def append(writer: tfrecord.Writer, values: dict[str, Any]) -> Entry:
    """Writes one utterance's record.

    Args:
        writer: of the shard.
        values: of `schema.UTTERANCE_FEATURES`.

    Returns:
        Its line of the index.
    """
    lists = schema.encode(schema.UTTERANCE_FEATURES, values)
    kinds = {f.name: (f.kind, lists[f.name]) for f in schema.UTTERANCE_FEATURES}
    record = tfrecord.example_bytes(kinds)
    offset = writer.write(record) + tfrecord.bytes_offset(record, "samples")
    fields = [field.name for field in dataclasses.fields(Entry)]
    return Entry(**{name: values[name] for name in fields if name != "offset"}, offset=offset)


def index_csv(sidecars: Iterable[Sidecar]) -> str:
    """The index as a table, from all shards' side-cars."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.UTTERANCES_INDEX_COLUMNS)
    for sidecar in sorted(sidecars, key=lambda sidecar: sidecar.shard.name):
        for entry in sidecar.entries:
            *cells, level = dataclasses.astuple(entry)
            writer.writerow([sidecar.shard.name, *cells, f"{level:.2f}"])
    return text.getvalue()
