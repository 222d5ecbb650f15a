"""Writes and reads shards: the file of a planned shard and the small JSON beside it.

A shard's bytes are a function of its plan: they do not depend on the worker or the time (on one
type of processor and with one set of versions). The file gets its name when it is complete, then
the JSON is written in the same way. A shard need not be written again if its JSON fits the plan and
the versions, and its SHA-256 fits the JSON.

What records contain is defined by a recipe: `mixture_shards` and `utterance_shards` each have one,
consisting of a `ShardPlan`, its `Maker` and its `Sidecar`.
"""

import abc
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

import msgspec
import numpy as np

from pipeline import errors, schema, version
from pipeline.dataset import dataset, tfrecord
from pipeline.io import atomic, storage, stored_json, threads


class Sidecar(stored_json.Stored, frozen=True, kw_only=True):
    """The JSON beside any shard.

    Attributes:
        shard: name, records, bytes, SHA-256.
        plan_digest: `ShardPlan.digest` of the plan that was written.
        versions: versions of the libraries that wrote it, which also determine its bytes.
        schema_version: version of `pipeline.schema`.
    """

    shard: dataset.ShardInfo
    plan_digest: str
    versions: dict[str, str] = msgspec.field(default_factory=lambda: version.versions())
    schema_version: stored_json.Integer = schema.SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != schema.SCHEMA_VERSION:
            raise ValueError("another version of the schema")

    def to_json(self) -> str:
        """Returns the text of the file; `stored_json.loads` is its inverse."""
        return stored_json.dumps(self)


_SidecarType = TypeVar("_SidecarType", bound=Sidecar)


class Maker(abc.ABC, Generic[_SidecarType]):
    """Makes the records of one shard, and counts what goes into the side-car."""

    @abc.abstractmethod
    def records(self) -> Iterator[dict[str, Any] | None]:
        """Yields the values of each planned record; None for one that is left out.

        Raises:
            UserError: a recording cannot be read, or has changed since the plan was made.
        """

    @abc.abstractmethod
    def count(self, values: Mapping[str, Any], record: bytes, offset: int) -> None:
        """Counts a record that was written at `offset`, a byte of the file."""

    @abc.abstractmethod
    def sidecar(self, shard: dataset.ShardInfo, plan_digest: str) -> _SidecarType:
        """Returns the side-car with the counts."""


class Columns(stored_json.Stored, frozen=True, kw_only=True):
    """Everything that determines the bytes of one shard, in columns, as the launcher writes it.

    Attributes:
        name: name of the shard.
        sample_rate: sample rate in Hz.
        paths: paths of the recordings.
        FOLDER: folder of such shards in the dataset's folder, ending in `/`.
    """

    FOLDER: ClassVar[str] = ""

    name: schema.ShardName
    sample_rate: int
    paths: list[str]

    @property
    def path(self) -> str:
        """Path of the shard in the dataset's folder."""
        return f"{self.FOLDER}{self.name}"

    @property
    def features(self) -> tuple[schema.Feature, ...]:
        """The features of its records."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the recordings' paths, since a corpus may be moved.

        It includes the list of features, which determines what the records contain.
        """
        record = schema.fingerprint(self.features)
        facts = [record, self.path, msgspec.structs.replace(self, paths=[])]
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardPlan(abc.ABC, Generic[_SidecarType]):
    """The plan of a shard as a worker uses it, record by record.

    Attributes:
        name: name of the shard.
        sample_rate: sample rate in Hz.
        COLUMNS: class of the plan in columns.
        SIDECAR: class of the JSON beside the shard.
        SPEED: approximate seconds of audio that one core writes per second.
    """

    COLUMNS: ClassVar[type[Any]] = Columns
    SIDECAR: ClassVar[type[Any]] = Sidecar
    SPEED: ClassVar[float] = 1.0

    name: schema.ShardName
    sample_rate: int

    @property
    def path(self) -> str:
        """Path of the shard in the dataset's folder."""
        return f"{self.COLUMNS.FOLDER}{self.name}"

    @property
    def digest(self) -> str:
        """SHA-256 of everything that determines its bytes (`Columns.digest`)."""
        return str(self.columns.digest)

    @property
    @abc.abstractmethod
    def columns(self) -> Any:
        """Returns the plan in columns."""

    @classmethod
    @abc.abstractmethod
    def of(cls, columns: Any) -> "ShardPlan[_SidecarType]":
        """The inverse of `columns`."""

    @property
    @abc.abstractmethod
    def num_records(self) -> int:
        """Number of planned records."""

    @abc.abstractmethod
    def maker(self) -> Maker[_SidecarType]:
        """Returns the maker of its records."""


_PlanType = TypeVar("_PlanType", bound=ShardPlan[Any])


@dataclasses.dataclass(frozen=True, eq=False)
class Plans(Sequence[_PlanType]):
    """The plans of all shards of one recipe, each made on demand.

    Attributes:
        kind: class of the plans.
        names: names of the shards.
        rows: of each shard's records, in their order, in the columns that `make` uses.
        samples: int64 `[row]`, length of each record.
        bytes_of: returns the approximate size of records from their lengths, int64 `[record]`.
        sample_rate: sample rate in Hz.
        make: returns the plan of a shard in columns, from its name and rows.
    """

    kind: type[_PlanType]
    names: list[schema.ShardName]
    rows: list[np.ndarray]
    samples: np.ndarray
    bytes_of: Callable[[np.ndarray], np.ndarray]
    sample_rate: int
    make: Callable[[schema.ShardName, np.ndarray], Columns]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> _PlanType: ...
    @overload
    def __getitem__(self, index: slice) -> list[_PlanType]: ...
    def __getitem__(self, index: int | slice) -> _PlanType | list[_PlanType]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        found = self.kind.of(self.make(self.names[index], self.rows[index]))
        assert isinstance(found, self.kind)
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    def columns(self) -> Iterator[Columns]:
        """Yields the plans in columns."""
        return map(self.make, self.names, self.rows)

    @property
    def paths(self) -> list[str]:
        """Paths of the shards in the dataset's folder."""
        return [f"{self.kind.COLUMNS.FOLDER}{name}" for name in self.names]

    @property
    def num_records(self) -> int:
        """Number of records in all shards."""
        return sum(map(len, self.rows))

    @property
    def num_bytes(self) -> int:
        """Approximate size of all files in bytes."""
        return sum(int(self.bytes_of(self.samples[rows]).sum()) for rows in self.rows)

    @property
    def seconds_of_work(self) -> dict[str, float]:
        """Approximate seconds that one core takes for each shard, by the shard's path."""
        samples = [int(self.samples[rows].sum()) for rows in self.rows]
        speed = self.sample_rate * self.kind.SPEED
        return {path: count / speed for path, count in zip(self.paths, samples, strict=True)}


def digest(digests: Iterable[str]) -> str:
    """Returns the SHA-256 of a whole plan, from those of its shards."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def find(shard: ShardPlan[_SidecarType], folder: str) -> _SidecarType | None:
    """Returns the side-car of a shard that already exists and is complete.

    Args:
        shard: the plan.
        folder: the dataset's folder.

    Returns:
        None if the shard or its side-car is missing, damaged, of another plan, or written with
        other versions than those of this process: its bytes could be different.
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
    """Reads the side-car of a shard that has been written.

    Args:
        shard: the plan.
        folder: the dataset's folder.

    Raises:
        UserError: it cannot be read, is damaged, or of another plan.
    """
    return read_sidecar(storage.join(folder, shard.path), shard.digest, shard.SIDECAR)


def read_sidecars(
    folder: str, digests: Mapping[str, str], kind: type[_SidecarType]
) -> Iterator[_SidecarType]:
    """Yields the side-cars of shards, some of them read ahead.

    Args:
        folder: the dataset's folder.
        digests: `ShardPlan.digest` by path in the folder, in the order of the side-cars.
        kind: class of the side-cars, or one with some of the fields.

    Raises:
        UserError: as `read` does.
    """

    def read_one(item: tuple[str, str]) -> _SidecarType:
        path, plan_digest = item
        return read_sidecar(storage.join(folder, path), plan_digest, kind)

    return threads.in_order(read_one, digests.items())


def read_sidecar(path: str, plan_digest: str, kind: type[_SidecarType]) -> _SidecarType:
    """Reads the side-car of the shard at a path; raises UserError as `read` does."""
    path = f"{path}.json"
    try:
        sidecar = stored_json.loads(storage.read_bytes(path), kind)
        if sidecar.plan_digest == plan_digest:
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
        folder: the dataset's folder.
        on_record: called after each planned record, for progress.

    Returns:
        The side-car.

    Raises:
        UserError: a recording cannot be read, or has changed since the plan was made.
        OSError: the folder cannot hold the file.
    """
    path = storage.join(folder, shard.path)
    columns = shard.columns
    atomic.make_folder(storage.join(folder, columns.FOLDER))
    maker, features = shard.maker(), columns.features
    with atomic.create(path) as file:
        writer = tfrecord.Writer(file)
        for values in maker.records():
            if values is not None:
                record = encode(features, values)
                maker.count(values, record, writer.write(record))
            on_record()
    info = dataset.ShardInfo(str(shard.name), writer.records, writer.bytes, writer.sha256)
    sidecar = maker.sidecar(info, columns.digest)
    atomic.write_text(f"{path}.json", sidecar.to_json())
    return sidecar


def encode(features: Sequence[schema.Feature], values: Mapping[str, Any]) -> bytes:
    """Returns a record: a serialised `tf.train.Example` of these values."""
    lists = schema.encode(features, values)
    return tfrecord.example_bytes({f.name: (f.kind, lists[f.name]) for f in features})


def check_files(infos: Mapping[str, dataset.ShardInfo], contents: bool) -> None:
    """Compares shards with their side-cars, as the last step before the marker.

    A worker that outlived its job may have replaced a shard after its side-car was read.

    Args:
        infos: by the shard's path.
        contents: compare SHA-256, too, which reads all files; otherwise only the lengths of local
            files.

    Raises:
        UserError: a shard is different or missing.
    """

    def differs(path: str) -> bool:
        info = infos[path]
        if not storage.is_remote(path) and os.path.getsize(path) != info.bytes:
            return True
        return contents and storage.sha256(path) != info.sha256

    for path, other in zip(infos, threads.in_order(differs, infos), strict=True):
        if other:
            raise errors.UserError(
                f"{path}: is not what the JSON beside it describes; did another job write here? "
                "Run the same command again"
            )


def common_versions(sidecars: Iterable[Sidecar]) -> dict[str, str]:
    """Returns the versions with which all shards of a dataset were written.

    Args:
        sidecars: side-cars of all its shards, at least one.

    Raises:
        UserError: they differ, for example between workers, so the bytes do not follow from the
            plan.
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
