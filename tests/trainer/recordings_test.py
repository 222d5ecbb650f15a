"""Utterances read from audio files, against soundfile and soxr."""

import dataclasses

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import corpus, dataset, errors, features
from trainer import recordings


def _info(**config):
    split = dataset.SplitInfo(1, 2, 1.0, 126, ())
    settings = {"sample_rate": 8000, "num_sources": 2, "masks": [], "min_seconds": 0.5, **config}
    return dataset.DatasetInfo(1, settings, {"train": split}, -3.0, 0.8, -25.0, "", {}, "")


@pytest.fixture
def manifest(tmp_path):
    """Six recordings of four speakers, in three containers, rates and splits."""
    rng = np.random.default_rng(0)
    rows = ["path,speaker,split"]
    made = {}
    for name, rate, seconds, speaker, split in (
        ("a.wav", 8000, 1.0, "ann", "train"),
        ("b.flac", 16000, 1.5, "ann", "train"),
        ("c.ogg", 22050, 1.0, "bob", ""),
        ("d.wav", 8000, 0.2, "bob", ""),
        ("e.wav", 8000, 1.0, "cat", "valid"),
        ("f.wav", 8000, 1.0, "dan", "test"),
    ):
        samples = rng.uniform(-0.3, 0.3, int(rate * seconds)).astype(np.float32)
        soundfile.write(tmp_path / name, samples, rate)
        rows.append(f"{name},{speaker},{split}")
        read, _ = soundfile.read(tmp_path / name, dtype="float32")
        made[name] = soxr.resample(read, rate, 8000, "HQ") if rate != 8000 else read
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path, made


def test_reads_train_at_the_datasets_rate(manifest, caplog):
    path, made = manifest
    found = recordings.read([str(path)], _info())
    assert [len(s) for s in found.samples] == [len(made[n]) for n in ("a.wav", "b.flac", "c.ogg")]
    for samples, level, name in zip(found.samples, found.levels_db, made, strict=False):
        assert samples.dtype == np.int16
        np.testing.assert_allclose(samples / 32768, made[name], atol=1 / 32768)
        assert level == pytest.approx(features.active_level_db(samples / 32768), abs=0.01)
    assert [list(numbers) for numbers in found.by_speaker] == [[0, 1], [2]]
    assert not caplog.text


def test_speakers_are_split_as_the_dataset_was(tmp_path):
    rng = np.random.default_rng(0)
    speakers = [f"speaker{number}" for number in range(8)]
    rows = []
    for speaker in speakers:
        soundfile.write(tmp_path / f"{speaker}.wav", rng.uniform(-0.1, 0.1, 8000), 8000)
        rows.append(f"{speaker}.wav,{speaker}")
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["path,speaker", *rows]))
    table = corpus.read(manifests=[str(path)]).utterances
    of_train = [s for s, split in corpus.assign_splits(table, 0.3).items() if split == "train"]
    assert 0 < len(of_train) < 8
    info = _info(valid_fraction=0.3)
    info = dataclasses.replace(info, splits={**info.splits, "valid": info.splits["train"]})
    found = recordings.read([str(path)], info)
    assert len(found.by_speaker) == len(of_train)
    # Where nobody is validated with, all are learnt from.
    assert len(recordings.read([str(path)], _info(valid_fraction=0.3)).by_speaker) == 8


def test_what_cannot_be_read_is_left_out_with_a_warning(manifest, caplog):
    path, _ = manifest
    (path.parent / "b.flac").write_bytes(b"no audio")
    soundfile.write(path.parent / "c.ogg", np.zeros(8000), 8000)
    with path.open("a") as file:
        file.write("gone.wav,eve,train\n")
    with caplog.at_level("WARNING", "absl"):
        found = recordings.read([str(path)], _info())
    assert len(found.samples) == 1
    assert f"3 recordings of {path} are left out, such as " in caplog.text
    assert len(caplog.text.splitlines()) == 1


def test_nothing_to_learn_from_is_one_line(manifest):
    path, _ = manifest
    with pytest.raises(errors.UserError, match="no recording of the split train can be used"):
        recordings.read([str(path)], _info(min_seconds=100))
    path.write_text("path,speaker,split\na.wav,ann,test\n")
    with pytest.raises(errors.UserError, match="no recording is of the split train"):
        recordings.read([str(path)], _info())
    with pytest.raises(errors.UserError, match=r"nowhere\.csv"):
        recordings.read([str(path.parent / "nowhere.csv")], _info())
