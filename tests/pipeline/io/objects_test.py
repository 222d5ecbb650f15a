"""Objects through one of Beam's file systems, kept in memory, and its errors."""

import io
import logging
import sys
import time
from concurrent import futures

import pytest

from pipeline.io import atomic, objects, storage

FILES: dict[str, tuple[bytes, float]] = {}


@pytest.fixture(scope="module", autouse=True)
def beam_system():
    """Registers a file system: Beam finds them among the subclasses, by scheme."""
    from apache_beam.io import filesystem

    class Upload(io.BytesIO):
        """Like Beam's own: closing it creates the object, even after a failure."""

        def __init__(self, path):
            super().__init__()
            self.path = path

        def close(self):
            if not self.closed:
                FILES[self.path] = (self.getvalue(), time.time())
            super().close()

    class Memory(filesystem.FileSystem):
        @classmethod
        def scheme(cls):
            return "memory"

        def has_dirs(self):
            return False

        def _list(self, dir_or_prefix):
            if "refused" in dir_or_prefix:
                raise filesystem.BeamIOError("List", {dir_or_prefix: PermissionError("Forbidden")})
            for name, (data, updated) in FILES.items():
                if name.startswith(dir_or_prefix):
                    yield filesystem.FileMetadata(name, len(data), updated)

        def exists(self, path):
            if "silent" in path:
                time.sleep(2)
            return path in FILES

        def open(self, path, mime_type=None, compression_type=None):
            if path not in FILES:
                raise FileNotFoundError(path)
            return io.BytesIO(FILES[path][0])

        def create(self, path, mime_type=None, compression_type=None):
            return Upload(path)

        def delete(self, paths):
            for path in paths:
                for name in [n for n in FILES if n == path or (path[-1] == "/" and path in n)]:
                    del FILES[name]

        split = join = mkdirs = copy = rename = size = last_updated = checksum = metadata = None

    Memory.__abstractmethods__ = frozenset()
    return Memory


@pytest.fixture(autouse=True)
def empty():
    FILES.clear()


def test_an_object_is_written_when_it_is_whole():
    with atomic.create("memory://box/a") as file:
        file.write(b"half")
        assert not atomic.exists("memory://box/a")
        file.write(b" and half")
    assert storage.read_bytes("memory://box/a") == b"half and half"


def test_what_fails_leaves_the_old_object():
    atomic.write_text("memory://box/a", "old")

    def fail():
        with atomic.create("memory://box/a") as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert storage.read_bytes("memory://box/a") == b"old"
    assert list(FILES) == ["memory://box/a"]


def test_an_upload_that_breaks_off_leaves_no_half_object():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell():
                raise OSError("gone")
            return super().read(10)

    with pytest.raises(objects.ObjectError, match="memory://box/a: cannot be written: gone"):
        objects.write("memory://box/a", Broken(b"x" * 100))
    assert not FILES


def test_listing_removing_and_names_with_signs_that_patterns_use():
    for name in ("[a]*/one", "[a]*/two", "[a]*/below/three", "a*/four", "[a]*x/five"):
        atomic.write_text(f"memory://box/{name}", "x")
    folder = "memory://box/[a]*"
    assert [found.name for found in objects.match(folder)] == ["below/three", "one", "two"]
    assert [found.name for found in objects.match(folder, "t")] == ["two"]
    assert atomic.names(folder) == ["one", "two"]
    assert storage.list_files(folder + "/").files == ("below/three", "one", "two")
    atomic.remove(f"{folder}/one")
    atomic.remove(f"{folder}/one")
    atomic.remove_folder(folder)
    atomic.remove_folder(folder)
    assert sorted(FILES) == ["memory://box/[a]*x/five", "memory://box/a*/four"]


def test_what_goes_wrong_is_one_line():
    with pytest.raises(storage.ReadError) as caught:
        storage.read_bytes("memory://box/absent")
    assert str(caught.value) == "memory://box/absent: no such object"
    with pytest.raises(storage.ReadError) as caught:
        storage.list_files("memory://refused")
    assert str(caught.value) == "memory://refused: cannot be listed: Forbidden"


def test_many_threads_leave_logging_as_it_was():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with futures.ThreadPoolExecutor(16) as pool:
            found = pool.map(lambda _: objects.exists("memory://box/a"), range(1000))
            assert not any(found)
    finally:
        sys.setswitchinterval(interval)
    assert logging.root.manager.disable == logging.NOTSET


def test_a_store_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(objects, "ANSWER_SECONDS", 0.1)
    objects.connect(["memory://box/a", "/local"], None)
    with pytest.raises(objects.ObjectError, match=r"^memory://silent: no answer within"):
        objects.connect(["memory://box/a", "memory://silent/a"], None)


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "aws"), ("gs", "gcp")])
def test_says_which_extra_is_missing(scheme, extra, monkeypatch):
    monkeypatch.setattr(objects, "_is_installed", lambda _: False)
    with pytest.raises(objects.ObjectError, match=rf"pip install 'voices-apart\[{extra}\]'"):
        objects.connect([f"{scheme}://bucket/data"], None)


def test_another_reader_takes_the_place_of_beams_file_systems():
    class Reader:
        def read(self, path, limit):
            return b"read"[:limit]

        def exists(self, path):
            return path == "nobodys://box/a"

        def names(self, folder):
            return ["a"]

    objects.read_through(Reader())
    try:
        assert storage.read_bytes("nobodys://box/a") == b"read"
        assert atomic.exists("nobodys://box/a")
        assert atomic.names("nobodys://box") == ["a"]
    finally:
        objects.read_through(None)
