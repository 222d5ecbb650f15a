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
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, ClassVar, Generic, TypeVar, overload

import msgspec
import numpy as np

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


class Columns(stored_json.Stored, frozen=True, kw_only=True):
    """All that decides the bytes of one shard, in columns: what the launching process writes.

    Attributes:
        name: of the shard.
        sample_rate: in Hz.
        paths: of the recordings.
        FOLDER: in which such shards lie, within the dataset's, with a `/` at its end.
    """

    FOLDER: ClassVar[str] = ""

    name: schema.ShardName
    sample_rate: int
    paths: list[str]

    @property
    def path(self) -> str:
        """Of the shard, within the dataset's folder."""
        return f"{self.FOLDER}{self.name}"

    @property
    def features(self) -> tuple[schema.Feature, ...]:
        """Of its records."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the recordings' paths: a corpus may be moved.

        The list of features is part of it: it decides what the records hold.
        """
        record = schema.fingerprint(self.features)
        facts = [record, self.path, msgspec.structs.replace(self, paths=[])]
        return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


@dataclasses.dataclass(frozen=True)
class ShardPlan(abc.ABC, Generic[_SidecarType]):
    """The same as a worker uses it, record by record.

    Attributes:
        name: of the shard.
        sample_rate: in Hz.
        COLUMNS: the other form.
        SIDECAR: what the JSON beside the shard holds.
        SPEED: about how many seconds of audio a core writes in a second.
    """

    COLUMNS: ClassVar[type[Any]] = Columns
    SIDECAR: ClassVar[type[Any]] = Sidecar
    SPEED: ClassVar[float] = 1.0

    name: schema.ShardName
    sample_rate: int

    @property
    def path(self) -> str:
        """Of the shard, within the dataset's folder."""
        return f"{self.COLUMNS.FOLDER}{self.name}"

    @property
    def digest(self) -> str:
        """Of all that decides its bytes (`Columns.digest`)."""
        return str(self.columns.digest)

    @property
    @abc.abstractmethod
    def columns(self) -> Any:
        """The plan in columns."""

    @classmethod
    @abc.abstractmethod
    def of(cls, columns: Any) -> "ShardPlan[_SidecarType]":
        """The inverse of `columns`."""

    @property
    @abc.abstractmethod
    def num_records(self) -> int:
        """That are planned."""

    @abc.abstractmethod
    def maker(self) -> Maker[_SidecarType]:
        """What makes its records."""


_PlanType = TypeVar("_PlanType", bound=ShardPlan[Any])


@dataclasses.dataclass(frozen=True, eq=False)
class Plans(Sequence[_PlanType]):
    """The plans of all shards of one recipe, each made when somebody asks for it.

    Attributes:
        kind: of the plans.
        names: of the shards.
        rows: of each shard's records, in their order, in columns that `make` knows.
        samples: int64 `[row]`, of each record.
        bytes: int64 `[row]`, about what each record takes.
        sample_rate: in Hz.
        make: a plan in columns, of its name and rows.
    """

    kind: type[_PlanType]
    names: list[schema.ShardName]
    rows: list[np.ndarray]
    samples: np.ndarray
    bytes: np.ndarray
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
        """The plans in columns, one after the other."""
        return map(self.make, self.names, self.rows)

    @property
    def paths(self) -> list[str]:
        """Of the shards, within the dataset's folder."""
        return [f"{self.kind.COLUMNS.FOLDER}{name}" for name in self.names]

    @property
    def num_records(self) -> int:
        """Of all shards together."""
        return sum(map(len, self.rows))

    @property
    def num_bytes(self) -> int:
        """About how many all files take."""
        return sum(int(self.bytes[rows].sum()) for rows in self.rows)

    @property
    def seconds_of_work(self) -> dict[str, float]:
        """About how long a core takes for each shard, by its path."""
        samples = [int(self.samples[rows].sum()) for rows in self.rows]
        speed = self.sample_rate * self.kind.SPEED
        return {path: count / speed for path, count in zip(self.paths, samples, strict=True)}


def digest(digests: Iterable[str]) -> str:
    """SHA-256 of a whole plan, from its shards'."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


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
    return read_sidecar(storage.join(folder, shard.path), shard.digest, shard.SIDECAR)


def read_sidecar(path: str, plan_digest: str, kind: type[_SidecarType]) -> _SidecarType:
    """The side-car of a shard at a path, likewise, without its plan."""
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
        folder: of the dataset.
        on_record: called after each planned record, for progress.

    Returns:
        What the side-car holds.

    Raises:
        UserError: a recording cannot be read, or is not the one that the plan was made for.
        OSError: the folder does not take the file.
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
