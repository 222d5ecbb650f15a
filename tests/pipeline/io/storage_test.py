"""Listing and reading: links, pipes, permissions, and names with a scheme through Beam."""

import errno
import hashlib
import io
import os
import pickle

import pytest

from pipeline import errors
from pipeline.corpora import corpus
from pipeline.io import objects, storage


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path):
    make(tmp_path, "b/2.wav", "b/10.wav", "a.wav", "B/1.wav", "b/._2.wav", ".git/x.wav")
    listing = storage.list_files(str(tmp_path))
    assert listing.files == ("B/1.wav", "a.wav", "b/10.wav", "b/2.wav")
    assert listing.problems == ()


def test_folders_of_the_system_are_left_out(tmp_path, monkeypatch):
    """Only root may read them, so a disk's root would otherwise be refused."""
    scan = os.scandir

    def refuse(path):
        if os.path.basename(path) in ("lost+found", "System Volume Information"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    make(tmp_path, "a/1.wav", "lost+found/x", "System Volume Information/x", "$RECYCLE.BIN/2.wav")
    monkeypatch.setattr(os, "scandir", refuse)
    assert storage.list_files(str(tmp_path)) == storage.Listing(("a/1.wav",), ())


def test_links_are_followed_and_bad_ones_named(tmp_path):
    make(tmp_path, "real/a.wav", "elsewhere/b.wav")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "folder").symlink_to(tmp_path / "real")
    (corpus / "file.wav").symlink_to(tmp_path / "elsewhere" / "b.wav")
    (corpus / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (corpus / "self.wav").symlink_to("self.wav")
    (corpus / "round").symlink_to(tmp_path)
    listing = storage.list_files(str(corpus))
    assert "folder/a.wav" in listing.files
    assert "file.wav" in listing.files
    problems = dict(listing.problems)
    assert problems["gone.wav"] == "a link to nowhere"
    assert "circle" in problems["self.wav"]
    # The link back to the parent is followed once, but not into itself.
    assert "circle" in problems["round/corpus"]
    assert "round/real/a.wav" in listing.files


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    assert storage.list_files(str(tmp_path)).problems == (("pipe.wav", "not a plain file"),)
    with pytest.raises(storage.ReadError, match="not a plain file"):
        storage.read_bytes(str(tmp_path / "pipe.wav"))


def test_a_name_that_is_no_text_is_a_problem(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.wav", "wb"):
        pass
    listing = storage.list_files(str(tmp_path))
    assert listing.files == ()
    ((path, reason),) = listing.problems
    assert "UTF-8" in reason
    path.encode("utf-8")  # can be written into rejected.csv


def test_reasons_for_what_cannot_be_read(tmp_path):
    make(tmp_path, "file.wav")
    (tmp_path / "link.wav").symlink_to("nowhere")
    for name, reason in [
        ("absent.wav", "no such file"),
        ("link.wav", "a link to nowhere"),
        ("", "is a folder"),
        ("file.wav/below.wav", "no folder"),
    ]:
        with pytest.raises(storage.ReadError) as caught:
            storage.read_bytes(os.path.join(tmp_path, name))
        assert reason in caught.value.reason
        assert str(caught.value) == f"{caught.value.path}: {caught.value.reason}"
    with pytest.raises(storage.ReadError, match="no such folder"):
        storage.list_files(str(tmp_path / "absent"))
    with pytest.raises(storage.ReadError, match="is no folder"):
        storage.list_files(str(tmp_path / "file.wav"))


def test_what_may_not_be_read(tmp_path, monkeypatch):
    make(tmp_path, "a.wav")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    # chmod does not stop root, which is the user of tests in containers.
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(storage.ReadError, match="permissions"):
        storage.read_bytes(str(tmp_path / "a.wav"))


def test_folders_that_may_not_be_read_are_told_from_files(tmp_path, monkeypatch):
    for name in ("a.wav", "closed/b.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = storage.list_files(str(tmp_path))
    assert listing.files == ("a.wav",)
    assert [path for path, _ in listing.problems] == ["closed", "gone.wav"]
    assert listing.closed == {"closed"}
    # As for a single file, the recordings are not to blame.
    with pytest.raises(storage.ReadError, match="closed: may not be read") as caught:
        storage.require_open(str(tmp_path), listing)
    assert caught.value.cause is storage.Cause.SETTING
    with pytest.raises(errors.UserError, match="closed: may not be read"):
        corpus.read([str(tmp_path)])


def test_a_file_that_fits_no_memory(tmp_path, monkeypatch):
    make(tmp_path, "a.wav")
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 4)
    with pytest.raises(storage.ReadError, match="cut it into pieces"):
        storage.read_bytes(str(tmp_path / "a.wav"))


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(storage.ReadError("a.wav", "no such file")))
    assert (error.path, error.reason) == ("a.wav", "no such file")


def test_names_with_a_scheme_go_through_beam():
    from apache_beam.io import filesystem, filesystems

    files = {
        "shelf://box/data/SPEAKER/a.wav": b"sound",
        "shelf://box/data/SPEAKER/.hidden.wav": b"",
        "shelf://box/data/lost+found/a.wav": b"",
        "shelf://box/data/b.csv.gz": b"not unpacked",
    }

    class Shelf(filesystem.FileSystem):
        """A file system, which Beam finds among the subclasses, by scheme."""

        @classmethod
        def scheme(cls):
            return "shelf"

        def _list(self, dir_or_prefix):
            for name, data in files.items():
                if name.startswith(dir_or_prefix):
                    yield filesystem.FileMetadata(name, len(data))

        def has_dirs(self):
            return False

        def split(self, path):
            return path.rpartition("/")[::2]

        def open(self, path, mime_type=None, compression_type=None):
            assert compression_type == filesystem.CompressionTypes.UNCOMPRESSED
            if path not in files:
                raise filesystem.BeamIOError("absent")
            return io.BytesIO(files[path])

        join = mkdirs = create = copy = rename = exists = size = None
        last_updated = checksum = delete = metadata = None

    Shelf.__abstractmethods__ = frozenset()
    assert filesystems.FileSystems.get_filesystem("shelf://x") is not None
    listing = storage.list_files("shelf://box/data/")
    assert listing.files == ("SPEAKER/a.wav", "b.csv.gz")
    assert storage.join("shelf://box/data", "SPEAKER/a.wav") == "shelf://box/data/SPEAKER/a.wav"
    assert storage.read_bytes("shelf://box/data/b.csv.gz") == b"not unpacked"
    with pytest.raises(storage.ReadError, match="cannot be read"):
        storage.read_bytes("shelf://box/absent.wav")
    expected = hashlib.sha256(b"not unpacked").hexdigest()
    assert storage.sha256("shelf://box/data/b.csv.gz") == expected
    with pytest.raises(storage.ReadError, match="no such folder, or nothing in it"):
        storage.list_files("shelf://box/other")
    with pytest.raises(storage.ReadError, match=r"nothing here knows nobodys://, only .*shelf"):
        storage.list_files("nobodys://box")


def failing(monkeypatch, numbers):
    """Makes reading fail with the given error numbers, then succeed; returns the pauses."""
    left, pauses, really = list(numbers), [], open

    def fail(path, *arguments):
        if left:
            raise OSError(left.pop(0), "it fails")
        return really(path, *arguments)

    monkeypatch.setattr(storage, "open", fail, raising=False)
    monkeypatch.setattr(storage.time, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE])
def test_errors_that_pass_are_waited_for(tmp_path, monkeypatch, number):
    (tmp_path / "a.wav").write_bytes(b"whole")
    pauses = failing(monkeypatch, [number] * 3)
    assert storage.read_bytes(str(tmp_path / "a.wav")) == b"whole"
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    failing(monkeypatch, [number] * 4)
    with pytest.raises(storage.ReadError, match=r"tried 4 times\); run the same") as caught:
        storage.read_bytes(str(tmp_path / "a.wav"))
    assert caught.value.cause is storage.Cause.PASSING
    assert pickle.loads(pickle.dumps(caught.value)).cause is storage.Cause.PASSING


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOENT, storage.Cause.FILE), (errno.ELOOP, storage.Cause.FILE),
        (errno.EACCES, storage.Cause.SETTING), (errno.EPERM, storage.Cause.SETTING),
    ],
)  # fmt: skip
def test_what_will_not_pass_is_not_waited_for(tmp_path, monkeypatch, number, cause):
    (tmp_path / "a.wav").touch()
    pauses = failing(monkeypatch, [number])
    with pytest.raises(storage.ReadError) as caught:
        storage.read_bytes(str(tmp_path / "a.wav"))
    assert caught.value.cause is cause
    assert not pauses


def test_stores_that_do_not_answer_are_told_from_objects_that_are_absent(monkeypatch):
    pauses, kinds = [], [objects.UNREACHABLE, objects.UNREACHABLE]

    def read(path, limit):
        if kinds:
            raise objects.ObjectError(path, "503", kinds.pop())
        return b"whole"

    monkeypatch.setattr(objects, "read", read)
    monkeypatch.setattr(storage.time, "sleep", pauses.append)
    assert storage.read_bytes("s3://bucket/a.wav") == b"whole"
    assert len(pauses) == 2
    for kind, cause in (
        (objects.ABSENT, storage.Cause.FILE),
        (objects.REFUSED, storage.Cause.SETTING),
    ):
        kinds.append(kind)
        with pytest.raises(storage.ReadError) as caught:
            storage.read_bytes("s3://bucket/a.wav")
        assert caught.value.cause is cause
    assert len(pauses) == 2


def test_a_listing_that_fails_leaves_nothing_out(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    scan = os.scandir

    def fail(path):
        if str(path).endswith("a"):
            raise OSError(errno.EIO, "Input/output error")
        return scan(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(storage.ReadError, match="cannot be read") as caught:
        storage.list_files(str(tmp_path))
    assert caught.value.cause is storage.Cause.PASSING
