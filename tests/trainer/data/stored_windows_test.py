"""Batches against the records themselves, read with TensorFlow's parser and NumPy."""

import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline import errors, schema
from pipeline.dataset import dataset
from trainer import losses
from trainer.data import splits, stored_windows, validation_batches

FRAMES = 50


def _split(folder, name="train"):
    return splits.Split(str(folder), name, dataset.read(str(folder)))


def _records(folder, name, masks=schema.MASKS):
    """All records of a split, decoded without the code under test."""
    features = schema.mixture_features(masks)
    for path in sorted(pathlib.Path(folder).glob(f"{name}-*.tfrecord")):
        for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(raw)
            lists = {
                f.name: list(getattr(example.features.feature[f.name], f"{f.kind}_list").value)
                for f in features
            }
            yield schema.decode(features, lists)


def _take(batches, count):
    return list(batches.take(count).as_numpy_iterator())


def _keys(batches):
    """One hashable value for each window, in order."""
    return [row.tobytes() for batch in batches for row in batch["log_magnitude"]]


def _expected_windows(folder):
    """Windows cut in NumPy: dict of the bytes of the log-magnitudes to everything else."""
    windows = {}
    for values in _records(folder, "train"):
        num_frames = values["num_frames"]
        for start in range(0, num_frames, FRAMES):
            valid = min(FRAMES, num_frames - start)

            def pad(array, axis, start=start, step=1):
                chosen = np.take(
                    array,
                    range(start * step, min((start + FRAMES) * step, array.shape[axis])),
                    axis,
                )
                widths = [(0, 0)] * array.ndim
                widths[axis] = (0, FRAMES * step - chosen.shape[axis])
                return np.pad(chosen, widths)

            key = pad(values["log_magnitude"], 0).astype(np.float16).tobytes()
            windows[key] = {
                "frame_mask": np.arange(FRAMES) < valid,
                "sources": pad(values["sources"], 1, step=schema.HOP),
                "voice_activity": pad(values["voice_activity"], 1),
                **{m: pad(values[m], 1) for m in schema.MASKS},
            }
    return windows


def test_all_windows_with_everything_that_belongs_to_them(small_dataset):
    expected = _expected_windows(small_dataset)
    names = ("log_magnitude", "ibm", "irm", "psm", "sources", "voice_activity")
    split = _split(small_dataset)
    assert split.num_windows(FRAMES) == len(expected)
    batch_size = 4
    batches = _take(
        stored_windows.windows(split, names, frames=FRAMES, batch_size=batch_size),
        -(-len(expected) // batch_size),
    )
    assert set(_keys(batches)) == set(expected)
    for batch in batches:
        assert {b.shape[0] for b in batch.values()} == {batch_size}
        targets = {m: np.asarray(losses.decode_targets(batch[m], m, 2)) for m in schema.MASKS}
        for i, key in enumerate(_keys([batch])):
            want = expected[key]
            np.testing.assert_array_equal(batch["frame_mask"][i], want["frame_mask"])
            np.testing.assert_array_equal(batch["sources"][i], want["sources"])
            np.testing.assert_array_equal(batch["voice_activity"][i], want["voice_activity"])
            valid = want["frame_mask"]
            for mask in schema.MASKS:
                stored = want[mask].astype(np.float32)[:, valid]
                np.testing.assert_allclose(
                    targets[mask][i, :1, valid], stored.swapaxes(0, 1), atol=1e-6
                )
                np.testing.assert_allclose(targets[mask][i].sum(axis=0), 1, atol=1e-6)


def test_three_voices_store_all_masks(tmp_path, make_dataset):
    make_dataset(tmp_path, {"train": 2}, num_sources=3)
    batch = _take(stored_windows.windows(_split(tmp_path), ("irm",), frames=30, batch_size=3), 1)[0]
    assert batch["irm"].shape == (3, 3, 30, schema.NUM_BINS)
    targets = np.asarray(losses.decode_targets(batch["irm"], "irm", 3))
    valid = batch["frame_mask"].astype(bool)
    np.testing.assert_allclose(targets.sum(axis=1)[valid], 1, atol=0.01)


@pytest.mark.parametrize(
    ("names", "frames"), [(("log_magnitude", "psm"), 50), (("sources", "ibm"), 37), (("irm",), 400)]
)
@pytest.mark.parametrize("num_sources", [2, 3])
def test_mapped_files_give_what_tensorflows_reader_gives(
    make_dataset, tmp_path, names, frames, num_sources
):
    """The same windows in the same order, wherever it starts, on several passes."""
    make_dataset(tmp_path, {"train": 9}, num_sources=num_sources)
    split = _split(tmp_path)
    pieces = [
        splits.Piece(path, 0, shard.records)
        for path, shard in zip(split.paths, split.shards, strict=True)
    ]
    by_tensorflow = dataclasses.replace(split, pieces=tuple(pieces))
    settings = {"frames": frames, "batch_size": 5, "first_batch": 3, "seed": 2, "shuffle_buffer": 7}
    steps = 3 * -(-split.num_windows(frames) // 5)
    found, expected = (
        _take(stored_windows.windows(of, names, **settings), steps) for of in (split, by_tensorflow)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("cache", [False, True])
def test_order_is_a_function_of_seed_and_pass(small_dataset, cache):
    split = _split(small_dataset)
    steps = -(-split.num_windows(FRAMES) // 8)

    def order(first_batch, count, seed=3, process_seed=0):
        tf.random.set_seed(process_seed)
        batches = stored_windows.windows(
            split,
            ("log_magnitude",),
            frames=FRAMES,
            batch_size=8,
            first_batch=first_batch,
            seed=seed,
            cache=cache,
        )
        return _keys(_take(batches, count))

    whole = order(0, 3 * steps)
    first, second = whole[: 8 * steps], whole[8 * steps : 16 * steps]
    assert first != second
    assert set(first) == set(second)
    # Whoever goes on gets what the others would have got, within a pass and between two.
    assert order(steps, 2 * steps, process_seed=9) == whole[8 * steps :]
    assert (
        order(steps + 2, steps, process_seed=None) == whole[8 * (steps + 2) : 8 * (2 * steps + 2)]
    )
    assert order(0, steps, seed=4) != first


@pytest.mark.slow
def test_python_ends_while_batches_are_read(small_dataset):
    # TensorFlow's threads call Python to fill their buffers.
    code = (
        "from pipeline.dataset import dataset\n"
        "from trainer.data import splits, stored_windows\n"
        f"folder = {str(small_dataset)!r}\n"
        "split = splits.Split(folder, 'train', dataset.read(folder))\n"
        "batches = stored_windows.windows(split, ['sources'], frames=50, batch_size=64)\n"
        "rest = iter(batches)\n"
        "next(rest)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_reads_the_shards_that_the_info_lists(small_dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    shutil.copy(folder / "train-00000-of-00002.tfrecord", folder / "train-00002-of-00003.tfrecord")
    (folder / ".train-00000-of-00002.tfrecord.tmp").write_bytes(b"left behind")
    assert len(_split(folder).paths) == 2


def _damage(path, position, bit=4):
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


def test_names_the_damaged_record(small_dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    path = folder / "train-00001-of-00002.tfrecord"
    records = [len(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    # 16 bytes of frame around each record: the third of the shard is hit in its middle.
    _damage(path, sum(records[:2]) + 2 * 16 + records[2] // 2)
    split = _split(folder)
    split.check_sizes()
    for cache, error in ((True, tf.errors.DataLossError), (False, tf.errors.InvalidArgumentError)):
        batches = stored_windows.windows(
            split, ("log_magnitude",), frames=FRAMES, batch_size=4, cache=cache
        )
        with pytest.raises(error):
            _take(batches, 99)
    message = r"train-00001-of-00002.tfrecord is damaged at record 2 of 5 \(from 0\)"
    with pytest.raises(splits.DamagedShardError, match=message):
        stored_windows.find_damage(split, ("log_magnitude",))


def test_names_the_shard_that_is_cut_short_or_missing(small_dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    path = folder / "train-00000-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        splits.DamagedShardError, match=r"train-00000-of-00002.tfrecord has \d+ bytes"
    ):
        _split(folder).check_sizes()
    path.unlink()
    with pytest.raises(
        splits.DamagedShardError, match=r"train-00000-of-00002\.tfrecord is missing"
    ):
        _split(folder).check_sizes()


def test_refuses_a_list_of_mixtures_that_is_not_the_datasets(small_dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    path = folder / schema.MIXTURES_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]))
    with pytest.raises(errors.UserError, match="lists 4 mixtures of train, but the dataset has 10"):
        _split(folder).num_windows(FRAMES)
    path.unlink()
    with pytest.raises(errors.UserError, match=r"mixtures\.csv is missing"):
        _split(folder).num_windows(FRAMES)


def _spoil(folder):
    """Flips a bit in the third record of one shard and cuts another's last short."""
    first, second = sorted(folder.glob("train-*.tfrecord"))
    records = [len(r) for r in tf.data.TFRecordDataset(str(second)).as_numpy_iterator()]
    _damage(second, sum(records[:2]) + 2 * 16 + records[2] // 2)
    first.write_bytes(first.read_bytes()[:-1000])


def _sources(rows):
    return {row["sources"].tobytes() for row in rows}


def test_goes_on_without_what_is_damaged(small_dataset, tmp_path, caplog):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    whole = {r["mixture_id"]: r for r in _records(folder, "train")}
    _spoil(folder)
    info = dataset.read(str(folder))
    with caplog.at_level("WARNING", "absl"):
        split = splits.open_split(str(folder), "train", info, skip_corrupt=True)
    assert "2 of 10 records of train are lost" in caplog.text
    assert "train-00000-of-00002.tfrecord: 1 of 5, the first is record 4" in caplog.text
    assert "train-00001-of-00002.tfrecord: 1 of 5, the first is record 2" in caplog.text
    # Shard 0 has the even mixtures, shard 1 the odd ones.
    expected = [r for name, r in whole.items() if name not in ("train8", "train5")]
    assert len(expected) == 8
    voices = validation_batches.read(split, skip_corrupt=True)
    assert {sources.tobytes() for sources in voices} == _sources(expected)
    windows = stored_windows.windows(split, ("sources",), frames=350, batch_size=4)
    seen = set()
    for batch in windows.take(6).as_numpy_iterator():
        for row, mask in zip(batch["sources"], batch["frame_mask"], strict=True):
            seen.add((row.tobytes(), int(mask.sum())))
    assert len(seen) == sum(-(-r["num_frames"] // 350) for r in expected)


def test_nothing_changes_where_nothing_is_damaged(small_dataset, caplog):
    info = dataset.read(str(small_dataset))
    split = splits.open_split(str(small_dataset), "train", info, skip_corrupt=True)
    assert split == splits.open_split(str(small_dataset), "train", info)
    assert not caplog.text


def test_missing_shards_are_lost_and_a_split_without_any_is_refused(small_dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_dataset, folder)
    info = dataset.read(str(folder))
    first, second = sorted(folder.glob("train-*.tfrecord"))
    first.unlink()
    with pytest.raises(splits.DamagedShardError, match=r"is missing; .*--skip_corrupt"):
        splits.open_split(str(folder), "train", info)
    split = splits.open_split(str(folder), "train", info, skip_corrupt=True)
    assert [piece.records for piece in split.pieces] == [5]
    second.write_bytes(b"")
    with pytest.raises(splits.DamagedShardError, match="no record of train can be read"):
        splits.open_split(str(folder), "train", info, skip_corrupt=True)


@pytest.mark.parametrize(("backend", "expected"), [("jax", [([], "GPU")]), ("tensorflow", [])])
def test_gpus_are_the_backends(monkeypatch, backend, expected):
    asked = []
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: asked.append(given))
    stored_windows._leave_gpus_to_the_backend()
    assert asked == expected


def test_gpus_are_hidden_before_anything_is_read():
    program = (
        "import keras, tensorflow as tf\n"
        "tf.config.set_visible_devices = lambda *given: print(keras.backend.backend(), given)\n"
        "from trainer.data import stored_windows"
    )
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert done.stdout == "jax ([], 'GPU')\n", done.stderr
