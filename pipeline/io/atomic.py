"""Writes files under a temporary name and renames them; writes objects of a store in one piece.

No other module of the project chooses temporary names or renames files. `atomicwrites` does the
same, but only for files, and is no longer maintained.
"""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import BinaryIO, cast

from pipeline import errors
from pipeline.io import objects, storage

# Larger content is kept on disk until it is complete and sent to the store.
_IN_MEMORY = 2**25
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.tmp\.(.*)", re.DOTALL)
# How much of the final name is kept, so that the temporary one is never too long.
_KEPT_CHARACTERS = 50


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path for a file or folder, renamed when the `with` block succeeds.

    Each attempt has its own temporary name: two that write the same file do not collide, and the
    one that ends last counts. It has the ending of the final name, since some libraries rely on it.
    If the block fails, nothing new is left, and an existing file or folder keeps its name.

    A link to a folder stays, and the folder that it leads to is replaced, perhaps on another disk.
    A link to a file is replaced, and the file that it leads to stays.

    Args:
        path: local path of the file or folder; its parent must exist.
        durable: wait until the file is on disk before it is renamed, and until the new name is.

    Yields:
        The temporary path, where nothing exists yet.

    Raises:
        OSError: the parent cannot hold it; if the disk is full, the error has the final name.
    """
    final = pathlib.Path(path)
    if final.is_symlink() and final.is_dir():
        final = final.resolve()
    temporary = _temporary(final)
    try:
        yield temporary
        if durable:
            # Otherwise the new name may exist without its content after a power failure.
            sync(temporary)
        _rename(temporary, final)
        if durable:
            # Files written later must not survive a file they rely on. Some file systems lack this.
            with contextlib.suppress(OSError):
                sync(final.parent)
    except BaseException as error:
        _remove_local(temporary)
        # The error of a full disk has no name; others may have the temporary one.
        unnamed = isinstance(error, OSError) and error.filename in (None, str(temporary))
        if unnamed and isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, str(final)) from error
        raise


@contextlib.contextmanager
def create(path: str, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Opens a file that gets its name only when the `with` block succeeds (`replacing`).

    In an object store, renaming means copying, so the content is sent when it is complete.

    Args:
        path: local or with a scheme.
        durable: wait until a local file is on disk.

    Yields:
        A binary file to write to.

    Raises:
        OSError: a local folder cannot hold the file.
        UserError: a store does not accept it.
    """
    if storage.is_remote(path):
        with naming_tmpdir(), tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            yield cast(BinaryIO, spool)
            spool.seek(0)
            objects.write(path, cast(BinaryIO, spool))
        return
    with replacing(path, durable=durable) as temporary, open(temporary, "xb") as file:
        yield file


@contextlib.contextmanager
def naming_tmpdir() -> Iterator[None]:
    """Names the folder for temporary files when it is full, which the system's error does not.

    Raises:
        UserError: the `with` block found no space for a temporary file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            raise errors.UserError(
                f"{tempfile.gettempdir()}, the folder for temporary files: {error.strerror}; free "
                "some space there, or set TMPDIR to another folder"
            ) from error
        raise


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False) -> None:
    """Writes a whole file, in UTF-8."""
    with create(os.fspath(path), durable=durable) as file:
        file.write(text.encode("utf-8"))


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a local file is on disk, not only in memory."""
    if not storage.is_remote(os.fspath(path)):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def beside(folder: str) -> str:
    """Returns a unique name for a temporary folder that is accessible from wherever `folder` is.

    It is next to `folder`, or inside it if that is impossible, as for a whole bucket.
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
    """Creates the folder and its parents if they do not exist."""
    if not storage.is_remote(path):
        os.makedirs(path, exist_ok=True)


def exists(path: str) -> bool:
    """Returns whether the file exists."""
    return objects.exists(path) if storage.is_remote(path) else os.path.isfile(path)


def names(folder: str) -> list[str]:
    """Returns the files directly in a folder, sorted; none if the folder does not exist."""
    if storage.is_remote(folder):
        return objects.names(folder)
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir())


def final_name(name: str) -> str | None:
    """Returns the final name of a temporary file of `replacing`; None for other files.

    Of a long name, only the end is returned.
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def remove(path: str) -> None:
    """Removes a file if it exists."""
    if storage.is_remote(path):
        objects.delete(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def remove_folder(path: str) -> None:
    """Removes a folder and everything in it if it exists."""
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
    # A folder cannot replace another: the old one is moved aside, and back if this rename fails.
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
