"""Files that are written: under a temporary name, then renamed; objects of a store all at once.

This is the only place of the project that makes up temporary names and renames. `atomicwrites` does
the same for files alone and is no longer maintained.
"""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO, cast

from pipeline.io import objects, storage

# What is larger waits on the disk until it is whole and goes to the store.
_IN_MEMORY = 2**25
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp\.(.*)", re.DOTALL)
# Of the final name, so that the temporary one is never too long for a file system.
_KEPT_CHARACTERS = 50


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[pathlib.Path]:
    """A place for a local file or folder, which gets its name when the `with` block has ended well.

    The temporary name is this attempt's own: two that write the same file do not meet, and the one
    that ends last counts. It ends as the final name does, since some libraries go by the ending.
    Where the block fails, nothing new is left, and what had the name before keeps it.

    Args:
        path: of the file or folder; its parent has to be there.
        durable: wait until the file is on the disk before it is renamed, and until the new name is.

    Yields:
        The temporary path, at which there is nothing yet.

    Raises:
        OSError: the parent does not take it; where the disk is full, with the final name.
    """
    final = pathlib.Path(path)
    temporary = _temporary(final)
    try:
        yield temporary
        if durable:
            # Otherwise a power cut may leave the new name with nothing under it.
            sync(temporary)
        _rename(temporary, final)
        if durable:
            # Nor may a later name outlive one that it relies on. Some file systems cannot be asked.
            with contextlib.suppress(OSError):
                sync(final.parent)
    except BaseException as error:
        _remove_local(temporary)
        # A full disk tells itself by no name, others by one that nobody knows.
        unnamed = isinstance(error, OSError) and error.filename in (None, str(temporary))
        if unnamed and isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise


@contextlib.contextmanager
def create(path: str, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file that has its name only when the `with` block has ended well (`replacing`).

    In an object store renaming is copying, so there the content is sent when it is whole.

    Args:
        path: local or with a scheme.
        durable: wait until a local file is on the disk.

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
    with replacing(path, durable=durable) as temporary, open(temporary, "xb") as file:
        yield file


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    """Writes a whole file, in UTF-8."""
    with create(os.fspath(path), durable=durable) as file:
        file.write(text.encode("utf-8"))


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a local file is on the disk, not in the machine's memory alone."""
    if not storage.is_remote(os.fspath(path)):
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
    """The name that a temporary file of `replacing` was to get; None for other files.

    Of a long name it is the end alone.
    """
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


def _temporary(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{uuid.uuid4().hex}.tmp.{path.name[-_KEPT_CHARACTERS:]}")


def _rename(temporary: pathlib.Path, final: pathlib.Path) -> None:
    if not (temporary.is_dir() and final.is_dir()):
        os.replace(temporary, final)
        return
    # A folder takes no other's place: that one steps aside, and comes back if this one cannot come.
    aside = _temporary(final)
    os.rename(final, aside)
    try:
        os.rename(temporary, final)
    except BaseException:
        os.rename(aside, final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _remove_local(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
