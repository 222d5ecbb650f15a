"""Files get their names only when they are complete."""

import os

import pytest

from pipeline.io import atomic


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    with atomic.create(str(path)) as file:
        file.write(b"one")
        assert not path.exists()
        (temporary,) = atomic.names(str(tmp_path))
        assert atomic.final_name(temporary) == "a.bin"
    assert path.read_bytes() == b"one"
    assert atomic.names(str(tmp_path)) == ["a.bin"]
    assert atomic.final_name("a.bin") is None


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail():
        with atomic.create(str(path)) as file:
            file.write(b"new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert atomic.names(str(tmp_path)) == ["a.bin"]


def test_a_folder_takes_the_place_of_another(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with atomic.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
        assert (path / "old.txt").exists()
    assert [found.name for found in path.iterdir()] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_folder_stays(tmp_path):
    """The folder that it leads to, perhaps on another disk, is replaced."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there" / "model").mkdir(parents=True)
    (tmp_path / "there" / "model" / "old.txt").write_text("old")
    link = tmp_path / "here" / "model"
    link.symlink_to("../there/model")
    with atomic.replacing(link) as temporary:
        temporary.mkdir()
        (temporary / "new.txt").write_text("new")
    assert list((tmp_path / "here").iterdir()) == [link]
    assert link.is_symlink()
    assert list((tmp_path / "there").rglob("*.txt")) == [tmp_path / "there" / "model" / "new.txt"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["model"]
    with pytest.raises(IsADirectoryError):
        atomic.write_text(link, "a file")
    assert (link / "new.txt").exists()


def test_a_link_to_a_file_is_replaced(tmp_path):
    """What it leads to may belong to somebody else, such as a shard of another dataset."""
    (tmp_path / "other.txt").write_text("other")
    for name, target in {"a.txt": "other.txt", "b.txt": "nowhere"}.items():
        (tmp_path / name).symlink_to(target)
        atomic.write_text(tmp_path / name, "new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert (tmp_path / "other.txt").read_text() == "other"
    assert atomic.names(str(tmp_path)) == ["a.txt", "b.txt", "other.txt"]


def test_a_folder_that_is_not_finished_leaves_the_other(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")

    def fail():
        with atomic.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / "new.txt").write_text("new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert (path / "old.txt").exists()
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_durable_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("sync"), sync(handle)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b)))
    atomic.write_text(tmp_path / "a.txt", "x", durable=True)
    assert calls == ["sync", "rename", "sync"]
    calls.clear()
    atomic.write_text(tmp_path / "a.txt", "y")
    assert calls == ["rename"]


def test_the_longest_name_that_a_folder_takes(tmp_path):
    name = "ü" * 125 + ".wav"
    atomic.write_text(tmp_path / name, "x")
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_two_attempts_do_not_meet(tmp_path):
    path = str(tmp_path / "a.bin")
    with atomic.create(path) as first:
        with atomic.create(path) as second:
            second.write(b"second")
        first.write(b"first")
    assert (tmp_path / "a.bin").read_bytes() == b"first"


def test_removing_what_is_not_there(tmp_path):
    atomic.remove(str(tmp_path / "nothing"))
    atomic.remove_folder(str(tmp_path / "nothing"))
    assert atomic.names(str(tmp_path / "nothing")) == []
    assert not atomic.exists(str(tmp_path / "nothing"))


def test_a_full_disk_is_told_with_the_files_name(tmp_path):
    def write():
        # The kernel's own full disk, whose error has no file name.
        with (
            atomic.create(str(tmp_path / "a.txt")) as file,
            open("/dev/full", "wb", buffering=0) as full,
        ):
            file.write(b"x")
            full.write(b"x")

    with pytest.raises(OSError, match="No space left on device") as caught:
        write()
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("s3://bucket/a/out/", "s3://bucket/a/out."),
        ("s3://bucket", "s3://bucket/"),
        ("gs://bucket/", "gs://bucket/"),
        ("/nonexistent/a/out", "/."),
    ],
)
def test_a_passing_folder_is_beside_and_new_each_time(folder, place):
    one, two = atomic.beside(folder), atomic.beside(folder)
    assert one != two
    assert one.rpartition("voices-apart-")[0] == two.rpartition("voices-apart-")[0] == place
