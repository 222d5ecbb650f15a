"""Files that are written: under a temporary name, then renamed; objects of a store all at once."""

import contextlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO, cast

from pipeline.io import objects, storage

# What is larger waits on the disk until it is whole and goes to the store.
_IN_MEMORY = 2**25
_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{32}\.tmp", re.DOTALL)


@contextlib.contextmanager
def create(path: str) -> Iterator[BinaryIO]:
    """A file that has its name only when the `with` block has ended well.

    The temporary name is this attempt's own: two that write the same file do not meet, and the one
    that ends last counts. In an object store renaming is copying, so there the content is sent
    when it is whole.

    Args:
        path: local or with a scheme.

    Yields:
        A binary file to write to.

    Raises:
        OSError: a local folder does not take the file.
        UserError: a store does not.
    """
    if storage.is_remote(path):
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            yield cast(BinaryIO, spool)
            spool.seek(0)
            objects.write(path, cast(BinaryIO, spool))
        return
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        # A full disk tells itself by no name, others by one that nobody knows.
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            raise OSError(error.errno, error.strerror, path) from error
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


def beside(folder: str) -> str:
    """A name that nobody has, for a passing folder that is reached wherever `folder` is.

    It is beside it; where nothing can be, as with a whole bucket, in it.
    """
    folder = folder.rstrip("/")
    unique = f"voices-apart-{uuid.uuid4().hex}"
    if storage.is_remote(folder):
        _, _, path = folder.partition("://")
        return f"{folder}.{unique}" if "/" in path else storage.join(folder, unique)
    parent = os.path.dirname(folder)
    while parent and not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return os.path.join(parent, f".{unique}")


def make_folder(path: str) -> None:
    """Makes the folder and those above it, where there is none."""
    if not storage.is_remote(path):
        os.makedirs(path, exist_ok=True)


def exists(path: str) -> bool:
    """Whether there is such a file."""
    return objects.exists(path) if storage.is_remote(path) else os.path.isfile(path)


def names(folder: str) -> list[str]:
    """The files directly in a folder, sorted; none where there is no such folder."""
    if storage.is_remote(folder):
        return objects.names(folder)
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir())


def final_name(name: str) -> str | None:
    """The name that a temporary file of `create` was to get; None for other files."""
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def remove(path: str) -> None:
    """Removes a file, if there is one."""
    if storage.is_remote(path):
        objects.delete(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def remove_folder(path: str) -> None:
    """Removes a folder and all in it, if there is one."""
    if storage.is_remote(path):
        objects.delete_folder(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
