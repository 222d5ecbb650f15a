"""One shard: from its plan to the file and the small JSON beside it, and back.

A shard's bytes are a function of its plan: whichever worker writes it, whenever, they are the same
(on one type of processor and one set of versions). The file gets its name when it is whole, then
the JSON is written in the same way; a shard whose JSON fits the plan and the versions, and whose
SHA-256 fits the JSON, need not be written again.

What the records are is a recipe: `mixture_shards` and `utterance_shards` each have one, a
`ShardPlan`, its `Maker` and its `Sidecar`.
"""

import abc
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from pipeline import errors, schema, version
from pipeline.dataset import dataset, tfrecord
from pipeline.io import atomic, storage, stored_json


class Sidecar(stored_json.Stored, frozen=True, kw_only=True):
    """What the JSON beside any shard holds.

    Attributes:
        shard: name, records, bytes, SHA-256.
        plan_digest: `ShardPlan.digest` of what was written.
        versions: of the libraries that wrote it, which decide its bytes too.
        schema_version: of `pipeline.schema`.
    """

    shard: dataset.ShardInfo
    plan_digest: str
    versions: dict[str, str] = msgspec.field(default_factory=lambda: version.versions())
    schema_version: stored_json.Integer = schema.SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != schema.SCHEMA_VERSION:
            raise ValueError("another version of the schema")

    def to_json(self) -> str:
        """The text of the file; `stored_json.loads` is its inverse."""
        return stored_json.dumps(self)


_SidecarType = TypeVar("_SidecarType", bound=Sidecar)


class Maker(abc.ABC, Generic[_SidecarType]):
    """Makes the records of one shard, and counts what the side-car tells of them."""

    @abc.abstractmethod
    def records(self) -> Iterator[dict[str, Any] | None]:
        """The values of each planned record; None for one that is left out.

        Raises:
            UserError: a recording cannot be read, or is not the one that the plan was made for.
        """

    @abc.abstractmethod
    def count(self, values: Mapping[str, Any], record: bytes, offset: int) -> None:
        """Counts a record that has been written, which begins at a byte of the file."""

    @abc.abstractmethod
    def sidecar(self, shard: dataset.ShardInfo, plan_digest: str) -> _SidecarType:
        """What was counted."""


@dataclasses.dataclass(frozen=True)
class ShardPlan(abc.ABC, Generic[_SidecarType]):
    """All that decides the bytes of one shard.

    Attributes:
        name: of the shard.
        sample_rate: in Hz.
        FOLDER: in which such shards lie, within the dataset's, with a `/` at its end.
        SPEED: about how many seconds of audio a core writes in a second.
    """

    FOLDER: ClassVar[str] = ""
    SPEED: ClassVar[float] = 1.0

    name: schema.ShardName
    sample_rate: int

    @property
    def path(self) -> str:
        """Of the shard, within the dataset's folder."""
        return f"{self.FOLDER}{self.name}"

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the recordings' paths: a corpus may be moved.

        The list of features is part of it: it decides what the records hold.
        """
        record = schema.fingerprint(self.features)
        facts = [record, self.path, self.sample_rate, *self.content()]
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def seconds_of_work(self) -> float:
        """About how long a core takes to write it."""
        return self.num_samples / (self.sample_rate * self.SPEED)

    @property
    @abc.abstractmethod
    def features(self) -> tuple[schema.Feature, ...]:
        """Of its records."""

    @property
    @abc.abstractmethod
    def num_records(self) -> int:
        """That are planned."""

    @property
    @abc.abstractmethod
    def num_samples(self) -> int:
        """Of all its records."""

    @property
    @abc.abstractmethod
    def num_bytes(self) -> int:
        """About how many the file takes: its arrays, and a little for the rest."""

    @abc.abstractmethod
    def content(self) -> list[Any]:
        """What `digest` is over, beside what all shards have."""

    @abc.abstractmethod
    def maker(self) -> Maker[_SidecarType]:
        """What makes its records."""

    @abc.abstractmethod
    def parse(self, text: str) -> _SidecarType:
        """The side-car in a text; raises ValueError."""


def digest(plans: Iterable[ShardPlan[Any]]) -> str:
    """SHA-256 of a whole plan."""
    return hashlib.sha256("\n".join(shard.digest for shard in plans).encode()).hexdigest()


def find(shard: ShardPlan[_SidecarType], folder: str) -> _SidecarType | None:
    """The side-car of a shard that is already there and whole.

    Args:
        shard: the plan.
        folder: of the dataset.

    Returns:
        None where the shard or its side-car is missing, damaged, of another plan, or written with
        other versions than this process has: its bytes could be others than ours.
    """
    try:
        sidecar = read(shard, folder)
        if sidecar.versions != version.versions():
            return None
        whole = storage.sha256(storage.join(folder, shard.path)) == sidecar.shard.sha256
        return sidecar if whole else None
    except (errors.UserError, OSError):
        return None


def read(shard: ShardPlan[_SidecarType], folder: str) -> _SidecarType:
    """The side-car of a shard that has been written.

    Args:
        shard: the plan.
        folder: of the dataset.

    Raises:
        UserError: it cannot be read, is damaged, or of another plan.
    """
    path = f"{storage.join(folder, shard.path)}.json"
    try:
        sidecar = shard.parse(storage.read_bytes(path).decode("utf-8"))
        if sidecar.plan_digest == shard.digest:
            return sidecar
        reason = "it is of another plan; did another job write here?"
    except ValueError as error:
        reason = f"damaged: {error}"
    raise errors.UserError(f"{path}: {reason}; run the same command again")


def write(
    shard: ShardPlan[_SidecarType], folder: str, on_record: Callable[[], None] = lambda: None
) -> _SidecarType:
    """Makes and writes a shard and its side-car.

    Args:
        shard: the plan.
        folder: of the dataset.
        on_record: called after each planned record, for progress.

    Returns:
        What the side-car holds.

    Raises:
        UserError: a recording cannot be read, or is not the one that the plan was made for.
        OSError: the folder does not take the file.
    """
    path = storage.join(folder, shard.path)
    atomic.make_folder(storage.join(folder, shard.FOLDER))
    maker, features = shard.maker(), shard.features
    with atomic.create(path) as file:
        writer = tfrecord.Writer(file)
        for values in maker.records():
            if values is not None:
                record = encode(features, values)
                maker.count(values, record, writer.write(record))
            on_record()
    info = dataset.ShardInfo(str(shard.name), writer.records, writer.bytes, writer.sha256)
    sidecar = maker.sidecar(info, shard.digest)
    atomic.write_text(f"{path}.json", sidecar.to_json())
    return sidecar


def encode(features: Sequence[schema.Feature], values: Mapping[str, Any]) -> bytes:
    """A record: a serialised `tf.train.Example` of these values."""
    lists = schema.encode(features, values)
    return tfrecord.example_bytes({f.name: (f.kind, lists[f.name]) for f in features})


def check_files(infos: Mapping[str, dataset.ShardInfo], contents: bool) -> None:
    """Compares shards with what their side-cars say, as the last thing before the marker.

    A worker that outlived its job may have replaced a shard after its side-car was read.

    Args:
        infos: by the shard's path.
        contents: compare SHA-256 too, which reads all of them; otherwise only the lengths of local
            files.

    Raises:
        UserError: one differs, or is not there.
    """

    def differs(path: str) -> bool:
        info = infos[path]
        if not storage.is_remote(path) and os.path.getsize(path) != info.bytes:
            return True
        return contents and storage.sha256(path) != info.sha256

    with futures.ThreadPoolExecutor() as threads:
        for path, other in zip(infos, threads.map(differs, infos), strict=True):
            if other:
                raise errors.UserError(
                    f"{path}: is not what the JSON beside it describes; did another job write "
                    "here? Run the same command again"
                )


def common_versions(sidecars: Iterable[Sidecar]) -> dict[str, str]:
    """The versions that all shards of a dataset were written with.

    Args:
        sidecars: of all its shards, at least one.

    Raises:
        UserError: they differ, as where workers do: the dataset would be no function of its plan.
    """
    first, *rest = sidecars
    for other in rest:
        for name in sorted({*first.versions, *other.versions}):
            one, two = first.versions.get(name), other.versions.get(name)
            if one != two:
                raise errors.UserError(
                    f"{first.shard.name} was written with {name} {one}, {other.shard.name} with "
                    f"{name} {two}; install the same version for all workers and run the same "
                    "command again"
                )
    return first.versions
