"""Which recordings are separated, and under which names."""

import os

from export.separation import jobs


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_is_mirrored(tmp_path):
    for name in ("a.wav", "below/a.wav", "below/b.FLAC", "notes.txt", ".hidden.wav"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / "gone.wav").symlink_to(tmp_path / "nowhere")
    found, problems, _ = jobs.plan([tmp_path / "in"], tmp_path / "out", 2)
    voices = [str(job.voice(1).relative_to(tmp_path / "out")) for job in found]
    assert voices == ["a_voice2.wav", "below/a_voice2.wav", "below/b_voice2.wav"]
    assert ["gone.wav" in str(problem) for problem in problems] == [True]


def test_outputs_within_the_folder_are_no_inputs(tmp_path):
    touch(tmp_path / "a.wav")
    touch(tmp_path / "out" / "a_voice1.wav")
    found, _, _ = jobs.plan([tmp_path], tmp_path / "out", 2)
    assert [job.source.name for job in found] == ["a.wav"]


def test_voices_beside_their_recordings_are_no_inputs(tmp_path):
    """As in a second run in the same folder."""
    for name in ("a.wav", "deep/b.mp3", "deep/b.wav", "new.wav"):
        touch(tmp_path / name)
    for name in ("a", "deep/b.mp3", "deep/b.wav"):
        for voice in (1, 2):
            touch(tmp_path / f"{name}_voice{voice}.wav")
    # A recording of its own: the model has two voices.
    touch(tmp_path / "a_voice3.wav")
    found, problems, notes = jobs.plan([tmp_path], tmp_path, 2)
    sources = {str(job.source.relative_to(tmp_path)) for job in found}
    assert sources == {"a.wav", "a_voice3.wav", "deep/b.mp3", "deep/b.wav", "new.wav"}
    assert not problems
    assert notes == [f"{tmp_path}: 6 files are left out, as voices of other recordings in it"]
    # In another place they are recordings like others.
    found, _, notes = jobs.plan([tmp_path], tmp_path / "out", 2)
    assert (len(found), notes) == (11, [])


def test_names_that_are_too_long(tmp_path):
    """`_voice1.wav` has 11 bytes, `_voices.json` has 12."""
    stems = ["x" * 243, "x" * 244, "x" * 245, "é" * 122 + "x"]
    for stem in stems:
        touch(tmp_path / f"{stem}.wav")

    def refused(**how):
        _, problems, _ = jobs.plan([tmp_path], tmp_path / "out", 2, **how)
        assert all("rename it" in str(problem) for problem in problems)
        return {problem.recording for problem in problems}

    paths = [str(tmp_path / f"{stem}.wav") for stem in stems]
    assert refused() == {paths[2], paths[3]}
    assert refused(activity=True) == set(paths[1:])


def test_a_folder_in_the_way(tmp_path):
    source = touch(tmp_path / "a.wav")
    (tmp_path / "out" / "a_voice2.wav").mkdir(parents=True)
    (tmp_path / "out" / "b_voices.png").mkdir()
    inputs = [source, touch(tmp_path / "b.wav")]
    found, problems, _ = jobs.plan(inputs, tmp_path / "out", 2)
    assert [job.source.name for job in found] == ["b.wav"]
    assert [problem.recording for problem in problems] == [str(source)]
    assert "a_voice2.wav is a folder" in str(problems[0])
    found, problems, _ = jobs.plan(inputs, tmp_path / "out", 2, plot=True)
    assert not found
    assert len(problems) == 2


def test_two_recordings_of_one_name(tmp_path):
    first = touch(tmp_path / "x" / "a.wav")
    second = touch(tmp_path / "y" / "a.wav")
    found, problems, _ = jobs.plan([first, second, touch(tmp_path / "b.wav")], tmp_path / "out", 2)
    assert [job.source.name for job in found] == ["a.wav", "b.wav"]
    assert ["would both become" in str(problem) for problem in problems] == [True]
    assert str(second) in str(problems[0])
    found, _, _ = jobs.plan([first, first], tmp_path / "out", 2)
    assert len(found) == 1


def test_names_that_differ_in_their_ending_alone(tmp_path):
    for name in ("a.mp3", "a.opus", "b.wav"):
        touch(tmp_path / "in" / name)
    found, problems, _ = jobs.plan([tmp_path / "in"], tmp_path / "out", 2)
    assert not problems
    assert [job.voice(0).name for job in found] == [
        "a.mp3_voice1.wav", "a.opus_voice1.wav", "b_voice1.wav",
    ]  # fmt: skip


def test_recordings_are_found_by_content_and_others_counted(tmp_path):
    names = {"one.xyz": b"RIFF\x24\0\0\0WAVEfmt ", "two": b"OggS\0\2", "three.dat": b"fLaC\0"}
    names |= {"four.tmp": b"\0\0\0\x1cftypM4A ", "five.webm": b"", "six.aifc": b""}
    names |= {"a.txt": b"text", "b.txt": b"text", "c": b"no audio", "d.PNG": b"\x89PNG"}
    (tmp_path / "in").mkdir()
    for name, data in names.items():
        (tmp_path / "in" / name).write_bytes(data)
    found, problems, notes = jobs.plan([tmp_path / "in"], tmp_path / "out", 2)
    assert {job.source.name for job in found} == set(names) - {"a.txt", "b.txt", "c", "d.PNG"}
    assert not problems
    assert len(notes) == 1
    assert "4 files are left out" in notes[0]
    assert "2 .txt" in notes[0]


def test_no_recording_is_overwritten(tmp_path):
    touch(tmp_path / "a.wav")
    touch(tmp_path / "a_voice1.wav")
    found, problems, _ = jobs.plan([tmp_path], tmp_path, 2)
    assert [job.source.name for job in found] == ["a_voice1.wav"]
    assert ["would overwrite" in str(problem) for problem in problems] == [True]


def test_one_bad_name_does_not_stop_the_others(tmp_path):
    good = touch(tmp_path / "a.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    odd = touch(tmp_path / "b.wav").rename(tmp_path / "..wav")
    names = [tmp_path / ("y" * 300 + ".wav"), tmp_path / "loop.wav", good, odd]
    found, problems, _ = jobs.plan(names, tmp_path / "out", 2)
    assert [job.voice(0) for job in found] == [
        tmp_path / "out" / "a_voice1.wav",
        tmp_path / "out" / "recording_voice1.wav",
    ]
    assert [str(tmp_path) in str(problem) for problem in problems] == [True, True]


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "in" / "a.wav")
    touch(tmp_path / "in" / "St. John" / "b.wav")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("John"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    # chmod does not stop root, whom tests in containers run as.
    monkeypatch.setattr(os, "scandir", refuse)
    found, problems, _ = jobs.plan([tmp_path / "in"], tmp_path / "out", 2)
    assert [job.source.name for job in found] == ["a.wav"]
    assert ["St. John" in str(problem) for problem in problems] == [True]
    assert [problem.recording for problem in problems] == [str(tmp_path / "in" / "St. John")]


def test_what_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    found, problems, _ = jobs.plan([tmp_path / "x.wav", tmp_path / "empty"], tmp_path, 2)
    assert not found
    assert [p.recording for p in problems] == [str(tmp_path / "x.wav"), str(tmp_path / "empty")]
    assert "no such file" in str(problems[0])
    assert "no audio" in str(problems[1])
