"""What is installed elsewhere: the wheel, and the source distribution that remote workers get.

Both run without the checkout, and hold what they need and nothing else.
"""

import hashlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile

import pytest
from apache_beam.options import pipeline_options, pipeline_options_validator
from apache_beam.runners.portability import stager

from pipeline.beam import runners

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROOMS = ("pipeline", "models", "trainer", "export")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    # Built from a copy: setuptools would leave its build folder in the checkout.
    folder = tmp_path_factory.mktemp("source")
    files = ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "constraints.txt")
    for name in (*ROOMS, *files):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder, source],
        check=True, cwd=folder,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def dataflow(source):
    """Beam's options as the manual has them for Dataflow, with names filled in."""
    text = (ROOT / "BUILD.md").read_text().replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if "--runner=DataflowRunner" in line)
    for name, value in {
        "PROJECT": "my-project", "REGION": "europe-west1", "BUCKET": "bucket", "./": f"{source}/",
    }.items():  # fmt: skip
        assert name in line
        line = line.replace(name, value)
    ours = ("--input_dir=", "--output_dir=")
    words = (word for word in line.split() if word.startswith("--"))
    return runners.parse([word for word in words if not word.startswith(ours)])


@pytest.fixture(scope="module")
def staged(dataflow, tmp_path_factory):
    """A folder with what Beam sends to Dataflow's workers."""

    class Stager(stager.Stager):
        """Copies to a folder, as Dataflow's copies to a bucket."""

        def stage_artifact(self, local_path_to_artifact, artifact_name, sha256):
            shutil.copy(local_path_to_artifact, artifact_name)

        def commit_manifest(self):
            pass

    folder = tmp_path_factory.mktemp("staged")
    Stager().create_and_stage_job_resources(
        dataflow, temp_dir=str(tmp_path_factory.mktemp("built")), staging_location=str(folder)
    )
    return folder


@pytest.fixture(scope="module")
def elsewhere(staged, tmp_path_factory):
    """An empty environment into which the staged source distribution was installed.

    Libraries are found where these tests find them, less the checkout; what workers must not need
    fails on import.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env").glob("lib/*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    # Its requirements have to be there, or could not be had.
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", folder / "env", "install", "--quiet",
         "--no-index", "--no-build-isolation", staged / stager.WORKFLOW_TARBALL_FILE],
        check=True, cwd=folder,
    )  # fmt: skip
    for name in ("tensorflow", "keras"):
        (site / f"{name}.py").write_text("raise ImportError('a worker must not need it')\n")
    return folder / "env"


def test_beam_accepts_the_options_for_dataflow(dataflow):
    # Beam chooses the checks by the class's name; its own class needs Google's libraries.
    runner = type("DataflowRunner", (), {})()
    # Nothing is asked over the network.
    dataflow.view_as(pipeline_options.TestOptions).dry_run = True
    assert pipeline_options_validator.PipelineOptionsValidator(dataflow, runner).validate() == []
    cloud = dataflow.view_as(pipeline_options.GoogleCloudOptions)
    assert (cloud.project, cloud.region) == ("my-project", "europe-west1")
    workers = dataflow.view_as(pipeline_options.WorkerOptions)
    assert workers.max_num_workers == 64
    assert not runners.is_on_this_machine(dataflow)
    # The check finds what is wrong.
    cloud.project = "My Project"
    (complaint,) = pipeline_options_validator.PipelineOptionsValidator(dataflow, runner).validate()
    assert "My Project" in complaint
    cloud.project = "my-project"


@pytest.mark.slow
def test_beam_stages_the_rooms_for_dataflow(staged):
    with tarfile.open(staged / stager.WORKFLOW_TARBALL_FILE) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "pipeline").rglob("*.py")
    } <= names
    assert "setup.py" in names
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)


def test_it_holds_the_rooms_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(ROOMS)
    here = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= set(names)


def test_its_commands_are_there(wheel, tmp_path):
    """What pip makes of an entry point is a call of that function."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        (listed,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        commands = dict(
            line.split(" = ") for line in archive.read(listed).decode().splitlines() if "=" in line
        )
    assert set(commands) == {"voices-apart", "voices-apart-worker"}
    module, _, function = commands["voices-apart"].partition(":")
    call = f"import sys; from {module} import {function}; sys.exit({function}())"
    done = subprocess.run(
        [sys.executable, "-c", call, "lite", "--help"],
        cwd=tmp_path, env=environment(site), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "voices-apart lite --model" in done.stdout


def test_it_runs_elsewhere(wheel, corpus, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    work = tmp_path / "work"
    work.mkdir()
    where = subprocess.run(
        [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"],
        cwd=work, env=environment(site), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", f"--input_dir={corpus.output}",
         "--output_dir=data", "--num_shards=1"],
        cwd=work, env=environment(site), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (work / "data" / "_SUCCESS").exists()


@pytest.mark.slow
def test_workers_run_from_the_source_distribution(elsewhere, corpus, data, run_command, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    worker = elsewhere / "bin" / "voices-apart-worker"
    log = tmp_path / "log"
    with open(log, "wb") as file:
        pool = subprocess.Popen(
            [elsewhere / "bin" / "python", "-m", "apache_beam.runners.worker.worker_pool_main",
             f"--service_port={port}", f"--container_executable={worker}"],
            cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for(lambda: "Started worker pool" in log.read_text())
        done = run_command(
            "pipeline.preprocess", "--runner=PortableRunner", "--job_endpoint=embed",
            "--environment_type=EXTERNAL", f"--environment_config=localhost:{port}",
            f"--input_dir={corpus.output}", f"--output_dir={tmp_path / 'data'}", "--num_shards=2",
        )  # fmt: skip
    finally:
        pool.terminate()
        pool.wait()
    assert done.returncode == 0, done.stderr
    # One for each step: inspect, write.
    assert len(re.findall(rf"Starting worker with command \['{worker}'", log.read_text())) == 2
    assert checksums(tmp_path / "data") == checksums(data.output)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def checksums(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.tfrecord"))
    }


def environment(site):
    return {**os.environ, "PYTHONPATH": str(site)}
