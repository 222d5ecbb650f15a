"""Files that are written: under a temporary name, then renamed.

They are local, or where Beam's file systems reach (`scheme://`).
"""

import contextlib
import os
import posixpath
import re
import shutil
import uuid
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from pipeline import storage

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


@contextlib.contextmanager
def create(path: str) -> Iterator[BinaryIO]:
    """A file that has its name only when the `with` block has ended well.

    The temporary name is this attempt's own: two that write the same file do not meet, and the one
    that ends last counts.

    Args:
        path: local or with a scheme.

    Yields:
        A binary file to write to.
    """
    folder, name = posixpath.split(path)
    temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with _open(temporary) as file:
            yield file
        if storage.is_remote(path):
            _systems().rename([temporary], [path])
        else:
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            remove(temporary)
        raise


def write_text(path: str, text: str) -> None:
    """Writes a whole file, in UTF-8."""
    with create(path) as file:
        file.write(text.encode("utf-8"))


def sync(path: str) -> None:
    """Waits until a local file is on the disk, not in the machine's memory alone."""
    if not storage.is_remote(path):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def make_folder(path: str) -> None:
    """Makes the folder and those above it, where there is none."""
    if not storage.is_remote(path):
        os.makedirs(path, exist_ok=True)


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return bool(_systems().exists(path)) if storage.is_remote(path) else os.path.isfile(path)


def names(folder: str) -> list[str]:
    """The files directly in a folder, sorted; none where there is no such folder."""
    if storage.is_remote(folder):
        root = folder.rstrip("/") + "/"
        (match,) = _systems().match([root + "*"])
        return sorted(metadata.path[len(root) :] for metadata in match.metadata_list)
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir())


def is_temporary(name: str) -> bool:
    """Whether `create` would have given this name to a file that is not whole."""
    return _TEMPORARY.fullmatch(name) is not None


def remove(path: str) -> None:
    """Removes a file, if there is one."""
    if storage.is_remote(path):
        if exists(path):
            _systems().delete([path])
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def remove_folder(path: str) -> None:
    """Removes a folder and all in it, if there is one."""
    if not storage.is_remote(path):
        shutil.rmtree(path, ignore_errors=True)
    elif names(path):
        _systems().delete([path.rstrip("/") + "/"])


def _open(path: str) -> BinaryIO:
    if storage.is_remote(path):
        return cast(BinaryIO, _systems().create(path, compression_type="uncompressed"))
    return open(path, "xb")


def _systems() -> Any:
    from apache_beam.io import filesystems

    return filesystems.FileSystems
