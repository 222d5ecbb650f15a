"""One name for all commands: what a person types, and what they are told."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from export import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = sorted(main.COMMANDS)
HEAVY = {"apache_beam", "tensorflow", "keras", "scipy", "matplotlib", "numpy", "jax"}


@pytest.fixture
def apart(run_command):
    """`voices-apart …` as a person types it."""

    def run(*arguments, **how):
        return run_command("export.main", *arguments, **how)

    return run


class TestHelp:
    def test_names_every_command(self, apart):
        done = apart("--help")
        assert done.returncode == 0
        assert done.stderr == ""
        named = re.findall(r"^  ([a-z]+)  ", done.stdout, re.MULTILINE)
        assert named == list(main.COMMANDS)
        assert apart("help").stdout == done.stdout == apart("-h").stdout

    def test_loads_no_library(self):
        code = (
            "import sys; sys.argv = ['voices-apart', '--help']; from export import main\n"
            "main.main(); print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert not HEAVY & set(done.stderr.split())

    @pytest.mark.parametrize("command", MODULES)
    def test_of_a_command_is_that_of_its_module(self, apart, run_command, command):
        module = main.COMMANDS[command][0]
        typed, usual = apart(command, "--help"), run_command(module, "--help")
        assert typed.returncode == usual.returncode == 0
        # But for its name, which is the one that was typed.
        assert typed.stdout == usual.stdout.replace(
            f"python -m {module} ", f"voices-apart {command} "
        )
        assert f"voices-apart {command} " in typed.stdout
        assert "--verbosity" in typed.stdout

    def test_of_a_command_in_the_other_order(self, apart):
        assert apart("help", "lite").stdout == apart("lite", "--help").stdout

    def test_version(self, apart):
        from pipeline import version

        for arguments in (["--version"], ["separate", "--version"]):
            assert apart(*arguments).stdout == f"{version.VERSION}\n"

    def test_into_a_pipe_that_is_closed(self, tmp_path):
        """As in `voices-apart separate --help | head -1`."""
        done = subprocess.run(
            ["sh", "-c", '"$0" -m export.main separate --help | true', sys.executable],
            cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        assert done.stderr == ""


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "name a command: separate, "),
            (["seperate", "call.m4a"], "no command 'seperate'; did you mean separate?"),
            (["saved_model"], "did you mean export?"),
            (["task"], "did you mean train?"),
            (["evalute"], "did you mean evaluate?"),
            (["sing"], "no command 'sing'"),
            (["--model=x", "separate"], "--model=x stands before the command"),
            (["setup.py"], "to separate it: voices-apart separate setup.py"),
            (["help", "sing"], "no command 'sing'"),
        ],
    )
    def test_are_told_in_one_line(self, apart, arguments, words):
        done = apart(*arguments)
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("error: ")
        assert words in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["separate"], 2, "name at least one recording"),
            (["separate", "--nosuch"], 2, "nosuch"),
            (["separate", "absent.wav"], 1, "no such file"),
            (["preprocess", "--input_dir=x", "--output_dir=y", "--nosuch"], 2, "nosuch"),
            (["evaluate", "model"], 2, "is no flag"),
            (["train", "--data_dir=absent", "--model_dir=run"], 1, "absent"),
        ],
    )
    def test_of_commands_keep_their_exit_codes(self, apart, tmp_path, arguments, code, words):
        env = {"PYTHONPATH": str(ROOT)}
        done = apart(*arguments, cwd=tmp_path, env=env)
        assert done.returncode == code
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert words in lines[0]
        assert "Traceback" not in done.stderr


def test_it_does_what_the_module_does(apart, run_command, saved, speechlike, tmp_path):
    soundfile.write(tmp_path / "call.wav", speechlike(16000), 8000)
    flags = [tmp_path / "call.wav", f"--model={saved.saved_model}"]
    typed = apart("separate", *flags, f"--output_dir={tmp_path / 'a'}")
    usual = run_command("export.separate", *flags, f"--output_dir={tmp_path / 'b'}")
    assert typed.returncode == usual.returncode == 0, typed.stderr
    for name in ("call_voice1.wav", "call_voice2.wav"):
        np.testing.assert_array_equal(
            (tmp_path / "a" / name).read_bytes(), (tmp_path / "b" / name).read_bytes()
        )
        assert str(tmp_path / "a" / name) in typed.stdout


def test_worker_processes_find_their_way_back(apart, tmp_path):
    """A command that starts processes is found by them under its own module's name."""
    pytest.importorskip("espeakng_loader")
    done = apart(
        "voices", f"--output_dir={tmp_path / 'corpus'}", "--num_speakers=2",
        "--num_test_speakers=1", "--utterances_per_speaker=1", "--num_workers=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "corpus").rglob("SX*.WAV"))) == 3


class TestCompletion:
    @pytest.fixture
    def complete(self, tmp_path):
        """What a shell would offer after what has been typed."""
        pytest.importorskip("argcomplete")

        def ask(line):
            offered = tmp_path / "offered"
            subprocess.run(
                [sys.executable, "-m", "export.main"],
                cwd=ROOT, check=False, capture_output=True,
                env={
                    **os.environ, "_ARGCOMPLETE": "1", "COMP_LINE": line, "_ARGCOMPLETE_IFS": "\n",
                    "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
                    "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
                    "_ARGCOMPLETE_STDOUT_FILENAME": str(offered),
                },
            )  # fmt: skip
            return offered.read_text().split("\n")

        return ask

    def test_of_commands(self, complete):
        assert complete("voices-apart pre") == ["preprocess"]

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("voices-apart separate --output", "--output_dir"),
            ("voices-apart train --data", "--data_dir"),
            ("voices-apart preprocess --level ", "raw"),
        ],
    )
    def test_of_flags(self, complete, line, expected):
        assert expected in complete(line)
