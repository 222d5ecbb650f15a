"""The splits of a dataset on disk: their shards, intact records, and mixture lengths.

TensorFlow is needed only for datasets in an object store.
"""

import contextlib
import csv
import dataclasses
import io
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from absl import logging

from pipeline import errors, schema
from pipeline.dataset import dataset, tfrecord
from pipeline.io import storage
from trainer.data import tfio

T = TypeVar("T")

_REMEDY = "make the dataset anew (pipeline.preprocess --overwrite)"
REMEDIES = f"{_REMEDY}, or train on the rest (trainer.task --skip_corrupt)"


class DamagedShardError(errors.UserError):
    """A shard is truncated, has flipped bits, or does not match the info."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Consecutive intact records of a shard: all records, or a part if the shard is damaged.

    Attributes:
        path: path of the shard.
        offset: byte offset of the first record.
        records: number of records.
    """

    path: str
    offset: int
    records: int


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a dataset on disk.

    Attributes:
        folder: folder of the dataset.
        name: `train`, `valid` or `test`.
        info: info of the dataset.
        pieces: pieces to read instead of whole shards if some are damaged.
    """

    folder: str
    name: str
    info: dataset.DatasetInfo
    pieces: tuple[Piece, ...] | None = None

    @property
    def shards(self) -> tuple[dataset.ShardInfo, ...]:
        """The shards listed in the info; other files in the folder are ignored."""
        return self.info.splits[self.name].shards

    @property
    def paths(self) -> list[str]:
        """Paths of the non-empty shards."""
        return [storage.join(self.folder, shard.name) for shard in self.shards if shard.records]

    def check_sizes(self) -> None:
        """Checks the size of every shard, a quick test that finds most damage before the start.

        Raises:
            DamagedShardError: a shard is missing or its size differs from the info.
        """
        for shard in self.shards:
            path = storage.join(self.folder, shard.name)
            try:
                with open_shard(path) as (_, size):
                    pass
            except errors.UserError as error:
                raise DamagedShardError(f"{error}; {REMEDIES}") from error
            if size != shard.bytes:
                raise DamagedShardError(
                    f"{path} has {size} bytes, not {shard.bytes} as {schema.INFO_FILE} says; "
                    f"{REMEDIES}"
                )

    def without_damage(self) -> "Split":
        """Reads all records once and leaves out damaged ones, with a warning.

        Returns:
            This split, or a copy with `pieces` if records are lost.

        Raises:
            DamagedShardError: no record is intact.
        """
        pieces: list[Piece] = []
        lost, places = 0, []
        for shard in self.shards:
            path = storage.join(self.folder, shard.name)
            rows = _whole_records(path)
            pieces += [Piece(path, offset, records) for offset, records in rows]
            missing = shard.records - sum(records for _, records in rows)
            if missing:
                lost += missing
                first = rows[0][1] if rows and not rows[0][0] else 0
                places.append(f"{path}: {missing} of {shard.records}, the first is record {first}")
        if not lost:
            return self
        expected = sum(shard.records for shard in self.shards)
        logging.warning(
            "--skip_corrupt: %d of %d records of %s are lost (%s)",
            lost, expected, self.name, "; ".join(places),
        )  # fmt: skip
        if not pieces:
            raise DamagedShardError(
                f"{self.folder}: no record of {self.name} can be read; {_REMEDY}"
            )
        return dataclasses.replace(self, pieces=tuple(pieces))

    def lengths(self) -> list[int]:
        """Returns the samples of each mixture, in any order, from the dataset's list of mixtures.

        Raises:
            UserError: the list is missing or does not match the shards.
        """
        return self._listed(lambda row: int(row["num_samples"]))

    def speakers(self) -> set[str]:
        """Returns the speakers of the mixtures, from the dataset's list of mixtures.

        Raises:
            UserError: the list is missing or does not match the shards.
        """
        names = [f"speaker_{voice}" for voice in range(1, self.info.num_sources + 1)]

        def speakers(row: dict[str, str]) -> list[str]:
            found = [row[name] for name in names]
            if not all(found):
                raise ValueError(f"mixture {row['mixture_id']} lacks a speaker")
            return found

        return {speaker for row in self._listed(speakers) for speaker in row}

    def _listed(self, value: Callable[[dict[str, str]], T]) -> list[T]:
        """Applies `value` to each of the split's rows in the list of mixtures."""
        path = storage.join(self.folder, schema.MIXTURES_FILE)
        try:
            rows = csv.DictReader(io.StringIO(storage.read_bytes(path).decode(), newline=""))
            found = [value(row) for row in rows if row["split"] == self.name]
        except (errors.UserError, csv.Error, KeyError, TypeError, ValueError) as error:
            raise errors.UserError(f"{path} is missing or damaged: {error}") from error
        expected = self.info.splits[self.name].mixtures
        if len(found) != expected:
            raise errors.UserError(
                f"{path} lists {len(found)} mixtures of {self.name}, but the dataset has {expected}"
            )
        return found

    def num_windows(self, frames: int) -> int:
        """Returns the number of windows of `frames` frames, including padded ones."""
        return sum(math.ceil(schema.num_frames(length) / frames) for length in self.lengths())


def open_split(
    folder: str, name: str, info: dataset.DatasetInfo, skip_corrupt: bool = False
) -> Split:
    """Opens a split and checks its shards.

    Args:
        folder: folder of the dataset.
        name: `train`, `valid` or `test`.
        info: info of the dataset.
        skip_corrupt: whether to read everything once and leave out damaged records; otherwise only
            file sizes are checked.

    Raises:
        DamagedShardError: a shard is damaged; with `skip_corrupt`, only if all are.
    """
    split = Split(folder, name, info)
    if skip_corrupt:
        return split.without_damage()
    split.check_sizes()
    return split


@contextlib.contextmanager
def open_shard(path: str) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a shard for reading; returns the file and its size in bytes.

    Raises:
        UserError: the file does not exist or cannot be opened; for object stores, also errors while
            reading.
    """
    if not storage.is_remote(path):
        if not os.path.exists(path):
            raise errors.UserError(f"{path} is missing")
        with open(path, "rb") as local:
            yield local, os.fstat(local.fileno()).st_size
        return
    # `tfio.connect` has set up remote file systems.
    import tensorflow as tf

    try:
        remote: Any = tf.io.gfile.GFile(path, "rb")
        with remote:
            yield remote, remote.size()
    except tf.errors.NotFoundError as error:
        raise errors.UserError(f"{path} is missing") from error
    except tf.errors.OpError as error:
        raise errors.UserError(f"{path} cannot be read: {tfio.first_line(error)}") from error


def _whole_records(path: str) -> list[tuple[int, int]]:
    """As `tfrecord.whole_records`, but an empty list if the file does not exist."""
    try:
        with open_shard(path) as (file, size):
            return list(tfrecord.whole_records(file, size))
    except errors.UserError:
        return []
