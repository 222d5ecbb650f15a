"""Whole mixtures against the records as TensorFlow parses them, batched and around damage."""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from pipeline.dataset import dataset
from trainer.data import splits, validation_batches


def _split(folder, name="valid"):
    return splits.Split(str(folder), name, dataset.read(str(folder)))


def _records(folder, name):
    """Voices of every record of a split, parsed by TensorFlow."""
    for path in sorted(pathlib.Path(folder).glob(f"{name}-*.tfrecord")):
        for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(raw).features.feature
            shape = [feature[n].int64_list.value[0] for n in ("num_sources", "num_samples")]
            yield np.frombuffer(feature["sources"].bytes_list.value[0], "<i2").reshape(shape)


@pytest.mark.parametrize("name", ["train", "valid"])
def test_voices_are_those_of_the_records(small_dataset, name):
    found = validation_batches.read(_split(small_dataset, name))
    expected = list(_records(small_dataset, name))
    assert len(found) == len(expected) > 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
        assert not one.flags.owndata  # Mapped, not copied.


def test_three_voices(tmp_path, make_dataset):
    make_dataset(tmp_path, {"valid": 1}, num_sources=3)
    (sources,) = validation_batches.read(_split(tmp_path))
    np.testing.assert_array_equal(sources, next(_records(tmp_path, "valid")))


def test_each_mixture_is_in_one_batch_and_there_are_few_shapes(small_dataset):
    mixtures = validation_batches.read(_split(small_dataset, "train"))
    batches = validation_batches.Batches(mixtures, shortest=8000, batch_samples=32000)
    found, shapes = [], set()
    for batch in batches:
        sources, lengths = batch["sources"], batch["num_samples"]
        assert (sources.dtype, lengths.dtype) == (np.int16, np.int32)
        shapes.add(sources.shape)
        for row, length in zip(sources, lengths, strict=True):
            assert not row[:, length:].any()
            if length:
                assert length > row.shape[1] // 1.5 or row.shape[1] == 8000
                found.append(row[:, :length].tobytes())
    assert sorted(found) == sorted(m.tobytes() for m in mixtures)
    assert shapes <= {(4, 2, 8000), (2, 2, 12000), (2, 2, 16000), (1, 2, 24000)}
    assert len(shapes) > 1
    assert len(list(batches)) == len(batches)
    np.testing.assert_array_equal(batches[-1]["sources"], list(batches)[-1]["sources"])


def test_one_long_mixture_is_a_batch():
    (batch,) = validation_batches.Batches([np.ones((2, 100_001), np.int16)], batch_samples=1000)
    assert batch["sources"].shape == (1, 2, 128_000)
    assert len(validation_batches.Batches([])) == 0


@pytest.fixture
def copy(small_dataset, tmp_path):
    shutil.copytree(small_dataset, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_flipped_bit_is_named_at_once(copy):
    path = copy / "valid-00001-of-00002.tfrecord"
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[:8], "little")
    data[16 + first + 5000] ^= 4
    path.write_bytes(data)
    message = r"valid-00001-of-00002.tfrecord is damaged at record 1 of 2 \(from 0\): its checksum"
    with pytest.raises(splits.DamagedShardError, match=message):
        validation_batches.read(_split(copy))
    found = validation_batches.read(_split(copy), skip_corrupt=True)
    expected = [s for n, s in enumerate(_records_before(copy)) if n != 3]
    assert [f.tobytes() for f in found] == [e.tobytes() for e in expected]


def _records_before(folder):
    """All four, the damaged one last, which TensorFlow does not give."""
    try:
        yield from _records(folder, "valid")
    except tf.errors.DataLossError:
        return


def test_shards_that_are_cut_or_gone_are_named(copy):
    path = copy / "valid-00000-of-00002.tfrecord"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(splits.DamagedShardError, match=r"valid-00000-of-00002.tfrecord has \d+"):
        validation_batches.read(_split(copy))
    assert len(validation_batches.read(_split(copy), skip_corrupt=True)) == 3
    path.unlink()
    with pytest.raises(splits.DamagedShardError, match=r"valid-00000-of-00002.tfrecord is missing"):
        validation_batches.read(_split(copy))


def test_records_of_another_dataset_are_refused(tmp_path, make_dataset):
    """As long as the info says, and whole, but of three voices."""
    make_dataset(tmp_path / "two", {"valid": 1})
    make_dataset(tmp_path / "three", {"valid": 1}, num_sources=3)
    for path in (tmp_path / "three").glob("*.tfrecord"):
        shutil.copy(path, tmp_path / "two")
    info = (tmp_path / "three" / "dataset_info.json").read_text()
    info = info.replace('"num_sources": 3', '"num_sources": 2')
    (tmp_path / "two" / "dataset_info.json").write_text(info)
    with pytest.raises(splits.DamagedShardError, match=r"record 0 of 1 .*voices are not 2 of"):
        validation_batches.read(_split(tmp_path / "two"))
