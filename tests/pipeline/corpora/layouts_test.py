"""Corpora as unpacked, and folders that look like speakers' folders but are not."""

import numpy as np
import pytest
import soundfile

from pipeline import errors
from pipeline.corpora import corpus

RATE = 16000


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return str(folder)


def speakers(found):
    return {(u.speaker, u.split) for u in found.utterances}


@pytest.mark.parametrize(
    ("dev", "test", "splits"),
    [
        ("wav", "wav", ("", "")),
        ("vox1_dev_wav/wav", "vox1_test_wav/wav", ("train", "test")),
        ("dev/wav", "test/wav", ("train", "test")),
        ("", "", ("", "")),
    ],
)
def test_voxceleb(tmp_path, dev, test, splits):
    paths = [f"{dev}/id10001/1zcIwhmdeo4/0000{n}.wav" for n in (1, 2)]
    paths += [f"{dev}/id10001/7gWzIy6yIIk/00001.wav", f"{test}/id10270/5r0dWxy17C8/00001.wav"]
    found = corpus.read_folder(make(tmp_path, *(path.lstrip("/") for path in paths)))
    assert found.kinds[0][1] == "voxceleb"
    assert len(found.utterances) == 4
    assert speakers(found) == {("id10001", splits[0]), ("id10270", splits[1])}
    with pytest.raises(errors.UserError, match="one of VoxCeleb's speakers; name the folder above"):
        corpus.read_folder(str(tmp_path / dev / "id10001"))


def test_vctk_as_it_unpacks(tmp_path):
    folder = make(
        tmp_path,
        "wav48_silence_trimmed/p225/p225_001_mic1.flac",
        "wav48_silence_trimmed/p225/p225_001_mic2.flac",
        "wav48_silence_trimmed/p225/p225_002_mic2.flac",
        "wav48_silence_trimmed/s5/s5_001_mic1.flac",
        "wav48_silence_trimmed/s5/s5_001_mic2.flac",
        "wav48_silence_trimmed/log.txt",
        "speaker-info.txt",
    )
    for root in (folder, folder + "/wav48_silence_trimmed"):
        found = corpus.read_folder(root)
        assert [(u.path.rpartition("/")[2], u.speaker) for u in found.utterances] == [
            ("p225_001_mic1.flac", "p225"),
            ("p225_002_mic2.flac", "p225"),
            ("s5_001_mic1.flac", "s5"),
        ]
        assert "left out, since none is audio" in found.notes[0]
        assert found.notes[1:] == (f"{root}: 2 recordings of further microphones are left out",)
        assert corpus.read([root]).notes == found.notes


def test_a_folder_with_all_of_librispeech_in_it(tmp_path):
    folder = make(
        tmp_path,
        "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac",
        "LibriSpeech/test-clean/1089/134686/1089-134686-0000.flac",
    )
    found = corpus.read_folder(folder)
    assert speakers(found) == {("103", "train"), ("1089", "test")}


def test_a_folder_of_one_format_is_no_speaker(tmp_path):
    folder = make(tmp_path, "clips/common_voice_en_1.mp3", "clips/common_voice_en_2.mp3")
    with pytest.raises(errors.UserError, match="in no speaker's folder"):
        corpus.read_folder(folder)


@pytest.mark.parametrize(
    "parts",
    [
        ("train-100/mix_clean", "train-100/s1", "train-100/s2", "train-100/noise"),
        ("mix_both", "mix_clean", "mix_single", "s1", "s2", "noise"),
        ("2speakers/wav8k/min/tr/mix", "2speakers/wav8k/min/tr/s1", "2speakers/wav8k/min/tr/s2"),
        ("mix", "s1", "s2", "s3"),
    ],
)
def test_mixtures_and_their_voices_are_no_speakers(tmp_path, parts):
    folder = make(tmp_path, *(f"{part}/{n}.wav" for part in parts for n in range(3)))
    above = parts[0].rpartition("/")[0]
    where = f"{folder}/{above}" if above else folder
    with pytest.raises(errors.UserError, match="holds mixtures and their voices") as caught:
        corpus.read_folder(folder)
    assert f"--data_dir={where} " in str(caught.value)


def test_speakers_may_be_called_s1_and_s2(tmp_path):
    folder = make(tmp_path, "s1/bbaf2n.wav", "s2/bbaf1n.wav", "s34/bbaf2n.wav")
    assert speakers(corpus.read_folder(folder)) == {("s1", ""), ("s2", ""), ("s34", "")}


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        (("noisy_testset_wav/p232_001.wav", "clean_testset_wav/p232_001.wav"), "clean_testset_wav"),
        (("alice/1.wav", "bob/1.wav", "noise/1.wav"), "noise"),
        (("train/alice/1.wav", "train/music/1.wav"), "music"),
        (
            ("train-clean-100/103/1240/a.flac", "dev-clean/84/1/b.flac", "mine/x/y.flac"),
            "dev-clean",
        ),
        (("train/anna/1.wav", "test/wav/bob/1.wav"), "wav"),
        (("wav/anna/1.wav", "flac/bob/1.flac"), "flac"),
    ],
)
def test_folders_named_after_something_else_are_no_speakers(tmp_path, paths, name):
    with pytest.raises(errors.UserError, match=f"folder {name} would be a speaker's"):
        corpus.read_folder(make(tmp_path, *paths))


def write(folder, recordings):
    for path, samples in recordings.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, samples, RATE)
    return str(folder)


@pytest.mark.parametrize("below", ["", "p226/"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_same_recordings_under_two_names_are_one_speakers(tmp_path, voice, below, noise):
    random = np.random.default_rng(5)
    recordings = {}
    for number in range(6):
        samples = voice(number, 2.0)
        recordings[f"studio/{below}{number}.wav"] = samples
        # At 5 dB; the mean square of `voice` is 0.0066.
        added = noise * random.standard_normal(samples.size)
        recordings[f"street/{below}{number}.wav"] = samples + added
        recordings[f"zoe/{below}{number}.wav"] = voice(100 + number, 2.0)
    with pytest.raises(errors.UserError, match="street and studio hold the same recordings"):
        corpus.read_folder(write(tmp_path, recordings))


def test_speakers_who_read_the_same_sentences_are_speakers(tmp_path, voice):
    recordings = {f"{s}/{n}.wav": voice(10 * s + n, 2.0) for s in range(10) for n in range(6)}
    # One recording of many that is under two names by mistake.
    recordings["1/0.wav"] = recordings["0/0.wav"]
    found = corpus.read_folder(write(tmp_path, recordings))
    assert len(speakers(found)) == 10


@pytest.mark.recordings
def test_real_sentences_that_all_read_are_not_the_same(recordings, tmp_path):
    paths = sorted((recordings / "timit_sample").rglob("SA1.WAV"))
    assert len(paths) > 8
    voices = {p.parent.name: soundfile.read(p)[0][:32000] for p in paths[:8]}
    # As if all had been cut to one length.
    corpus.read_folder(
        write(tmp_path, {f"{s}/{n}.wav": v for s, v in voices.items() for n in "ab"})
    )
