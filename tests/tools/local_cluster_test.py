"""What `python -m tools.flink` and `tools.spark` hand on; `tests/end_to_end` runs both clusters."""

import contextlib
import subprocess
import types
import zipfile

import pytest

from pipeline import cli
from tools import flink, local_cluster, spark


class Cluster(contextlib.nullcontext):
    """Stands for a cluster that is there at once."""

    url = "http://127.0.0.1:1"

    def __init__(self, *_):
        super().__init__(self)

    def beam_flags(self):
        return ["--runner=SomeRunner"]


@pytest.mark.parametrize(("tool", "flag"), [(flink, "slots"), (spark, "executors")])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["--verbosity=1"], ["--verbosity=1"]),
        (["-v", "1"], ["--verbosity=1"]),
        (["--verbosity=-1"], ["--verbosity=-1"]),
    ],
)
def test_the_job_gets_its_flags_and_how_much_it_is_to_say(monkeypatch, tool, flag, given, expected):
    jobs = []

    def run(job):
        jobs.append(job)
        return types.SimpleNamespace(returncode=7)

    monkeypatch.setattr(local_cluster.Jars, "fetch", lambda _: None)
    monkeypatch.setattr(tool, "Cluster", Cluster)
    monkeypatch.setattr(subprocess, "run", run)
    before = cli.flags.FLAGS["verbosity"].value
    # Whatever was said to another test in this process.
    cli.flags.FLAGS["verbosity"].using_default_value = True
    try:
        with pytest.raises(SystemExit) as left:
            cli.run(
                tool.main, "", pass_unknown=True,
                argv=["tool", f"--{flag}=2", "--input_dir=/a", *given, "--output_dir=/b"],
            )  # fmt: skip
    finally:
        cli.flags.FLAGS.unparse_flags()
        cli.flags.FLAGS["verbosity"].value = before
        cli.flags.FLAGS["verbosity"].using_default_value = True
        cli.flags.FLAGS[flag].unparse()
    assert left.value.code == 7
    (job,) = jobs
    assert job[1:] == [
        "-m", "pipeline.preprocess", "--runner=SomeRunner", "--input_dir=/a", "--output_dir=/b",
        *expected,
    ]  # fmt: skip


def test_java_finds_the_jars_that_a_pointer_names(tmp_path):
    # Long enough that the line of the manifest is continued.
    jars = [tmp_path / f"{'a b' * 30}-{number}.jar" for number in range(3)]
    local_cluster.write_pointer(tmp_path / "pointer.jar", jars, main="org.example.Main")
    with zipfile.ZipFile(tmp_path / "pointer.jar") as jar:
        text = jar.read("META-INF/MANIFEST.MF").decode()
    assert max(map(len, text.split("\r\n"))) <= 72
    lines = text.replace("\r\n ", "").split("\r\n")
    assert lines[1] == "Main-Class: org.example.Main"
    assert lines[2] == "Class-Path: " + " ".join(path.as_uri() for path in jars)


def test_spark_starts_again_with_the_same_folder_of_logs(monkeypatch, tmp_path):
    monkeypatch.setattr(spark.Cluster, "run", lambda *_: None)
    monkeypatch.setattr(spark.Cluster, "wait", lambda *_: None)
    for _ in range(2):
        spark.Cluster(tmp_path, 1).start()
    assert (tmp_path / "home" / "jars").readlink() == spark.JARS.folder
