"""`export.separate` for other programs: who speaks when, JSON, standard input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from export.conversations import conversation, file_separation
from export.separation import jobs


@pytest.fixture
def talk(tmp_path):
    """Low sounds, then high ones, then both: what the stub `bands` takes apart."""
    rate = 8000
    seconds = np.arange(6 * rate) / rate
    low = np.sin(2 * np.pi * 300 * seconds) * ((seconds < 2) | (seconds > 5))
    high = np.sin(2 * np.pi * 2500 * seconds) * ((seconds > 3) & (seconds < 6))
    path = tmp_path / "a talk.wav"
    soundfile.write(path, 0.2 * (low + high), rate, subtype="PCM_16")
    return path


def test_two_files_beside_the_voices(talk, bands, tmp_path):
    job = jobs.Job(talk, tmp_path / "out" / "a talk")
    done = file_separation.separate_file(job, bands, activity=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a talk_voice1.wav", "a talk_voice2.wav", "a talk_voices.rttm", "a talk_voices.json",
    }  # fmt: skip
    assert set(done.files) == set((tmp_path / "out").iterdir())
    told = json.loads(job.summary.read_text())
    assert told == done.summary
    assert told["recording"] == "a talk.wav"
    for voice in told["voices"]:
        assert (job.summary.parent / voice["file"]).exists()
    spans = [(turn["voice"], turn["start"], turn["end"]) for turn in told["turns"]]
    expected = [(1, 0, 2), (2, 3, 6), (1, 5, 6)]
    assert [voice for voice, *_ in spans] == [voice for voice, *_ in expected]
    np.testing.assert_allclose(
        [span[1:] for span in spans], [span[1:] for span in expected], atol=0.11
    )
    lines = job.rttm.read_text().splitlines()
    assert [line.split()[7] for line in lines] == ["voice1", "voice2", "voice1"]
    assert {line.split()[1] for line in lines} == {"a_talk"}


def test_the_turns_of_a_long_recording_are_those_of_a_short_one(talk, bands, tmp_path):
    whole = file_separation.separate_file(jobs.Job(talk, tmp_path / "a"), bands).summary
    pieces = file_separation.separate_file(
        jobs.Job(talk, tmp_path / "b"),
        bands,
        conversation.Options(chunk_seconds=2.0, overlap_seconds=0.5),
    ).summary
    assert [t["voice"] for t in pieces["turns"]] == [t["voice"] for t in whole["turns"]]
    assert pieces["seconds"] == whole["seconds"] == 6.0


def test_nothing_is_left_where_they_cannot_be_written(talk, bands, tmp_path):
    job = jobs.Job(talk, tmp_path / "out" / "talk")
    job.rttm.mkdir(parents=True)
    with pytest.raises(Exception, match="is a folder"):
        file_separation.separate_file(job, bands, activity=True)
    assert list((tmp_path / "out").iterdir()) == [job.rttm]


class TestJson:
    @pytest.fixture
    def asked(self, run_command, saved, tmp_path):
        def run(*arguments, **how):
            return run_command(
                "export.separate", *arguments, "--json", f"--model={saved.saved_model}",
                f"--output_dir={tmp_path / 'out'}", **how,
            )  # fmt: skip

        return run

    def test_one_object_a_line(self, asked, talk, tmp_path):
        (tmp_path / "no.wav").write_bytes(b"dear diary")
        done = asked(talk, tmp_path / "no.wav", tmp_path / "absent.wav", "--activity", "--plot")
        assert done.returncode == 1
        told = [json.loads(line) for line in done.stdout.splitlines()]
        by_name = {one["recording"]: one for one in told}
        assert set(by_name) == {
            str(tmp_path / name) for name in ("a talk.wav", "no.wav", "absent.wav")
        }
        one = by_name[str(talk)]
        assert len(one["files"]) == 5
        for file in (*one["files"], *(voice["file"] for voice in one["voices"])):
            assert (tmp_path / file).exists()
        assert "not audio" in by_name[str(tmp_path / "no.wav")]["error"]
        assert "no such file" in by_name[str(tmp_path / "absent.wav")]["error"]
        assert {one["format"] for one in told} == {1}
        # People are told the same as without --json.
        assert done.stderr.count("error: ") == 2

    def test_a_clean_run_says_nothing_else(self, asked, talk):
        done = asked(talk)
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 1
        assert json.loads(done.stdout)["model"]["network"] == "lstm"


class TestStandardInput:
    def ask(self, saved, data, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "export.separate", *map(str, arguments),
             f"--model={saved.saved_model}"],
            input=data, capture_output=True, timeout=300,
        )  # fmt: skip

    def test_a_recording(self, saved, talk, tmp_path):
        piped, named = tmp_path / "piped", tmp_path / "named"
        done = self.ask(saved, talk.read_bytes(), "-", f"--output_dir={piped}", "--activity")
        assert done.returncode == 0, done.stderr
        assert self.ask(saved, b"", talk, f"--output_dir={named}").returncode == 0
        for voice in (1, 2):
            assert (piped / f"stdin_voice{voice}.wav").read_bytes() == (
                named / f"a talk_voice{voice}.wav"
            ).read_bytes()
        told = json.loads((piped / "stdin_voices.json").read_text())
        assert told["recording"] == "standard input"

    @pytest.mark.parametrize(
        ("data", "words"), [(b"", "no bytes"), (b"dear diary", "not audio")], ids=["none", "text"]
    )
    def test_no_recording(self, saved, tmp_path, data, words):
        done = self.ask(saved, data, "-", f"--output_dir={tmp_path / 'out'}")
        assert done.returncode == 1
        lines = done.stderr.decode().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: standard input: ")
        assert words in lines[0]
        assert not list(tmp_path.rglob("*.wav"))

    def test_not_with_a_stream(self, saved):
        done = self.ask(saved, b"", "-", "--stream")
        assert done.returncode == 2
