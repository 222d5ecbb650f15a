"""The progress of a job: counted locally or through an object store, shown as lines in a log."""

import multiprocessing
import time

import pytest

from pipeline.beam import progress
from pipeline.io import atomic, storage

FOLDER = "box://data/_work/written"


@pytest.fixture
def box(monkeypatch):
    """A store of objects by name, shared by all processes of a job."""
    objects = {}
    monkeypatch.setattr(atomic, "write_text", lambda path, text: objects.update({path: text}))
    monkeypatch.setattr(atomic, "names", lambda path: [p.removeprefix(f"{path}/") for p in objects])
    monkeypatch.setattr(storage, "read_bytes", lambda path: objects[path].encode())
    monkeypatch.setattr(progress, "_objects", {})
    return objects


def test_lines_in_a_log(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.02)
    path = str(tmp_path / "done")
    with progress.Bar(path, 3, "write", "mixtures"):
        time.sleep(0.1)
        progress.tick(path, 2)
        time.sleep(0.1)
        progress.tick(path, 3)  # A runner has repeated a step.
        time.sleep(0.1)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "write: 0 of 3 mixtures"
    assert "write: 2 of 3 mixtures" in lines
    assert lines[-1] == "write: 3 of 3 mixtures"


def test_processes_count_together(tmp_path):
    path = str(tmp_path / "done")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(progress.tick, [path] * 1000)
    assert progress.done(path) == 1000


def test_workers_count_in_an_object_store(box, monkeypatch):
    assert progress.done(FOLDER) == 0
    progress.tick(FOLDER, 2)
    assert progress.done(FOLDER) == 2
    # There is not one object for each item.
    for _ in range(5):
        progress.tick(FOLDER)
    assert progress.done(FOLDER) == 2
    monkeypatch.setattr(progress, "_OBJECT_SECONDS", 0.0)
    progress._objects.clear()  # As in another process.
    progress.tick(FOLDER, 10)
    progress.tick(FOLDER, 10)
    assert progress.done(FOLDER) == 22
    assert len(box) == 2


def test_a_store_that_fails_fails_nobody(monkeypatch):
    def refuse(*_):
        raise OSError("no such box")

    monkeypatch.setattr(atomic, "write_text", refuse)
    monkeypatch.setattr(atomic, "names", refuse)
    progress.tick(FOLDER)
    assert progress.done(FOLDER) == 0
