"""The embedded corpus as other readers see it, and errors that a user can make."""

import hashlib
import json
import time

import pytest
import soundfile

from pipeline import errors, voices
from pipeline.corpora import corpus, espeak, harvard, synthetic_speakers


@pytest.fixture(scope="module", autouse=True)
def _library():
    try:
        espeak.version()
    except espeak.EspeakError as error:
        pytest.skip(str(error))


def settings(**changes):
    values = {
        "num_speakers": 6,
        "num_test_speakers": 4,
        "utterances_per_speaker": 2,
        "seed": 0,
        "espeak_version": espeak.version(),
    }
    return voices.Settings(**{**values, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "new" / "voices"
    assert voices.write(folder, settings(), num_workers=2)
    return folder


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_is_read_as_timit_is(folder):
    read = corpus.read_folder(str(folder))
    assert not read.rejections
    assert len(read.utterances) == 10 * 2
    splits = {(u.speaker, u.split, u.sex) for u in read.utterances}
    assert len(splits) == 10
    assert sum(split == "test" for _, split, _ in splits) == 4
    assert all(speaker[0].lower() == sex for speaker, _, sex in splits)
    assert {sex for _, _, sex in splits} == {"f", "m"}


def test_every_recording_is_readable_and_has_its_text(folder):
    paths = sorted(folder.rglob("*.WAV"))
    assert len(paths) == 20
    for path in paths:
        info = soundfile.info(path)
        assert (info.format, info.subtype) == ("NIST", "PCM_16")
        assert (info.samplerate, info.channels) == (16000, 1)
        start, end, text = path.with_suffix(".TXT").read_text().strip().split(" ", 2)
        assert (int(start), int(end)) == (0, info.frames)
        first = harvard.SENTENCES[int(path.stem.removeprefix("SX")) - 1]
        assert text.startswith(first)


def test_train_and_test_share_no_speaker_and_no_sentence(folder):
    def read(split):
        text = " ".join(p.read_text() for p in (folder / split).rglob("*.TXT"))
        return {sentence for sentence in harvard.SENTENCES if sentence in text}

    def names(split):
        return {p.name for p in (folder / split).glob("DR?/*")}

    train, test = read("TRAIN"), read("TEST")
    assert train
    assert test
    assert not train & test
    of_train, of_test = map(synthetic_speakers.sentences, ("train", "test"))
    assert not set(of_train) & set(of_test)
    assert not names("TRAIN") & names("TEST")


def test_names_are_unique_up_to_the_flags_bounds():
    names = [voices.speaker_name("train", i) for i in range(10000)]
    names += [voices.speaker_name("test", i) for i in range(5000)]
    assert len({name[1:] for name in names}) == len(names)
    assert names[0] == "FAAA0"
    assert names[10000][1:] == "ZZZ0"


def test_bytes_depend_on_neither_processes_nor_how_many_speakers_there_are(folder, tmp_path):
    voices.write(tmp_path / "more", settings(num_speakers=9), num_workers=1)
    few, many = digests(folder), digests(tmp_path / "more")
    recordings = [name for name in few if name.endswith((".WAV", ".TXT")) and "DOC" not in name]
    assert len(recordings) == 40
    assert all(few[name] == many[name] for name in recordings)


def test_another_seed_gives_other_speakers(folder, tmp_path):
    voices.write(tmp_path / "v", settings(seed=1, num_speakers=1, num_test_speakers=0))
    assert not set(digests(tmp_path / "v").values()) & set(digests(folder).values())


def test_the_speaker_table_lists_all_as_timits_does(folder):
    lines = (folder / "DOC" / "SPKRINFO.TXT").read_text().splitlines()
    rows = [line.split()[:4] for line in lines if not line.startswith(";")]
    found = sorted(
        [p.name[1:], p.name[0], p.parent.name[2:], {"TRAIN": "TRN", "TEST": "TST"}[p.parts[-3]]]
        for p in folder.glob("T*/DR?/*")
    )
    assert rows == found


def test_again_with_the_same_settings_nothing_is_done(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not voices.write(folder, settings())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_settings_are_refused_and_overwrite_replaces(tmp_path):
    small = settings(num_speakers=1, num_test_speakers=0, utterances_per_speaker=1)
    other = settings(num_speakers=2, num_test_speakers=0, utterances_per_speaker=1)
    voices.write(tmp_path / "v", small)
    with pytest.raises(errors.UserError, match="--overwrite"):
        voices.write(tmp_path / "v", other)
    assert voices.write(tmp_path / "v", other, overwrite=True)
    assert json.loads((tmp_path / "v" / voices.SETTINGS_FILE).read_text())["num_speakers"] == 2
    assert len(list((tmp_path / "v").rglob("*.WAV"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    (tmp_path / "v" / "notes.txt").write_text("mine")
    with pytest.raises(errors.UserError, match=r"holds notes\.txt too"):
        voices.write(tmp_path / "v", small, overwrite=True)
    assert len(list((tmp_path / "v").rglob("*.WAV"))) == 2


def test_a_folder_of_something_else_stays_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(errors.UserError, match="something else"):
        voices.write(tmp_path, settings(), overwrite=True)
    with pytest.raises(errors.UserError, match="not a folder"):
        voices.write(tmp_path / "thesis.txt", settings(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(voices, "_write_speaker_table", fail)
    with pytest.raises(OSError, match="No space"):
        voices.write(tmp_path / "v", settings(num_speakers=1, num_test_speakers=0))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_says_so_and_then_has_nothing_to_do(run_command, tmp_path):
    flags = ("--num_speakers=1", "--num_test_speakers=1", "--utterances_per_speaker=1")
    output = f"--output_dir={tmp_path / 'v'}"
    first = run_command("pipeline.voices", output, *flags)
    assert first.returncode == 0, first.stderr
    assert "2 speakers" in first.stderr
    assert len(list((tmp_path / "v").rglob("*.WAV"))) == 2
    second = run_command("pipeline.voices", output, *flags)
    assert second.returncode == 0
    assert "nothing to do" in second.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--output_dir"),
        (("--output_dir=v", "--num_speakers=0", "--num_test_speakers=0"), "both 0"),
        (("--output_dir=v", "--num_speakers=-1"), "num_speakers"),
        (("--output_dir=v", "--no_such_flag"), "no_such_flag"),
        (("--output_dir=v", "extra"), "extra"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(run_command, tmp_path, flags, message):
    flags = [flag.replace("=v", f"={tmp_path / 'v'}") for flag in flags]
    run = run_command("pipeline.voices", *flags)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert message in run.stderr
    assert not list(tmp_path.iterdir())


def test_help_is_fast_and_lists_every_flag(run_command):
    run_command("pipeline.voices", "--help")  # Fills the file cache.
    start = time.monotonic()
    run = run_command("pipeline.voices", "--help")
    assert time.monotonic() - start < 2
    assert run.returncode == 0
    for flag in ("output_dir", "num_speakers", "num_test_speakers", "seed", "overwrite"):
        assert f"--{flag}" in run.stdout or f"--[no]{flag}" in run.stdout
