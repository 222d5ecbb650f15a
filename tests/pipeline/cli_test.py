"""Shared behaviour of commands: home folders, stores, closed or limited standard streams."""

import pathlib
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = """
    import sys
    from absl import flags
    from pipeline import cli, errors
    flags.DEFINE_string("output_dir", "~/default", "")
    flags.DEFINE_string("data_dir", "", "")
    flags.DEFINE_string("where", "", "")
    flags.DEFINE_multi_string("input_dir", [], "")
    flags.DEFINE_list("names", [], "")

    def main(arguments):
        print(repr([flags.FLAGS.output_dir, flags.FLAGS.input_dir, flags.FLAGS.names, arguments]))
        print("warning", file=sys.stderr)
        {body}

    cli.run(main, "A test.", {options})
"""


@pytest.fixture
def run(tmp_path):
    def run(*arguments, body="pass", options="", shell="", **env):
        program = tmp_path / "program.py"
        program.write_text(textwrap.dedent(PROGRAM).format(body=body, options=options))
        command = f'exec "$@" {shell}'
        return subprocess.run(
            ["bash", "-c", command, "bash", sys.executable, program, *arguments],
            capture_output=True,
            env={"PATH": "/usr/bin:/bin", "HOME": "/home/ann", "PYTHONPATH": str(ROOT), **env},
            timeout=60,
        )

    return run


def test_the_home_folder_is_expanded_in_every_flag(run):
    done = run("--output_dir=~/voices", "--input_dir=~", "--input_dir=a~b", "--names=~/x,y,~/z")
    assert eval(done.stdout) == [
        "/home/ann/voices", ["/home/ann", "a~b"], ["/home/ann/x", "y", "/home/ann/z"], [],
    ]  # fmt: skip
    assert eval(run().stdout)[0] == "/home/ann/default"
    # Positional arguments are expanded by the shell: a file may have such a name.
    assert eval(run("~/a.wav").stdout)[3] == ["~/a.wav"]
    done = run("--temp_location=~/x", "--other=a~", options="pass_unknown=True")
    assert eval(done.stdout)[3] == ["--temp_location=/home/ann/x", "--other=a~"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--output_dir=s3://bucket/x"], b"--output_dir=s3://bucket/x"),
        (["--names=a,gs://bucket/x"], b"--names=gs://bucket/x"),
        (["s3://bucket/a.wav"], b"s3://bucket/a.wav"),
    ],
)
def test_stores_are_refused_where_only_local_files_are_known(run, arguments, named):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.startswith(b"error: " + named + b": files in a store are not taken here")
    assert done.stderr.count(b"\n") == 1


def test_stores_are_taken_where_they_are_known(run):
    assert run("--data_dir=s3://bucket/x", "--input_dir=gs://b/c").returncode == 0
    assert run("--where=s3://bucket/x", options='remote=("where",)').returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_output_cannot_encode_end_nothing(run, encoding):
    body = r"print('\u0416.wav', '\udcff.wav'); print('done')"
    done = run(body=body, PYTHONIOENCODING=f"{encoding}:strict")
    assert done.returncode == 0
    first, last = done.stdout.splitlines()[1:]
    shown = "\u0416" if encoding == "utf-8" else r"\u0416"
    assert first.decode("utf-8") == rf"{shown}.wav \udcff.wav"
    assert last == b"done"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("SIGINT", 130, b"error: interrupted"), ("SIGTERM", 143, b"error: terminated")],
)
def test_signals_are_one_line(run, name, code, said):
    done = run(body=f"import os, signal; os.kill(os.getpid(), signal.{name}); signal.pause()")
    assert done.returncode == code
    assert done.stderr.splitlines() == [b"warning", said]


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_ends_nothing(run, tmp_path, closed):
    # Messages of libraries must not end up in one of our files, either.
    body = (
        f"file = open({str(tmp_path / 'out')!r}, 'w'); print('x', file=file); file.close(); "
        "import os; os.write(1, b'1'); os.write(2, b'2'); print('done')"
    )
    done = run(body=body, shell=closed)
    assert done.returncode == 0
    assert (tmp_path / "out").read_text() == "x\n"
    if not closed.startswith((">", "<&- >")):
        assert done.stdout.endswith(b"done\n")
    failed = run(body="raise errors.UserError('no')", shell=closed)
    assert failed.returncode == 1


def test_a_file_that_stays_open_has_not_the_number_of_standard_error(run, tmp_path):
    body = f"import os; file = open({str(tmp_path / 'out')!r}, 'w'); os.write(2, b'2')"
    assert run(body=body, shell="<&- >&- 2>&-").returncode == 0
    assert (tmp_path / "out").read_text() == ""
