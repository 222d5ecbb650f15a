"""The demo: a conversation, its voices, who speaks when, and a picture."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_makes_all_that_it_names(run_command, saved, tmp_path):
    pytest.importorskip("espeakng_loader")
    folder = tmp_path / "demo"
    done = run_command("export.demo", f"--output_dir={folder}", f"--model={saved.saved_model}")
    assert done.returncode == 0, done.stderr
    paths, _, turns = done.stdout.partition("\n\n")
    assert {folder / name for name in (
        "conversation.wav", "reference1.wav", "reference2.wav", "conversation_voice1.wav",
        "conversation_voice2.wav", "conversation_voices.png", "conversation_voices.rttm",
        "conversation_voices.json",
    )} == set(folder.iterdir())  # fmt: skip
    assert set(paths.splitlines()) == {str(path) for path in folder.iterdir()}
    assert turns == (folder / "conversation_voices.rttm").read_text()
    assert all(line.startswith("SPEAKER conversation 1 ") for line in turns.splitlines())
    heard, references = soundfile.read(folder / "conversation.wav")[0], []
    for number in (1, 2):
        references.append(soundfile.read(folder / f"reference{number}.wav")[0])
    np.testing.assert_allclose(np.sum(references, axis=0), heard, atol=1.6 / 32768)
    told = json.loads((folder / "conversation_voices.json").read_text())
    assert told["seconds"] == pytest.approx(len(heard) / 16000, abs=1e-3)


def test_a_terminated_demo_leaves_nothing_unfinished(saved, tmp_path):
    pytest.importorskip("espeakng_loader")
    folder, temporary = tmp_path / "demo", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "export.demo", f"--output_dir={folder}",
            f"--model={saved.saved_model}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    names = [pathlib.Path(process.stdout.readline().strip()).name for _ in range(3)]
    assert names == ["conversation.wav", "reference1.wav", "reference2.wav"]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "error: terminated\n")
    assert sorted(path.name for path in folder.iterdir()) == names
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["--model=absent"], 1, "absent"), (["x"], 2, "unexpected argument")],
)
def test_mistakes_leave_nothing(run_command, tmp_path, arguments, code, words):
    done = run_command("export.demo", f"--output_dir={tmp_path / 'demo'}", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "demo").exists()
