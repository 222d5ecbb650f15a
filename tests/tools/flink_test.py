"""What `python -m tools.flink` hands on to the job; `tests/end_to_end` runs a cluster."""

import contextlib
import subprocess
import types

import pytest

from pipeline import cli
from tools import flink


class Cluster(contextlib.nullcontext):
    """Stands for a cluster that is there at once."""

    url = "http://127.0.0.1:1"

    def __init__(self, *_):
        super().__init__(self)

    def beam_flags(self):
        return ["--runner=FlinkRunner"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["--verbosity=1"], ["--verbosity=1"]),
        (["-v", "1"], ["--verbosity=1"]),
        (["--verbosity=-1"], ["--verbosity=-1"]),
    ],
)
def test_the_job_gets_its_flags_and_how_much_it_is_to_say(monkeypatch, given, expected):
    jobs = []

    def run(job):
        jobs.append(job)
        return types.SimpleNamespace(returncode=7)

    monkeypatch.setattr(flink, "fetch", lambda: None)
    monkeypatch.setattr(flink, "Cluster", Cluster)
    monkeypatch.setattr(flink.signal, "signal", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", run)
    before = cli.flags.FLAGS["verbosity"].value
    # Whatever was said to another test in this process.
    cli.flags.FLAGS["verbosity"].using_default_value = True
    try:
        with pytest.raises(SystemExit) as left:
            cli.run(
                flink.main, "", pass_unknown=True,
                argv=["flink", "--slots=2", "--input_dir=/a", *given, "--output_dir=/b"],
            )  # fmt: skip
    finally:
        cli.flags.FLAGS.unparse_flags()
        cli.flags.FLAGS["verbosity"].value = before
        cli.flags.FLAGS["verbosity"].using_default_value = True
        cli.flags.FLAGS["slots"].unparse()
    assert left.value.code == 7
    (job,) = jobs
    assert job[1:] == [
        "-m", "pipeline.preprocess", "--runner=FlinkRunner", "--input_dir=/a", "--output_dir=/b",
        *expected,
    ]  # fmt: skip
