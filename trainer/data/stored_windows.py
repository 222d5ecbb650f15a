"""Batches of windows from the dataset's shards, with tf.data.

For training on local files, only this module reads with TensorFlow, on any Keras backend: networks,
losses and metrics use `keras.ops` and accept these batches. With a backend other than TensorFlow,
the GPUs are hidden from TensorFlow.
"""

import contextlib
import dataclasses
import math
import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from pipeline import schema
from pipeline.io import storage
from trainer.data import mapped_windows, splits

_FEATURES = {feature.name: feature for feature in schema.MIXTURE_FEATURES}
_SIZES = ("num_samples", "num_frames")
_READ_BUFFER = 4 << 20
_PARALLEL_SHARDS = 8


def _leave_gpus_to_the_backend() -> None:
    """Keeps TensorFlow from allocating memory on GPUs that another backend uses.

    Otherwise its first eager operation would reserve all free memory.
    """
    if keras.backend.backend() != "tensorflow":
        # This fails if the process has already used TensorFlow; it then keeps its memory.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


_leave_gpus_to_the_backend()


def windows(
    split: splits.Split,
    features: Sequence[str],
    *,
    frames: int,
    batch_size: int,
    first_batch: int = 0,
    seed: int = 0,
    shuffle_buffer: int = 4096,
    cache: bool = False,
) -> tf.data.Dataset:
    """Returns endless batches of all windows of all mixtures, reshuffled in each pass.

    The order depends only on the seed and the pass, so a dataset that starts at `first_batch`
    continues exactly like one that starts at 0. All batches have the same shape: the last batch of
    a pass is filled with windows from the start of the pass.

    Args:
        split: split to read.
        features: names of the arrays to read.
        frames: number of frames in a window; a window has 64 times as many samples.
        batch_size: number of windows in a batch.
        first_batch: index of the first batch.
        seed: seed of the order.
        shuffle_buffer: number of windows in the shuffle buffer; for whole local shards it only
            holds their indices, otherwise 39 KB per window with one mask.
        cache: whether to keep all windows in memory after the first pass.

    Returns:
        Endless dataset of dicts: each feature in its stored dtype (float16, int16, or codes in
        uint8), with a leading batch axis and the window length for `T` or `N`; and `frame_mask`,
        uint8 `[batch, frame]`, 1 for valid frames.
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
    mapped = None
    if not cache and split.pieces is None and not storage.is_remote(split.folder):
        # Shuffle indices instead of windows; windows are read once they are in a batch.
        mapped = mapped_windows.MappedShards(split, features, frames)
    files = _pieces(split) if mapped is None else _numbers(mapped)
    kept = cut(files).cache() if cache else None

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        # Only this graph's seed: the order must not depend on the global seed of the process.
        tf.random.set_seed(1)
        # Different seeds and passes must not coincide.
        own = number + tf.constant(seed * 1_000_003, tf.int64)
        source = kept
        if source is None:
            shuffled = files.shuffle(files.cardinality(), seed=own)
            source = cut(shuffled) if mapped is None else _number(mapped, shuffled)
        # Cached windows are in memory anyway, so shuffle all of them.
        held = max(shuffle_buffer, batches_per_pass * batch_size) if cache else shuffle_buffer
        batches = (
            source.repeat()
            .take(batches_per_pass * batch_size)
            .shuffle(held, seed=own)
            .batch(batch_size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
        )
        if mapped is None:
            return batches
        return batches.map(
            lambda numbers: _load(mapped, features, frames, numbers),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    first_pass, offset = divmod(first_batch, batches_per_pass)
    passes = tf.data.Dataset.range(first_pass, tf.int64.max)
    batches = passes.flat_map(one_pass).skip(offset)
    return batches.with_options(_options()).prefetch(tf.data.AUTOTUNE)


def find_damage(split: splits.Split, features: Sequence[str]) -> None:
    """Reads every record separately to find the damaged one after a failure.

    Raises:
        splits.DamagedShardError: a record is damaged; the message names shard and record.
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
            raise splits.DamagedShardError(
                f"{path} is damaged at record {number} of {shard.records} (from 0); "
                f"{splits.REMEDIES}"
            ) from error
        if number != shard.records:
            raise splits.DamagedShardError(
                f"{path} has {number} records, not {shard.records}; {splits.REMEDIES}"
            )


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # One process reads everything; Keras splits each batch between several devices.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _pieces(split: splits.Split) -> tf.data.Dataset:
    """Returns the units of reading: paths of shards, or intact pieces if some are damaged."""
    if split.pieces is None:
        return tf.data.Dataset.from_tensor_slices(split.paths)
    columns = zip(*map(dataclasses.astuple, split.pieces), strict=True)
    path, offset, records = map(list, columns)
    return tf.data.Dataset.from_tensor_slices(
        (path, tf.constant(offset, tf.int64), tf.constant(records, tf.int64))
    )


def _interleave(split: splits.Split, pieces: tf.data.Dataset) -> tf.data.Dataset:
    return pieces.interleave(
        _read_shard if split.pieces is None else _read_piece,
        cycle_length=_PARALLEL_SHARDS,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _read_shard(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(path, buffer_size=_READ_BUFFER)


def _read_piece(path: tf.Tensor, offset: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
    # The public class does not support an offset.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_READ_BUFFER, byte_offsets=[offset]
    )
    spec = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(variant, spec).take(records)


def _numbers(mapped: mapped_windows.MappedShards) -> tf.data.Dataset:
    """Returns the index and number of records of each shard."""
    records = tf.constant(mapped.records, tf.int64)
    return tf.data.Dataset.from_tensor_slices(records).enumerate()


def _number(mapped: mapped_windows.MappedShards, shards: tf.data.Dataset) -> tf.data.Dataset:
    """Returns shard, record and window index of each window, int64 `[3]`, in reading order."""

    def chunk(shard: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        counts = tf.numpy_function(mapped.counts, [shard, number], tf.int64)
        return tf.ensure_shape(counts, [None])

    def records(shard: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
        chunks = tf.data.Dataset.range(-(-count // mapped_windows.CHUNK))
        counts = chunks.map(lambda number: chunk(shard, number)).unbatch().enumerate()
        return counts.map(lambda record, windows: (shard, record, windows))

    def of_record(shard: tf.Tensor, record: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
        return tf.stack(
            [tf.fill([windows], shard), tf.fill([windows], record), tf.range(windows)], 1
        )

    # In the order of `_interleave`, in one thread: more are not worthwhile for indices.
    interleaved = shards.interleave(records, cycle_length=_PARALLEL_SHARDS)
    return interleaved.map(of_record).unbatch()


def _load(
    mapped: mapped_windows.MappedShards, names: Sequence[str], frames: int, numbers: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Reads a batch of windows by their indices, int64 `[batch, 3]`."""
    dtypes = [tf.as_dtype(mapped_windows.dtype(name)) for name in names]
    arrays = tf.numpy_function(mapped.batch, [numbers], [*dtypes, tf.uint8])
    shapes = [*(mapped.shape(name) for name in names), [frames]]
    return {
        name: tf.ensure_shape(array, [numbers.shape[0], *shape])
        for name, array, shape in zip([*names, "frame_mask"], arrays, shapes, strict=True)
    }


def _parse(record: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
    """Parses the byte strings of `names` and the record's sizes, and nothing else."""
    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in _SIZES}
    spec |= {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    return tf.io.parse_single_example(record, spec)


def _decode(name: str, values: dict[str, tf.Tensor], num_sources: int) -> tf.Tensor:
    """Decodes an array to its axes in the schema and its stored dtype; bits as 0 and 1."""
    feature = _FEATURES[name]
    sizes = {
        "S": num_sources,
        "K": schema.num_stored_masks(num_sources),
        "N": values["num_samples"],
        "T": values["num_frames"],
        "F": schema.NUM_BINS,
    }
    shape = tf.stack([tf.cast(sizes[axis], tf.int64) for axis in feature.axes])
    encoding = feature.encoding
    assert encoding is not None
    if encoding.packed:
        codes = tf.io.decode_raw(values[name], tf.uint8)
        shifts = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
        bits = tf.bitwise.right_shift(codes[:, tf.newaxis], shifts) & 1
        flat = tf.reshape(bits, [-1])[: tf.reduce_prod(shape)]
    else:
        flat = tf.io.decode_raw(values[name], tf.as_dtype(encoding.dtype))
    array = tf.reshape(flat, shape)
    return tf.ensure_shape(
        array, [sizes[axis] if isinstance(sizes[axis], int) else None for axis in feature.axes]
    )


def _cut(
    record: tf.Tensor, names: Sequence[str], frames: int, num_sources: int
) -> dict[str, tf.Tensor]:
    """Splits a record into windows: each feature gets a leading window axis."""
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
    """Splits `[..., time, ...]` into `[window, ..., time, ...]`, zero-padded at the end."""
    axis = next(i for i, letter in enumerate(axes) if letter in "TN")
    length = frames * (1 if axes[axis] == "T" else schema.HOP)
    lacking = count * length - tf.shape(array, tf.int64)[axis]
    paddings = [[0, lacking if i == axis else 0] for i in range(len(axes))]
    array = tf.pad(array, paddings)
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    array = tf.reshape(array, tf.stack([*before, count, length, *after]))
    array = tf.transpose(array, [axis, *range(axis), *range(axis + 1, len(axes) + 1)])
    return tf.ensure_shape(array, [None, *before, length, *after])
