"""Maps files into memory, as many as the system permits."""

import contextlib
import functools
import mmap
import resource


def map_file(path: str) -> mmap.mmap:
    """Maps a local file into memory, read-only; its bytes are read from disk when they are used.

    Raises:
        OSError: the file cannot be read, or this process has too many files open: a mapped file
            counts for as long as it is used. The error has the file's name.
        ValueError: the file is empty.
    """
    _allow_many()
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error


@functools.cache
def _allow_many() -> None:
    """Raises the limit of open files, usually 1,024, to the highest that needs no privileges."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
