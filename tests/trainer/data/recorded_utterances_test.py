"""Utterances read from audio files, against soundfile and soxr."""

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import errors, features, plan
from pipeline.corpora import mixture_list
from pipeline.dataset import dataset
from trainer.data import recorded_utterances


def _info(splits=("train",), **config):
    split = dataset.SplitInfo(1, 2, 1.0, 126, ())
    settings = {"sample_rate": 8000, "num_sources": 2, "masks": [], "min_seconds": 0.5, **config}
    splits = dict.fromkeys(splits, split)
    return dataset.DatasetInfo(1, settings, splits, -3.0, 0.8, -25.0, "", {}, "")


def _list_mixtures(folder, **speakers):
    """A dataset's list of mixtures, one a split, of two voices each."""
    mixtures = [
        plan.Mixture(split, split, 8000, (f"{a}/1", f"{b}/1"), (a, b), (0.0, -1.5))
        for split, (a, b) in speakers.items()
    ]
    (folder / "mixtures.csv").write_text(mixture_list.to_csv(mixtures))


def _record(folder, speakers, name="all.csv", columns="path,speaker"):
    """A manifest of a second of noise of each speaker."""
    rng = np.random.default_rng(0)
    rows = [columns]
    for number, speaker in enumerate(speakers):
        soundfile.write(folder / f"{name}{number}.wav", rng.uniform(-0.1, 0.1, 8000), 8000)
        rows.append(f"{name}{number}.wav,{speaker}")
    (folder / name).write_text("\n".join(rows) + "\n")
    return str(folder / name)


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
    found = recorded_utterances.read([str(path)], "", _info())
    assert [len(s) for s in found.samples] == [len(made[n]) for n in ("a.wav", "b.flac", "c.ogg")]
    for samples, level, name in zip(found.samples, found.levels_db, made, strict=False):
        assert samples.dtype == np.int16
        np.testing.assert_allclose(samples / 32768, made[name], atol=1 / 32768)
        assert level == pytest.approx(features.active_level_db(samples / 32768), abs=0.01)
    assert [list(numbers) for numbers in found.by_speaker] == [[0, 1], [2]]
    assert not caplog.text


def test_nobody_is_learnt_from_who_is_validated_or_tested_with(tmp_path, caplog):
    """By the dataset's own list: it may have been made with --mixture_list, and of other tables."""
    path = _record(tmp_path, "abcdefgh")
    _list_mixtures(tmp_path, train=("a", "b"), valid=("c", "d"), test=("e", "h"))
    info = _info(("train", "valid", "test"))
    assert len(recorded_utterances.read([path], str(tmp_path), info).by_speaker) == 4
    # Where nobody is validated with, all are learnt from.
    assert len(recorded_utterances.read([path], "/nowhere", _info()).by_speaker) == 8
    # A further manifest that declares somebody valid changes nothing for the others.
    other = _record(tmp_path, ["z,valid"], "other.csv", "path,speaker,split")
    assert len(recorded_utterances.read([path, other], str(tmp_path), info).by_speaker) == 4
    assert not caplog.text


def test_nor_from_their_virtual_copies(tmp_path):
    path = _record(tmp_path, ["a~1", "a~2", "c~1", "d~12", "c~x", "~1"])
    _list_mixtures(tmp_path, train=("a", "b"), valid=("c", "d"))
    found = recorded_utterances.read([path], str(tmp_path), _info(("train", "valid")))
    assert len(found.by_speaker) == 4


def test_a_manifest_cannot_make_them_train(tmp_path, caplog):
    path = _record(
        tmp_path, ["a,train", "b,train", "c,train"], columns="path,speaker,split"
    )  # fmt: skip
    _list_mixtures(tmp_path, train=("a", "b"), valid=("c", "x"))
    with caplog.at_level("WARNING", "absl"):
        found = recorded_utterances.read([path], str(tmp_path), _info(("train", "valid")))
    assert len(found.by_speaker) == 2
    assert "declared train there, such as c; 1 of them" in caplog.text


@pytest.mark.parametrize("listed", [None, "mixture_id,split,num_samples\nv,valid,8000\n", ""])
def test_where_the_others_are_not_known_it_is_refused(tmp_path, listed):
    path = _record(tmp_path, "ab")
    if listed is not None:
        (tmp_path / "mixtures.csv").write_text(listed)
    with pytest.raises(errors.UserError, match=r"list of mixtures, .*mixtures\.csv") as error:
        recorded_utterances.read([path], str(tmp_path), _info(("train", "valid")))
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_left_out_with_a_warning(manifest, caplog):
    path, _ = manifest
    (path.parent / "b.flac").write_bytes(b"no audio")
    soundfile.write(path.parent / "c.ogg", np.zeros(8000), 8000)
    with path.open("a") as file:
        file.write("gone.wav,eve,train\n")
    with caplog.at_level("WARNING", "absl"):
        found = recorded_utterances.read([str(path)], "", _info())
    assert len(found.samples) == 1
    assert f"3 recordings of {path} are left out, such as " in caplog.text
    assert len(caplog.text.splitlines()) == 1


def test_nothing_to_learn_from_is_one_line(manifest):
    path, _ = manifest
    with pytest.raises(errors.UserError, match="no recording of the split train can be used"):
        recorded_utterances.read([str(path)], "", _info(min_seconds=100))
    path.write_text("path,speaker,split\na.wav,ann,test\n")
    with pytest.raises(errors.UserError, match="no recording is of the split train"):
        recorded_utterances.read([str(path)], "", _info())
    with pytest.raises(errors.UserError, match=r"nowhere\.csv"):
        recorded_utterances.read([str(path.parent / "nowhere.csv")], "", _info())
