"""From the dataset's shards to batches of windows, with tf.data.

Of what trains on local files only this reads with TensorFlow, whatever Keras computes on: networks,
losses and metrics are `keras.ops`, and take these batches on any backend. On another backend than
TensorFlow the GPUs are hidden from it.
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
    """Keeps TensorFlow from taking the memory of GPUs that another backend computes on.

    Its first eager operation would reserve all that is left.
    """
    if keras.backend.backend() != "tensorflow":
        # Too late where this process has used TensorFlow before; then it has what it has.
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
        shuffle_buffer: windows that are held for shuffling; of whole local shards their numbers
            alone, otherwise 39 KB each with one mask.
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
    mapped = None
    if not cache and split.pieces is None and not storage.is_remote(split.folder):
        # Numbers take the way of windows, which are read when they are in a batch.
        mapped = mapped_windows.MappedShards(split, features, frames)
    files = _pieces(split) if mapped is None else _numbers(mapped)
    kept = cut(files).cache() if cache else None

    def one_pass(number: tf.Tensor) -> tf.data.Dataset:
        # The seed of this function's graph alone: the order must not hang on the process's seed.
        tf.random.set_seed(1)
        # Neighbouring seeds and passes must not meet.
        own = number + tf.constant(seed * 1_000_003, tf.int64)
        source = kept
        if source is None:
            shuffled = files.shuffle(files.cardinality(), seed=own)
            source = cut(shuffled) if mapped is None else _number(mapped, shuffled)
        # What is cached lies in memory anyway: then everything is shuffled.
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
    """Reads every record by itself, to say which one is damaged; for after a failure.

    Raises:
        splits.DamagedShardError: names the shard and the record.
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
    # One process reads everything; with several devices Keras splits each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options


def _pieces(split: splits.Split) -> tf.data.Dataset:
    """What is read at a time: paths of shards, or pieces of them where some are damaged."""
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
    # The public class has no offset.
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path], compression_type="", buffer_size=_READ_BUFFER, byte_offsets=[offset]
    )
    spec = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(variant, spec).take(records)


def _numbers(mapped: mapped_windows.MappedShards) -> tf.data.Dataset:
    """Number of each shard, and of its records."""
    records = tf.constant(mapped.records, tf.int64)
    return tf.data.Dataset.from_tensor_slices(records).enumerate()


def _number(mapped: mapped_windows.MappedShards, shards: tf.data.Dataset) -> tf.data.Dataset:
    """Shard, record and number in it of each window, int64 `[3]`, in the order of `windows`."""

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

    # In the order of `_interleave`, by one thread: numbers are not worth more.
    interleaved = shards.interleave(records, cycle_length=_PARALLEL_SHARDS)
    return interleaved.map(of_record).unbatch()


def _load(
    mapped: mapped_windows.MappedShards, names: Sequence[str], frames: int, numbers: tf.Tensor
) -> dict[str, tf.Tensor]:
    """A batch of windows by their numbers, int64 `[batch, 3]`."""
    dtypes = [tf.as_dtype(mapped_windows.dtype(name)) for name in names]
    arrays = tf.numpy_function(mapped.batch, [numbers], [*dtypes, tf.uint8])
    shapes = [*(mapped.shape(name) for name in names), [frames]]
    return {
        name: tf.ensure_shape(array, [numbers.shape[0], *shape])
        for name, array, shape in zip([*names, "frame_mask"], arrays, shapes, strict=True)
    }


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
