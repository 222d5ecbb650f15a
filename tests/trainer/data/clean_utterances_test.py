"""Utterances as they are mapped, against the records as TensorFlow parses them."""

import pathlib
import shutil

import msgspec
import numpy as np
import pytest
import tensorflow as tf

from pipeline import errors, schema
from pipeline.dataset import dataset
from pipeline.io import objects, storage
from trainer.data import clean_utterances, tfio


def _records(folder):
    """Speaker, level and samples of every record, in the order of shards and records."""
    for path in sorted(pathlib.Path(folder, "utterances").glob("*.tfrecord")):
        for raw in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(raw).features.feature
            yield (
                feature["speaker_id"].bytes_list.value[0].decode(),
                feature["active_level_db"].float_list.value[0],
                np.frombuffer(feature["samples"].bytes_list.value[0], "<i2"),
            )


def test_what_is_mapped_is_what_the_records_hold(small_dataset):
    found = clean_utterances.read(str(small_dataset), dataset.read(str(small_dataset)))
    expected = list(_records(small_dataset))
    assert len(found.samples) == len(expected) == 12
    speakers = [speaker for speaker, _, _ in expected]
    for number, (_, level, samples) in enumerate(expected):
        np.testing.assert_array_equal(found.samples[number], samples)
        assert found.levels_db[number] == pytest.approx(level, abs=1e-5)
    names = sorted(set(speakers))
    assert len(found.by_speaker) == len(names) == 4
    for name, numbers in zip(names, found.by_speaker, strict=True):
        assert [speakers[number] for number in numbers] == [name] * 3
    assert found.num_samples == sum(len(samples) for _, _, samples in expected)
    # Nothing was read into memory.
    assert not found.samples[0].flags.owndata


def test_speakers_are_sorted_and_their_utterances_in_order():
    rng = np.random.default_rng(0)
    speakers = [f"s{number}é" for number in rng.integers(0, 40, 300)]
    found = clean_utterances.Utterances.of([np.zeros(1, np.int16)] * 300, [0.0] * 300, speakers)
    expected = [
        [number for number, speaker in enumerate(speakers) if speaker == name]
        for name in sorted(set(speakers))
    ]
    assert [list(numbers) for numbers in found.by_speaker] == expected
    assert clean_utterances.Utterances.of([], [], []).by_speaker == ()


def test_shards_in_a_store_may_be_larger_than_a_recording(small_dataset, monkeypatch):
    """TensorFlow's file system in memory plays the store."""
    place = "ram://utterances/data"
    for path in small_dataset.rglob("*"):
        if path.is_file():
            copy = f"{place}/{path.relative_to(small_dataset).as_posix()}"
            tf.io.gfile.makedirs(copy.rpartition("/")[0])
            with tf.io.gfile.GFile(copy, "wb") as file:
                file.write(path.read_bytes())
    info = dataset.read(str(small_dataset))
    index = (small_dataset / "utterances" / schema.UTTERANCES_INDEX_FILE).stat().st_size
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", index)
    assert index < min(shard.bytes for shard in info.utterances.shards)
    monkeypatch.setattr(clean_utterances, "_BLOCK", 5000)
    try:
        tfio.connect(place)
        found = clean_utterances.read(place, info)
        name = info.utterances.shards[1].name
        tf.io.gfile.remove(f"{place}/utterances/{name}")
        with pytest.raises(errors.UserError, match=rf"{name} is missing"):
            clean_utterances.read(place, info)
    finally:
        objects.read_through(None)
        tf.io.gfile.rmtree(place)
    for one, other in zip(found.samples, _samples(small_dataset), strict=True):
        np.testing.assert_array_equal(one, other)


def _samples(folder):
    return clean_utterances.read(str(folder), dataset.read(str(folder))).samples


@pytest.fixture
def copy(small_dataset, tmp_path):
    shutil.copytree(small_dataset, tmp_path / "data")
    return tmp_path / "data"


def _read(folder):
    return clean_utterances.read(str(folder), dataset.read(str(folder)))


def _index(folder):
    return folder / "utterances" / schema.UTTERANCES_INDEX_FILE


def test_a_dataset_without_utterances_says_how_to_make_them(copy):
    info = msgspec.structs.replace(dataset.read(str(copy)), utterances=None)
    with pytest.raises(errors.UserError, match=r"no clean utterances .*--utterances, .*or train"):
        clean_utterances.read(str(copy), info)
    _index(copy).unlink()
    with pytest.raises(errors.UserError, match=r"index\.csv: no such file"):
        _read(copy)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("offset", "place"),
        lambda text: text.replace(",low,", ",low,x,"),
        lambda text: text.replace("\ntrain-0", "\n../train-0", 1),
        lambda text: text.rsplit(",", 1)[0] + ",nan\n",
        lambda text: text[: len(text) // 2],
        lambda text: text.encode() + b"\xff\xfe",
        lambda text: "shard\n" + "x" * 200_000,
    ],
)
def test_a_damaged_index_is_one_clear_line(copy, spoil):
    spoilt = spoil(_index(copy).read_text())
    _index(copy).write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt.encode())
    with pytest.raises(errors.UserError, match=r"index\.csv is damaged") as error:
        _read(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_a_damaged_shard_is_one_clear_line(copy, damage):
    path = copy / "utterances" / "train-00001-of-00002.tfrecord"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5000] if damage == "cut" else b"")
    what = "shorter than .*index.csv says" if damage == "cut" else "is missing or empty"
    with pytest.raises(errors.UserError, match=what) as error:
        _read(copy)
    assert "train-00001-of-00002.tfrecord" in str(error.value)
    assert "\n" not in str(error.value)
