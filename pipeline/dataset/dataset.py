"""A dataset's folder: its info, the marker of a complete dataset, the lock, and leftovers."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from pipeline import errors, file_names, schema
from pipeline.io import atomic, file_lock, object_lock, storage, stored_json, threads

WORK_FOLDER = "_work"
# The folders of object stores that this process has locked.
_leases: dict[str, object_lock.Lease] = {}
_PLACES = ("input_dir", "manifest")
_REMEDY = "pipeline.preprocess --overwrite makes the dataset anew"
# Settings of older datasets whose info does not contain them: the longest recording, unless one was
# longer, and the features of that time (`schema.fingerprint`).
_BEFORE = {
    "max_seconds": 600.0,
    "features": "00b9792b4c0c29d93227daf3ab6591124e9d6d76612c9f5b966247518d21d2ca",
}
# The files in the folder besides shards.
_FILES = frozenset(
    (
        schema.INFO_FILE, schema.REJECTED_FILE, schema.MIXTURES_FILE, schema.MARKER_FILE,
        schema.UTTERANCES_INDEX_FILE,
    )
)  # fmt: skip


class DatasetError(errors.UserError):
    """A folder is not a dataset, or not the required one."""


class ShardInfo(stored_json.Stored, frozen=True):
    """One shard: file name, number of records and of bytes, and SHA-256 of the file."""

    name: str
    records: stored_json.Count
    bytes: stored_json.Count
    sha256: str


class SplitInfo(stored_json.Stored, frozen=True):
    """One split: mixtures, speakers, seconds of mixture, spectrogram frames, and its shards."""

    mixtures: stored_json.Count
    speakers: stored_json.Count
    seconds: float
    frames: stored_json.Count
    shards: tuple[ShardInfo, ...]


class UtterancesInfo(stored_json.Stored, frozen=True):
    """The clean utterances of the train split.

    Attributes:
        utterances: number of utterances.
        speakers: number of speakers.
        seconds: total length of all utterances.
        shards: in `schema.UTTERANCES_FOLDER`; their names are without it.
        plan_digest: SHA-256 of their plan.
    """

    utterances: stored_json.Count
    speakers: stored_json.Count
    seconds: float
    shards: tuple[ShardInfo, ...]
    plan_digest: str


class DatasetInfo(stored_json.Stored, frozen=True):
    """The content of `dataset_info.json`.

    Attributes:
        schema_version: version of `pipeline.schema`.
        config: the settings that determine the dataset's content (sample_rate, num_sources, masks,
            level, length, seed, …), without the runner and the number of workers.
        splits: those that have mixtures, by name.
        mean: of the train split's log-magnitudes over all bins and frames; None without train.
        deviation: standard deviation of the same; None without train.
        active_level_db: mean active level of the train split's mixtures, dB; None without train.
        plan_digest: SHA-256 of the mixtures' plan.
        versions: versions of this package and the libraries that determine bytes.
        created: UTC, ISO 8601.
        counts: `recordings` found, `rejected` as unusable, `too_short` for a mixture, `cut` to the
            maximum length, and planned mixtures `dropped` because a voice is hardly active in
            them.
        utterances: clean utterances, stored beside the mixtures; None if there are none.
    """

    schema_version: stored_json.Integer
    config: dict[str, Any]
    splits: dict[str, SplitInfo]
    mean: float | None
    deviation: float | None
    active_level_db: float | None
    plan_digest: str
    versions: dict[str, str]
    created: str
    counts: dict[str, stored_json.Count] = msgspec.field(default_factory=dict)
    utterances: UtterancesInfo | None = None

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return int(self.config["sample_rate"])

    @property
    def num_sources(self) -> int:
        """Number of voices in each mixture."""
        return int(self.config["num_sources"])

    @property
    def masks(self) -> tuple[str, ...]:
        """The stored masks."""
        return tuple(self.config["masks"])

    def to_json(self) -> str:
        """Returns the text of the file."""
        return stored_json.dumps(self, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "DatasetInfo":
        """Parses the text of the file.

        Raises:
            DatasetError: it is not such a text, or has another version of the schema.
        """
        try:
            version = stored_json.loads(text, _Versioned).schema_version
            if version != schema.SCHEMA_VERSION:
                raise DatasetError(
                    f"the dataset has schema version {version}, this program reads "
                    f"{schema.SCHEMA_VERSION}"
                )
            info = stored_json.loads(text, cls)
            stored_json.convert(info.config, _Config)
            parts: list[SplitInfo | UtterancesInfo] = list(info.splits.values())
            if info.utterances is not None:
                parts.append(info.utterances)
            for part in parts:
                for shard in part.shards:
                    schema.ShardName.parse(shard.name)
            return info
        except ValueError as error:
            raise DatasetError(f"{schema.INFO_FILE} is damaged: {error}") from error


@dataclasses.dataclass(frozen=True)
class _Versioned:
    """The part of an info that all versions have in common."""

    schema_version: stored_json.Integer


@dataclasses.dataclass(frozen=True)
class _Config:
    """The part of `DatasetInfo.config` that readers rely on."""

    sample_rate: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    num_sources: Annotated[int, msgspec.Meta(ge=2, le=2**31)]
    masks: tuple[str, ...]

    def __post_init__(self) -> None:
        if not {*self.masks} <= {*schema.MASKS}:
            raise ValueError(f"masks is {', '.join(self.masks)[:60]}")


def read(folder: str) -> DatasetInfo:
    """Reads the info of a finished dataset.

    Args:
        folder: local or with a scheme.

    Raises:
        DatasetError: there is no dataset, or it is incomplete, damaged or of another version; the
            message says what to do.
    """
    text = _read_text(folder, schema.INFO_FILE)
    if _read_text(folder, schema.MARKER_FILE) is not None:
        try:
            if text is not None:
                return DatasetInfo.from_json(text)
            raise DatasetError(f"{schema.INFO_FILE} is missing")
        except DatasetError as error:
            raise DatasetError(f"{folder}: {error}; {_REMEDY}") from error
    if not storage.is_remote(folder) and not os.path.isdir(folder):
        raise DatasetError(f"{folder}: no such folder; make a dataset with pipeline.preprocess")
    names = atomic.names(folder)
    if any(is_shard(name) or name.startswith(file_names.LOCK) for name in names):
        raise DatasetError(
            f"{folder}: the dataset is not whole ({schema.MARKER_FILE} is missing); run "
            "pipeline.preprocess again with the same flags, it computes what is missing"
        )
    raise DatasetError(
        f"{folder}: no dataset here ({schema.MARKER_FILE} and {schema.INFO_FILE} are missing); "
        "make one with pipeline.preprocess"
    )


@contextlib.contextmanager
def lock(folder: str) -> Iterator[None]:
    """Keeps other jobs out of the folder, which is created if it does not exist.

    The lock is released when its process ends, for any reason (`pipeline.io.file_lock`). In an
    object store, it is a lease, which expires a minute after its process has died.

    Raises:
        UserError: another job holds it.
    """
    atomic.make_folder(folder)
    if storage.is_remote(folder):
        with object_lock.Lease(folder) as held:
            _leases[folder] = held
            try:
                yield
            finally:
                del _leases[folder]
        return

    def refusal(owner: str) -> DatasetError:
        return DatasetError(
            f"{folder}: another job (process {owner}) is writing to this folder; wait for it, or "
            "choose another --output_dir"
        )

    with file_lock.hold(os.path.join(folder, file_names.LOCK), refusal):
        yield


def is_whole(folder: str) -> bool:
    """Returns whether the marker exists."""
    return atomic.exists(storage.join(folder, schema.MARKER_FILE))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the differences between the settings of two runs, as `name: old, now new`.

    The locations of the recordings are ignored; see `moved`.
    """
    old, new = {**_BEFORE, **old}, {**_BEFORE, **new}
    return [
        f"{name}: {_short(old.get(name))}, now {_short(new.get(name))}"
        for name in sorted({*old, *new} - {*_PLACES})
        if old.get(name) != new.get(name)
    ]


def moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Returns whether the locations of the recordings differ between the settings of two runs."""
    return any(old.get(name) != new.get(name) for name in _PLACES)


def remove_marker(folder: str) -> None:
    """Removes the marker, so that the folder no longer counts as complete."""
    atomic.remove(storage.join(folder, schema.MARKER_FILE))


def shard_names(folder: str) -> list[str]:
    """Returns all shards in the folder and their side-cars, as paths relative to it."""
    below = f"{schema.UTTERANCES_FOLDER}/"
    names = atomic.names(folder)
    names += [below + name for name in atomic.names(storage.join(folder, below))]
    return [name for name in names if is_shard(name.removeprefix(below))]


def remove_leftovers(folder: str, keep: Iterable[str] | None = None) -> None:
    """Removes what earlier attempts left behind: temporary files and unwanted shards.

    The folder must have been written by a job (`pipeline.dataset.ownership`).

    Args:
        folder: the dataset's folder.
        keep: the shards to keep, with their side-cars, as paths relative to the folder; if None,
            all that have a side-car, since a shard without one cannot be identified.
    """
    kept = None if keep is None else {path for name in keep for path in (name, f"{name}.json")}
    below = f"{schema.UTTERANCES_FOLDER}/"
    names = atomic.names(folder)
    names += [below + name for name in atomic.names(storage.join(folder, below))]
    there = set(names)
    index = below + schema.UTTERANCES_INDEX_FILE
    indexed = kept is None or any(name.startswith(below) for name in kept)
    # Shards come before their side-cars, so that interruption never leaves one without.
    for name in names:
        if is_shard(name.removeprefix(below)):
            alone = not name.endswith(".json") and f"{name}.json" not in there
            unwanted = alone if kept is None else name not in kept
        elif name == index:
            unwanted = not indexed
        else:
            whole = atomic.final_name(name.removeprefix(below))
            unwanted = whole is not None and (whole in _FILES or is_shard(whole))
        if unwanted:
            atomic.remove(storage.join(folder, name))
    if not storage.is_remote(folder):
        with contextlib.suppress(OSError):
            os.rmdir(os.path.join(folder, below))


def finish(
    folder: str,
    info: DatasetInfo,
    mixtures: str | Iterable[str],
    rejected: str,
) -> None:
    """Writes the files about the dataset, and the marker last.

    Args:
        folder: the dataset's folder, with its shards and the utterances' index if there are any.
        info: about the dataset.
        mixtures: text of `mixtures.csv`, whole or in parts.
        rejected: text of `rejected.csv`.
    """
    texts: dict[str, str | Iterable[str]] = {
        schema.MIXTURES_FILE: mixtures,
        schema.REJECTED_FILE: rejected,
        schema.INFO_FILE: info.to_json(),
    }
    for name, text in texts.items():
        parts = [text] if isinstance(text, str) else text
        with atomic.create(storage.join(folder, name)) as file:
            for part in parts:
                file.write(part.encode())
    # After a power failure, the marker must not exist without the rest.
    shards = [shard.name for split in info.splits.values() for shard in split.shards]
    if info.utterances is not None:
        own = [shard.name for shard in info.utterances.shards]
        below = schema.UTTERANCES_FOLDER
        shards += [f"{below}/{name}" for name in (*own, schema.UTTERANCES_INDEX_FILE)]
    paths = [storage.join(folder, name) for name in (*shards, *texts)]
    for _ in threads.in_order(atomic.sync, paths):
        pass
    if folder in _leases:
        _leases[folder].check()
    # Not empty, so that a job recognises its own.
    marker = f"{info.plan_digest}\n"
    atomic.write_text(storage.join(folder, schema.MARKER_FILE), marker)
    if folder in _leases:
        try:
            _leases[folder].check()
        except object_lock.LostError:
            # The job that has taken over has no complete dataset yet. Its own marker stays.
            if _read_text(folder, schema.MARKER_FILE) == marker:
                remove_marker(folder)
            raise


def is_shard(name: str) -> bool:
    """Returns whether a file is named like a shard or its side-car."""
    try:
        schema.ShardName.parse(name.removesuffix(".json"))
    except ValueError:
        return False
    return True


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _read_text(folder: str, name: str) -> str | None:
    """Returns the text of a file of the dataset; None if it does not exist."""
    path = storage.join(folder, name)
    try:
        if storage.is_remote(path):
            return storage.read_bytes(path).decode("utf-8") if atomic.exists(path) else None
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is damaged: {error}; {_REMEDY}") from error
