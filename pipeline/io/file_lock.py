"""A lock file in a local folder, which is released when the process that holds it dies.

`filelock` was considered. Its file stays in the folder of a finished dataset, it cannot tell who
holds a `flock`, and on a file system without `flock` it silently switches to a lock that outlives a
killed process.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator

from pipeline import errors

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextlib.contextmanager
def hold(path: str, refusal: Callable[[str], Exception]) -> Iterator[None]:
    """Holds the lock (`flock`) during the `with` block, then removes the file.

    Args:
        path: path of the file, which is created; its folder must exist.
        refusal: makes the exception to raise if another process holds the lock, from the process's
            number (or `unknown`).

    Raises:
        UserError: the file system has no locks.
        OSError: the file cannot be created or locked.
    """
    handle = _take(path, refusal)
    try:
        yield
    finally:
        # A process that has opened the file meanwhile notices that the name no longer refers to it.
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
                    # The owner is only needed for a message; it is omitted if the disk is full.
                    with contextlib.suppress(OSError):
                        os.ftruncate(handle, 0)
                        os.write(handle, f"{os.getpid()}\n".encode())
                    return handle
        except OSError as error:
            owner = os.read(handle, 20).decode("ascii", "replace").strip()
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise refusal(owner or "unknown") from error
            # A file with an owner may still be that of a lock, if this error is only ours.
            if not owner:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            if error.errno in _NO_LOCKS:
                raise errors.UserError(
                    f"{path}: this file system has no locks (flock): {error.strerror}; mount it "
                    "with them, or choose a folder elsewhere"
                ) from error
            raise OSError(error.errno, error.strerror, path) from error
        os.close(handle)
