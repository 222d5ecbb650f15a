"""One dataset whichever runner makes it, on clusters of several processes too (Flink, Spark)."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time

import apache_beam as beam
import pytest

from pipeline import errors, schema
from pipeline.beam import runners, transforms
from tools import flink, spark

# One cluster of each kind for all, and not in the way of the other tests of whole commands.
pytestmark = pytest.mark.xdist_group("runners")

MODULE = "pipeline.preprocess"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two task managers with two slots each."""
    reason = flink.JARS.missing()
    if reason:
        pytest.skip(f"Flink: {reason}")
    with flink.Cluster(tmp_path_factory.mktemp("flink"), task_managers=2, slots=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def spark_cluster(tmp_path_factory):
    """Two executors with one core each."""
    reason = spark.JARS.missing()
    if reason:
        pytest.skip(f"Spark: {reason}")
    with spark.Cluster(tmp_path_factory.mktemp("spark"), executors=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def make(run_command, corpus):
    """Runs the job on the embedded corpus with flags for Beam; returns what it printed."""

    def make(folder, *beam_flags):
        done = run_command(MODULE, *given(corpus.output, folder), *beam_flags, timeout=600)
        assert done.returncode == 0, done.stderr
        # Where it takes minutes it says how far it is, and nothing else.
        assert re.fullmatch(r"((inspect|write): [\d,]+ of [\d,]+ \w+\n)*", done.stderr)
        return done.stdout

    return make


@pytest.fixture(scope="module")
def expected(make, tmp_path_factory):
    """What one worker in one process makes of the embedded corpus: its files and its words."""
    folder = tmp_path_factory.mktemp("expected")
    said = make(folder, "--direct_num_workers=1")
    return content(folder), summary(said)


def given(corpus, folder, num_shards=3):
    return [f"--input_dir={corpus}", f"--output_dir={folder}", f"--num_shards={num_shards}"]


def content(folder):
    """SHA-256 of all files, and the info as it is less its times and versions."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != schema.INFO_FILE
    }
    info = json.loads((folder / schema.INFO_FILE).read_text())
    del info["created"], info["versions"]
    return {**found, schema.INFO_FILE: info}


def summary(said):
    """The lines at a job's end, less how long it took and where it wrote."""
    lines = said.splitlines()
    assert re.search(r"done \(inspect [\d.]+ s, plan [\d.]+ s, write [\d.]+ s", lines[-1])
    return lines[:-1]


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_two_local_workers_make_the_same(expected, make, tmp_path, mode):
    said = make(tmp_path, "--direct_num_workers=2", f"--direct_running_mode={mode}")
    assert (content(tmp_path), summary(said)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [1, 4])
def test_flink_makes_the_same(cluster, expected, make, tmp_path, parallelism):
    said = make(tmp_path, *cluster.beam_flags(parallelism))
    assert (content(tmp_path), summary(said)) == expected
    newest = sorted(cluster.ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])[-2:]
    jobs = [cluster.ask(f"jobs/{job['jid']}") for job in newest]
    assert {job["state"] for job in jobs} == {"FINISHED"}
    assert max(v["parallelism"] for job in jobs for v in job["vertices"]) == parallelism
    # Twelve shards are dealt out evenly.
    (write,) = (
        f"jobs/{job['jid']}/vertices/{vertex['id']}"
        for job in jobs
        for vertex in job["vertices"]
        if "WriteOne" in vertex["name"]
    )
    tasks = cluster.ask(write)["subtasks"]
    assert [t["metrics"]["read-records"] for t in tasks] == [12 / parallelism] * parallelism


@pytest.mark.slow
def test_a_job_outlives_a_task_manager(cluster, run_command, corpus, tmp_path):
    many = ["--mixtures_per_utterance=12"]
    undisturbed = run_command(MODULE, *given(corpus.output, tmp_path / "undisturbed", 12), *many)
    assert undisturbed.returncode == 0, undisturbed.stderr
    out = tmp_path / "out"
    flags = [*cluster.beam_flags(), *given(corpus.output, out, 12), *many]
    job = subprocess.Popen(
        [sys.executable, "-m", MODULE, *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while job.poll() is None and len(list(out.glob("*.tfrecord.json"))) < 2:
            time.sleep(0.02)
        assert job.poll() is None, job.communicate()
        victim = next(name for name in cluster.processes if name.startswith("task-manager"))
        cluster.processes[victim].send_signal(signal.SIGKILL)
        cluster.start_task_manager()
        _, complaints = job.communicate(timeout=200)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, complaints
    last = max(cluster.ask("jobs/overview")["jobs"], key=lambda job: job["start-time"])
    failures = cluster.ask(f"jobs/{last['jid']}/exceptions")["exceptionHistory"]["entries"]
    assert len(failures) >= 1
    assert content(out) == content(tmp_path / "undisturbed")


@pytest.mark.slow
def test_spark_makes_the_same(spark_cluster, expected, make, tmp_path):
    printed = make(tmp_path, *spark_cluster.beam_flags())
    assert (content(tmp_path), summary(printed)) == expected
    inspect, write = spark_cluster.ask("json/")["completedapps"][-2:]
    assert inspect["state"] == write["state"] == "FINISHED"
    # Two executors, each of which has started workers.
    assert inspect["cores"] == write["cores"] == 2
    for number in (1, 2):
        log = spark_cluster.folder / f"executor-{number}" / write["id"]
        (said,) = log.glob("*/stderr")
        assert "Python sdk harness starting" in said.read_text()


@pytest.mark.slow
def test_what_a_worker_on_spark_says_is_one_line(spark_cluster):
    # A nested function, so that it is pickled: worker processes cannot import this module.
    def fail(_):
        with transforms._one_line():
            raise errors.UserError("a.wav: is gone")

    with pytest.raises(errors.UserError, match=r"^a\.wav: is gone$"):
        runners.run(
            spark_cluster.beam_flags(),
            "write",
            lambda pipeline: pipeline | beam.Create([1]) | beam.Map(fail),
            1.0,
        )
