"""From the dataset's shards to batches, with tf.data.

TensorFlow is imported here and nowhere else in what trains: networks, losses and metrics are
`keras.ops`, and take these batches on any backend.
"""

import bisect
import csv
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO, cast

import tensorflow as tf
from absl import logging

from pipeline import dataset, errors, schema, tfrecord

_FEATURES = {feature.name: feature for feature in schema.MIXTURE_FEATURES}
_SIZES = ("num_samples", "num_frames")
_READ_BUFFER = 4 << 20
_PARALLEL_SHARDS = 8
_REMEDY = "make the dataset anew (pipeline.preprocess --overwrite)"
_REMEDIES = f"{_REMEDY}, or train on the rest (trainer.task --skip_corrupt)"


class DamagedShardError(errors.UserError):
    """A shard that is cut short, has flipped bits, or does not hold what the info says."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """Whole records in a row: of a shard that is damaged, or all of one that is not.

    Attributes:
        path: of the shard.
        offset: byte at which the first begins.
        records: how many.
    """

    path: str
    offset: int
    records: int


@dataclasses.dataclass(frozen=True)
class Split:
    """One split of a dataset on disk.

    Attributes:
        folder: the dataset's.
        name: `train`, `valid` or `test`.
        info: the dataset's.
        pieces: what is read instead of whole shards, where some are damaged.
    """

    folder: str
    name: str
    info: dataset.DatasetInfo
    pieces: tuple[Piece, ...] | None = None

    @property
    def shards(self) -> tuple[dataset.ShardInfo, ...]:
        """The shards that the info lists; what else lies in the folder is not looked at."""
        return self.info.splits[self.name].shards

    @property
    def paths(self) -> list[str]:
        """Of the shards that hold records."""
        return [os.path.join(self.folder, shard.name) for shard in self.shards if shard.records]

    def check_sizes(self) -> None:
        """Looks at every shard's size, which is quick and finds most damage before the start.

        Raises:
            DamagedShardError: a shard is missing or has another size than the info says.
        """
        for shard in self.shards:
            path = os.path.join(self.folder, shard.name)
            if not tf.io.gfile.exists(path):
                raise DamagedShardError(f"{path} is missing; {_REMEDIES}")
            size = tf.io.gfile.stat(path).length
            if size != shard.bytes:
                raise DamagedShardError(
                    f"{path} has {size} bytes, not {shard.bytes} as {schema.INFO_FILE} says; "
                    f"{_REMEDIES}"
                )

    def without_damage(self) -> "Split":
        """Reads all records once, and leaves out those that are damaged, with a warning.

        Returns:
            The split itself where nothing is lost.

        Raises:
            DamagedShardError: no record is whole.
        """
        pieces: list[Piece] = []
        lost, places = 0, []
        for shard in self.shards:
            path = os.path.join(self.folder, shard.name)
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
        """Samples of each mixture, in no particular order, from the dataset's list of mixtures.

        Raises:
            UserError: the list is missing or does not belong to the shards.
        """
        path = os.path.join(self.folder, schema.MIXTURES_FILE)
        try:
            with tf.io.gfile.GFile(path) as file:
                rows = csv.DictReader(file)
                found = [int(row["num_samples"]) for row in rows if row["split"] == self.name]
        except (tf.errors.OpError, KeyError, TypeError, ValueError) as error:
            raise errors.UserError(f"{path} is missing or damaged: {error}") from error
        expected = self.info.splits[self.name].mixtures
        if len(found) != expected:
            raise errors.UserError(
                f"{path} lists {len(found)} mixtures of {self.name}, but the dataset has {expected}"
            )
        return found

    def num_windows(self, frames: int) -> int:
        """Windows of `frames` frames, the padded ones included."""
        return sum(math.ceil(schema.num_frames(length) / frames) for length in self.lengths())


def open_split(
    folder: str, name: str, info: dataset.DatasetInfo, skip_corrupt: bool = False
) -> Split:
    """A split, after a look at its shards.

    Args:
        folder: the dataset's.
        name: `train`, `valid` or `test`.
        info: the dataset's.
        skip_corrupt: read everything once and leave out what is damaged; else sizes are compared.

    Raises:
        DamagedShardError: a shard is damaged, or with `skip_corrupt` all of them.
    """
    split = Split(folder, name, info)
    if skip_corrupt:
        return split.without_damage()
    split.check_sizes()
    return split


def windows(
    split: Split,
    features: Sequence[str],
    *,
    frames: int,
    batch_size: int,
    first_batch: int = 0,
    seed: int = 0,
    shuffle_buffer: int = 4096,
    cache: bool = False,
) -> tf.data.Dataset:
    """All windows of all mixtures, again and again, shuffled anew each time, in batches.

    The order is a function of seed and pass alone: what starts at `first_batch` goes on exactly as
    what comes from 0. All batches have one shape: what a pass lacks to fill its last batch, it
    takes from its beginning.

    Args:
        split: what to read.
        features: names of the record's arrays that are wanted.
        frames: frames of a window; samples of a window are 64 times as many.
        batch_size: windows in a batch.
        first_batch: where to start.
        seed: of the order.
        shuffle_buffer: windows that are held for shuffling, 39 KB each with one mask.
        cache: keep all windows in memory after the first pass.

    Returns:
        Endless dataset of dicts: each feature, as it is stored (float16, int16, or codes in uint8),
        with a batch axis before its own and the window's length for `T` or `N`; `frame_mask`, uint8
        `[batch, frame]`, 1 for what is not padding.
    """

    def cut(pieces: tf.data.Dataset) -> tf.data.Dataset:
        return (
            _interleave(split, pieces)
            .map(
                lambda record: _cut(record, features, frames, split.info.num_sources),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .unbatch()
        )

    batches_per_pass = math.ceil(split.num_windows(frames) / batch_size)
    files = _pieces(split)
    kept = cut(files).cache() if cache else None

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        # The seed of this function's graph alone: the order must not hang on the process's seed.
        tf.random.set_seed(1)
        # Neighbouring seeds and passes must not meet.
        own = number + tf.constant(seed * 1_000_003, tf.int64)
        source = kept
        if source is None:
            source = cut(files.shuffle(files.cardinality(), seed=own))
        # What is cached lies in memory anyway: then everything is shuffled.
        held = max(shuffle_buffer, batches_per_pass * batch_size) if cache else shuffle_buffer
        return (
            source.repeat()
            .take(batches_per_pass * batch_size)
            .shuffle(held, seed=own)
            .batch(batch_size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
        )

    first_pass, offset = divmod(first_batch, batches_per_pass)
    passes = tf.data.Dataset.range(first_pass, tf.int64.max)
    batches = passes.flat_map(one_pass).skip(offset)
    return batches.with_options(_options()).prefetch(tf.data.AUTOTUNE)


def mixtures(
    split: Split, *, shortest: int = 16000, batch_samples: int = 16 * 32000
) -> tf.data.Dataset:
    """Whole mixtures in batches of similar length, always in the same order.

    There are few shapes, since some backends compile for each: lengths are rounded up to
    `shortest` times 1, 1.5, 2, 3, 4, 6, …, and each length has one batch size. What a batch lacks
    is filled with empty rows.

    Args:
        split: what to read.
        shortest: length to which the shortest are padded.
        batch_samples: samples of one voice in a batch, about.

    Returns:
        Dataset of dicts: `sources`, int16 `[batch, source, sample]`; `num_samples`, int32
        `[batch]`, 0 for an empty row.
    """
    num_sources = split.info.num_sources
    all_lengths = split.lengths()
    steps = [shortest * 2**octave * half // 2 for octave in range(32) for half in (2, 3)]
    steps = steps[: bisect.bisect_left(steps, max(all_lengths, default=1)) + 1]
    counts = Counter(steps[bisect.bisect_left(steps, length)] for length in all_lengths)
    num_batches = sum(
        math.ceil(count / max(batch_samples // length, 1)) for length, count in counts.items()
    )
    table = tf.constant(steps, tf.int64)

    def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
        values = _parse(record, ("sources",))
        sources = _decode("sources", values, num_sources)
        return {"sources": sources, "num_samples": tf.cast(values["num_samples"], tf.int32)}

    def padded_length(values: dict[str, tf.Tensor]) -> tf.Tensor:
        fits = table >= tf.cast(values["num_samples"], tf.int64)
        return tf.reduce_min(tf.boolean_mask(table, fits))

    def size(length: tf.Tensor) -> tf.Tensor:
        return tf.maximum(batch_samples // length, 1)

    def pad(length: tf.Tensor, group: tf.data.Dataset) -> tf.data.Dataset:
        rows = size(length)
        shapes = {"sources": tf.stack([num_sources, length]), "num_samples": []}

        def fill(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            lacking = rows - tf.shape(batch["num_samples"], tf.int64)[0]
            return {
                "sources": tf.pad(batch["sources"], [[0, lacking], [0, 0], [0, 0]]),
                "num_samples": tf.pad(batch["num_samples"], [[0, lacking]]),
            }

        return group.padded_batch(rows, shapes).map(fill)

    batches = (
        _interleave(split, _pieces(split))
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .group_by_window(padded_length, pad, window_size_func=size)
        .map(lambda b: {**b, "sources": tf.ensure_shape(b["sources"], [None, num_sources, None])})
    )
    if split.pieces is None:
        batches = batches.apply(tf.data.experimental.assert_cardinality(num_batches))
    return batches.with_options(_options()).prefetch(tf.data.AUTOTUNE)


def find_damage(split: Split, features: Sequence[str]) -> None:
    """Reads every record by itself, to say which one is damaged; for after a failure.

    Raises:
        DamagedShardError: names the shard and the record.
    """
    for shard in split.shards:
        path = os.path.join(split.folder, shard.name)
        number = 0
        try:
            for record in tf.data.TFRecordDataset(path):
                values = _parse(record, features)
                for name in features:
                    _decode(name, values, split.info.num_sources)
                number += 1
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError) as error:
            raise DamagedShardError(
                f"{path} is damaged at record {number} of {shard.records} (from 0); {_REMEDIES}"
            ) from error
        if number != shard.records:
            raise DamagedShardError(
                f"{path} has {number} records, not {shard.records}; {_REMEDIES}"
            )


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # One process reads everything; with several devices Keras splits each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _pieces(split: Split) -> tf.data.Dataset:
    """What is read at a time: paths of shards, or pieces of them where some are damaged."""
    if split.pieces is None:
        return tf.data.Dataset.from_tensor_slices(split.paths)
    columns = zip(*map(dataclasses.astuple, split.pieces), strict=True)
    path, offset, records = map(list, columns)
    return tf.data.Dataset.from_tensor_slices(
        (path, tf.constant(offset, tf.int64), tf.constant(records, tf.int64))
    )


def _interleave(split: Split, pieces: tf.data.Dataset) -> tf.data.Dataset:
    return pieces.interleave(
        _read_shard if split.pieces is None else _read_piece,
        cycle_length=_PARALLEL_SHARDS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _read_shard(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER)


def _read_piece(path: tf.Tensor, offset: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    # The public class has no offset.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_READ_BUFFER, byte_offsets=[offset]
    )
    spec = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(variant, spec).take(records)


def _whole_records(path: str) -> list[tuple[int, int]]:
    """See `tfrecord.whole_records`; nothing where there is no such file."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return list(tfrecord.whole_records(cast(BinaryIO, file), file.size()))
    except tf.errors.NotFoundError:
        return []


def _parse(record: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
    """The byte strings of `names` and the record's sizes; nothing else is parsed."""
    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in _SIZES}
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    return tf.io.parse_single_example(record, spec)


def _decode(name: str, values: dict[str, tf.Tensor], num_sources: int) -> tf.Tensor:
    """One array with the axes that the schema gives it, in its stored dtype; bits as 0 and 1."""
    feature = _FEATURES[name]
    sizes = {
        "S": num_sources,
        "K": schema.num_stored_masks(num_sources),
        "N": values["num_samples"],
        "T": values["num_frames"],
        "F": schema.NUM_BINS,
    }
    shape = tf.stack([tf.cast(sizes[axis], tf.int64) for axis in feature.axes])
    if feature.encoding == "bits":
        codes = tf.io.decode_raw(values[name], tf.uint8)
        shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
        bits = tf.bitwise.right_shift(codes[:, tf.newaxis], shifts) & 1
        flat = tf.reshape(bits, [-1])[: tf.reduce_prod(shape)]
    else:
        stored = {"int16": tf.int16, "float16": tf.float16}.get(str(feature.encoding), tf.uint8)
        flat = tf.io.decode_raw(values[name], stored)
    array = tf.reshape(flat, shape)
    return tf.ensure_shape(
        array, [sizes[axis] if isinstance(sizes[axis], int) else None for axis in feature.axes]
    )


def _cut(
    record: tf.Tensor, names: Sequence[str], frames: int, num_sources: int
) -> dict[str, tf.Tensor]:
    """One record to its windows: each feature with a leading axis over the windows."""
    values = _parse(record, names)
    num_frames = values["num_frames"]
    count = -(-num_frames // frames)
    windows = {
        name: _cut_array(_decode(name, values, num_sources), _FEATURES[name].axes, count, frames)
        for name in names
    }
    positions = tf.range(count * frames) < num_frames
    windows["frame_mask"] = tf.reshape(tf.cast(positions, tf.uint8), [count, frames])
    return windows


def _cut_array(array: tf.Tensor, axes: Sequence[str], count: tf.Tensor, frames: int) -> tf.Tensor:
    """`[..., time, ...]` to `[window, ..., time, ...]`, filled with zeros at the end."""
    axis = next(i for i, letter in enumerate(axes) if letter in "TN")
    length = frames * (1 if axes[axis] == "T" else schema.HOP)
    lacking = count * length - tf.shape(array, tf.int64)[axis]
    paddings = [[0, lacking if i == axis else 0] for i in range(len(axes))]
    array = tf.pad(array, paddings)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    array = tf.reshape(array, tf.stack([*before, count, length, *after]))
    array = tf.transpose(array, [axis, *range(axis), *range(axis + 1, len(axes) + 1)])
    return tf.ensure_shape(array, [None, *before, length, *after])
