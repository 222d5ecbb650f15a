"""A lock that is a file in a folder of this machine, and dies with the process that holds it.

`filelock` was considered. Its file stays in the folder of a finished dataset, it cannot tell who
holds a `flock`, and where a file system has none it goes over, in silence, to a lock that outlives
a killed process.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def hold(path: str, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Holds the lock (`flock`) while the context lasts; the file is removed at its end.

    Args:
        path: of the file, which is made; its folder has to be there.
        refusal: makes the exception that is raised where another process holds the lock, from that
            process's number (or `unknown`).
    """
    handle = _take(path, refusal)
    try:
        yield
    finally:
        # Whoever opened the file meanwhile sees that it is no longer the one of that name.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(handle)


def _take(path: str, refusal: Callable[[str], Exception]) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(handle).st_ino:
                    # Whose it is serves a message alone; on a full disk it stays unsaid.
                    with contextlib.suppress(OSError):
                        os.ftruncate(handle, 0)
                        os.write(handle, f"{os.getpid()}\n".encode())
                    return handle
        except OSError as error:
            owner = os.read(handle, 20).decode("ascii", "replace").strip()
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise refusal(owner or "unknown") from error
            raise
        os.close(handle)
