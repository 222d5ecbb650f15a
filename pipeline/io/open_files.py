"""Limit of the number of files that a process may have open."""

import contextlib
import functools
import resource


@functools.cache
def allow_many() -> None:
    """Raises the limit of this process as far as the system permits.

    A file that is mapped into memory counts even after it was closed. The usual limit of 1,024 is
    less than the number of shards of a large dataset.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
