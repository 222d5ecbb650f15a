"""Machines, disks and people fail while a dataset is made; each test really does it."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest
import soundfile

from pipeline import job, schema

MODULE = "pipeline.preprocess"
RATE = 16000
NUM_SPEAKERS, NUM_RECORDINGS = 4, 20
# Findings are written at once, not every half minute.
EAGER = """
import runpy, sys
from pipeline.dataset import inspection_cache
inspection_cache.FLUSH_SECONDS = 0
sys.argv = ["preprocess", *sys.argv[1:]]
runpy.run_module("pipeline.preprocess", run_name="__main__")
"""


def write_corpus(folder):
    """Noise in syllables: long enough that a job can be caught at its work."""
    for speaker in range(NUM_SPEAKERS):
        (folder / f"s{speaker}").mkdir(parents=True)
        for number in range(NUM_RECORDINGS):
            random = np.random.default_rng([speaker, number])
            samples = 0.05 * random.standard_normal(6 * RATE + 37 * number)
            samples *= np.arange(samples.size) / RATE % 0.3 < 0.2
            soundfile.write(folder / f"s{speaker}" / f"{number}.wav", samples, RATE)
    return folder


def flags(corpus, out, *more):
    return [f"--input_dir={corpus}", f"--output_dir={out}", "--num_shards=12", *more]


def start(*given, program=("-m", MODULE), **settings):
    return subprocess.Popen(
        [sys.executable, *program, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **settings,
    )  # fmt: skip


def wait_for(condition, process, seconds=240):
    """Waits until something has happened; the process must be at work until then."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing has happened"
        time.sleep(0.005)


def finish(corpus, out):
    """What the same command does, in this process; returns what it said."""
    said = []
    job.run(job.Settings((str(corpus),), output_dir=str(out), num_shards=12), (), said.append)
    return "\n".join(said)


def checksums(folder):
    """SHA-256 of every file, by its path; the info less its times."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
    info = json.loads((folder / schema.INFO_FILE).read_text())
    del info["created"]
    return {**found, schema.INFO_FILE: info}


def shards(folder):
    """When each finished shard was written, by its path."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("[!.]*.tfrecord.json")}


# TensorFlow 2.21 writes these whatever its log level is.
_TENSORFLOW_LINE = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} .*\.cc:\d+\]")


def assert_one_line(text, *words):
    lines = [line for line in text.splitlines() if not _TENSORFLOW_LINE.match(line)]
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def descendants(pid):
    """Ids of all processes that a process has started, and those that they have."""
    parents = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def workers(pid):
    """Those that run Beam's worker, without the shells that started them."""
    found = []
    for child in descendants(pid):
        try:
            words = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"python" in words[0] and any(b"worker" in word for word in words[1:4]):
            found.append(child)
    return sorted(found)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("faults") / "corpus")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, corpus):
    """Checksums of what a job makes when nothing happens."""
    out = tmp_path_factory.mktemp("undisturbed")
    finish(corpus, out)
    return checksums(out)


def test_a_worker_that_is_killed(corpus, undisturbed, tmp_path):
    process = start(*flags(corpus, tmp_path, "--direct_num_workers=2"))
    wait_for(lambda: shards(tmp_path) and len(workers(process.pid)) >= 2, process)
    # The newest: those of the inspection may still be about to end.
    os.kill(workers(process.pid)[-1], signal.SIGKILL)
    # It took 4 to 8 seconds on an idle machine; half a minute is what is promised there.
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 1
    assert_one_line(stderr, "a worker process has died", "the same command goes on")
    assert not (tmp_path / schema.MARKER_FILE).exists()
    kept = shards(tmp_path)
    said = finish(corpus, tmp_path)
    # Nothing is computed twice, neither facts nor shards.
    assert f"{NUM_SPEAKERS * NUM_RECORDINGS} recordings were inspected before" in said
    after = shards(tmp_path)
    assert kept
    assert {path: after[path] for path in kept} == kept
    assert checksums(tmp_path) == undisturbed


def test_a_job_that_is_killed_while_it_inspects(corpus, undisturbed, tmp_path):
    process = start(*flags(corpus, tmp_path), program=("-c", EAGER))
    work = tmp_path / "_work"
    wait_for(lambda: len(list(work.glob("facts*"))) >= 20, process)
    process.kill()
    process.communicate()
    assert not shards(tmp_path)
    said = finish(corpus, tmp_path)
    before = int(re.search(r"(\d+) recordings were inspected before", said)[1])
    assert 20 <= before < NUM_SPEAKERS * NUM_RECORDINGS
    assert checksums(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_job_that_is_killed_while_its_workers_write(corpus, undisturbed, tmp_path):
    process = start(*flags(corpus, tmp_path, "--direct_num_workers=2"))
    wait_for(lambda: len(shards(tmp_path)) >= 2, process)
    left = descendants(process.pid)
    process.kill()
    process.communicate()
    # They do not outlive it: 5 to 9 seconds on an idle machine.
    end = time.monotonic() + 240
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < end, "workers are still there"
        time.sleep(0.1)
    kept = shards(tmp_path)
    said = finish(corpus, tmp_path)
    assert f"{NUM_SPEAKERS * NUM_RECORDINGS} recordings were inspected before" in said
    after = shards(tmp_path)
    assert {path: after[path] for path in kept} == kept
    assert checksums(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_recording_that_changed_since_it_was_inspected_is_inspected_again(tmp_path, corpus):
    own = tmp_path / "corpus"
    shutil.copytree(corpus, own)
    process = start(*flags(own, tmp_path / "out"), program=("-c", EAGER))
    work = tmp_path / "out" / "_work"
    wait_for(lambda: len(list(work.glob("facts*"))) >= 20, process)
    process.kill()
    process.communicate()
    samples, rate = soundfile.read(own / "s0" / "0.wav")
    soundfile.write(own / "s0" / "0.wav", 0.5 * samples, rate)
    finish(own, tmp_path / "out")
    finish(own, tmp_path / "anew")
    again, anew = (checksums(tmp_path / name) for name in ("out", "anew"))
    assert again == anew


@pytest.mark.slow
@pytest.mark.parametrize("change", ["other samples", "removed"])
def test_a_corpus_that_changes_between_inspection_and_write(tmp_path, corpus, change):
    own, out = tmp_path / "corpus", tmp_path / "out"
    shutil.copytree(corpus, own)
    process = start(*flags(own, out))
    wait_for(lambda: list((out / "_work").glob("*.plan")), process)
    # The plan is made, and nothing, or next to nothing, written.
    process.send_signal(signal.SIGSTOP)
    for path in sorted((own / "s1").glob("1*.wav")):
        samples, rate = soundfile.read(path)
        if change == "removed":
            path.unlink()
        else:
            soundfile.write(path, 0.5 * samples, rate)
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    word = "no such file" if change == "removed" else "has changed since it was inspected"
    assert_one_line(stderr, "/s1/1", ".wav", word)
    assert not (out / schema.MARKER_FILE).exists()
    finish(own, out)
    finish(own, tmp_path / "anew")
    assert checksums(out) == checksums(tmp_path / "anew")


def test_two_jobs_on_one_folder(corpus, undisturbed, tmp_path, run_command):
    first = start(*flags(corpus, tmp_path))
    wait_for(lambda: (tmp_path / "_work").exists(), first)
    # Otherwise it may be done before the second has started.
    first.send_signal(signal.SIGSTOP)
    second = run_command(MODULE, *flags(corpus, tmp_path, "--overwrite", "--seed=1"))
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert_one_line(second.stderr, str(tmp_path), str(first.pid), "another job")
    _, stderr = first.communicate(timeout=120)
    assert first.returncode == 0, stderr
    assert checksums(tmp_path) == undisturbed


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk in memory, of a size in MB; skips where that is not allowed."""
    mounted = []

    def mount(megabytes, options=""):
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m{options}", "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"mounting is not allowed here: {error}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=False)


def test_a_disk_that_fills_up(corpus, undisturbed, small_disk):
    disk = small_disk(200)
    out = disk / "out"
    process = start(*flags(corpus, out))
    wait_for(lambda: shards(out), process)
    process.send_signal(signal.SIGSTOP)
    free = shutil.disk_usage(disk).free
    (disk / "ballast").write_bytes(bytes(free))
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 1
    assert_one_line(stderr, "No space left on device", str(out), "free some space")
    kept = shards(out)
    assert kept
    # No part of a shard is left.
    assert {path.name for path in out.iterdir()} == {
        name for path in kept for name in (path.name, path.stem)
    }
    (disk / "ballast").unlink()
    finish(corpus, out)
    after = shards(out)
    assert {path: after[path] for path in kept} == kept
    assert checksums(out) == undisturbed


def test_a_disk_that_is_too_small_from_the_start(corpus, small_disk, run_command):
    disk = small_disk(5)
    done = run_command(MODULE, *flags(corpus, disk / "out"))
    assert done.returncode == 1
    assert_one_line(done.stderr, "MB are needed", "are free", "--output_dir")
    assert not any((disk / "out").rglob("*"))


def test_a_disk_that_is_full_at_the_start(corpus, small_disk, run_command):
    disk = small_disk(1)
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
    done = run_command(MODULE, *flags(corpus, disk / "out"))
    assert done.returncode == 1
    assert_one_line(done.stderr, str(disk / "out"), "No space left on device", "free some space")
    assert not any((disk / "out").rglob("*"))


def test_a_disk_that_is_read_only(corpus, small_disk, run_command):
    disk = small_disk(5, ",ro")
    done = run_command(MODULE, *flags(corpus, disk / "out"))
    assert done.returncode == 1
    assert_one_line(done.stderr, str(disk / "out"), "Read-only file system")


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_may_not_be_written(corpus, there):
    """Root may write everywhere: then the command runs as nobody."""
    with tempfile.TemporaryDirectory() as name:
        base = pathlib.Path(name)
        shutil.copytree(corpus / "s0", base / "corpus" / "s0")
        shutil.copytree(corpus / "s1", base / "corpus" / "s1")
        folder = base / "parent" / "out"
        (folder if there else folder.parent).mkdir(parents=True)
        for path in (base, base / "parent", folder):
            if path.exists():
                path.chmod(0o555)
        as_nobody = []
        if os.getuid() == 0:
            if not shutil.which("setpriv"):
                pytest.skip("root may write everywhere, and there is no setpriv")
            as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*as_nobody, sys.executable, "-B", "-m", MODULE]
        probe = subprocess.run([*command, "--version"], capture_output=True, check=False)
        if probe.returncode:
            pytest.skip("nobody may not read this environment")
        done = subprocess.run(
            [*command, *flags(base / "corpus", folder)], capture_output=True, text=True,
            check=False, timeout=120, env={**os.environ, "HOME": "/nonexistent"},
        )  # fmt: skip
        assert done.returncode == 1
        assert_one_line(done.stderr, str(folder), "Permission denied", "who may")
        assert not (folder.exists() and list(folder.iterdir()))
        base.chmod(0o755)
        (base / "parent").chmod(0o755)
        if there:
            folder.chmod(0o755)


def damaged_dataset(small_dataset, tmp_path, change):
    """A copy of the small dataset in which one train shard's bytes are changed."""
    folder = tmp_path / "data"
    shutil.copytree(small_dataset, folder)
    path = sorted(folder.glob("train-*.tfrecord"))[1]
    path.write_bytes(change(path.read_bytes()))
    return folder, path


@pytest.mark.slow
def test_the_trainer_names_a_shard_that_is_cut_short(small_dataset, tmp_path, run_command):
    folder, path = damaged_dataset(small_dataset, tmp_path, lambda data: data[: len(data) // 2])
    done = run_command("trainer.task", f"--data_dir={folder}", f"--model_dir={tmp_path}/run")
    assert done.returncode == 1
    assert_one_line(done.stderr, str(path), "bytes", "make the dataset anew")
    assert not (tmp_path / "run" / "best.keras").exists()


@pytest.mark.slow
def test_the_trainer_names_the_record_with_one_flipped_bit(small_dataset, tmp_path, run_command):
    def flip(data):
        # Within the payload of record 2, by the lengths in the frames (8 + 4 + payload + 4).
        place = 0
        for _ in range(2):
            place += 16 + int.from_bytes(data[place : place + 8], "little")
        place += 12 + int.from_bytes(data[place : place + 8], "little") // 2
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    folder, path = damaged_dataset(small_dataset, tmp_path, flip)
    done = run_command(
        "trainer.task", f"--data_dir={folder}", f"--model_dir={tmp_path}/run", "--model=ffn",
        "--units=8", "--epochs=1", "--batch_size=4",
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"{path} is damaged at record 2 of" in lines[0]
    assert not (tmp_path / "run" / "best.keras").exists()
