"""Lists and reads files of a corpus, local or with a `scheme://` that Beam knows.

Beam's matching silently leaves out dangling and looped links, so local folders are listed here;
only names with `://` go through `pipeline.io.objects`.
"""

import dataclasses
import enum
import errno
import hashlib
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline import errors
from pipeline.io import objects

MAX_FILE_BYTES = 2**31
# Pauses between attempts to read, in seconds.
_PAUSES = (0.2, 1.0, 5.0)
_OF_THE_FILE = (
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.EINVAL,
)  # fmt: skip
# Folders at the root of a disk that may not be read, and hold no recordings.
_OF_SYSTEM = frozenset(("lost+found", "$RECYCLE.BIN", "System Volume Information"))
_DANGLING = "a link to nowhere"
_LOOP = "a link that leads round in a circle"
_NO_TEXT = "its name is not UTF-8; rename it"


class Cause(enum.Enum):
    """Why a file cannot be read.

    Only `FILE` is the fault of the recording: it does not exist, or is not a regular file.
    """

    FILE = "file"
    # The disk, the network or the store: another attempt may succeed.
    PASSING = "passing"
    # Permissions, credentials, a missing package: a user has to act.
    SETTING = "setting"


class ReadError(errors.UserError):
    """A file or a folder cannot be read.

    Attributes:
        path: path of the file or folder.
        reason: why, without the path.
        cause: kind of the reason.
    """

    def __init__(self, path: str, reason: str, cause: Cause = Cause.FILE) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.cause = cause

    def __reduce__(self) -> tuple[type, tuple[str, str, Cause]]:
        # Beam pickles exceptions between processes; BaseException's default would lose the reason.
        return type(self), (self.path, self.reason, self.cause)


_OF_OBJECTS = {
    objects.ABSENT: Cause.FILE,
    objects.UNREACHABLE: Cause.PASSING,
    objects.REFUSED: Cause.SETTING,
}


@dataclasses.dataclass(frozen=True)
class Listing:
    """The content of a folder.

    Attributes:
        files: paths relative to the folder, with `/`, sorted.
        problems: paths that cannot be followed, relative to the folder, and why; sorted.
        closed: the problems that are a lack of permission, perhaps for a folder of many files.
    """

    files: Sequence[str]
    problems: tuple[tuple[str, str], ...]
    closed: frozenset[str] = frozenset()


def require_open(folder: str, listing: Listing) -> None:
    """Raises ReadError if permission was lacking in a folder, as `read_bytes` does for a file."""
    for path, reason in listing.problems:
        if path in listing.closed:
            raise ReadError(join(folder, path), reason, Cause.SETTING)


def is_remote(path: str) -> bool:
    """Returns whether a path is accessed through Beam's file systems."""
    return "://" in path


def join(folder: str, relative: str) -> str:
    """Returns the path of a file in a folder."""
    if is_remote(folder):
        return posixpath.join(folder, relative)
    return os.path.join(folder, *relative.split("/"))


def in_order(paths: Iterable[str]) -> Sequence[str]:
    """Returns the sorted paths."""
    return tuple(sorted(paths))


def list_files(folder: str, gather: Callable[[Iterable[str]], Sequence[str]] = in_order) -> Listing:
    """Lists all files in a folder and its subfolders, in an order given by their names alone.

    Links are followed. Names that begin with a dot are left out (on some discs, macOS puts
    `._SA1.WAV` beside `SA1.WAV`), and folders of the operating system (`lost+found`).

    Args:
        folder: local or with a scheme.
        gather: takes the files' paths, in any order, and returns them sorted.

    Raises:
        ReadError: the folder does not exist, or cannot be listed.
    """
    return (_list_remote if is_remote(folder) else _list_local)(folder, gather)


def read_bytes(path: str) -> bytes:
    """Returns the content of one file.

    Errors that may be temporary (of the disk, the network, a store) are retried for some seconds.

    Raises:
        ReadError: the file does not exist, is a dangling link, not a regular file or larger than
            `MAX_FILE_BYTES`, permission is denied, or an error has not passed; see `cause`.
    """
    for pause in _PAUSES:
        try:
            return _read_once(path)
        except ReadError as error:
            if error.cause is not Cause.PASSING:
                raise
        time.sleep(pause)
    try:
        return _read_once(path)
    except ReadError as error:
        if error.cause is not Cause.PASSING:
            raise
        reason = f"{error.reason} (tried {len(_PAUSES) + 1} times); run the same command again"
        raise ReadError(path, reason, error.cause) from error


def _read_once(path: str) -> bytes:
    data: bytes | None
    try:
        if is_remote(path):
            data = _read_remote(path)
        else:
            # A pipe or a device named like an audio file would block for ever.
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise ReadError(path, "is a folder" if os.path.isdir(path) else "not a plain file")
            data = None
            if status.st_size <= MAX_FILE_BYTES:
                with open(path, "rb") as file:
                    # Without a limit, for which Python would allocate that much memory each time.
                    data = file.read()
    except OSError as error:
        raise ReadError(path, _explain(path, error), _cause(error)) from error
    if data is None or len(data) > MAX_FILE_BYTES:
        raise ReadError(path, f"larger than {MAX_FILE_BYTES >> 20} MiB; cut it into pieces")
    return data


def sha256(path: str) -> str:
    """Returns the SHA-256 of one file of any size, in hexadecimal.

    Raises:
        ReadError: a remote file cannot be read.
        OSError: a local file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with objects.open_to_read(path) if is_remote(path) else open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except objects.ObjectError as error:
        raise ReadError(path, error.reason) from error
    return digest.hexdigest()


def _cause(error: OSError) -> Cause:
    if error.errno in _OF_THE_FILE:
        return Cause.FILE
    return Cause.SETTING if isinstance(error, PermissionError) else Cause.PASSING


def _explain(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return _DANGLING if os.path.islink(path) else "no such file"
    if isinstance(error, PermissionError):
        return "may not be read; check its permissions"
    if isinstance(error, NotADirectoryError):
        return "a part of its path is no folder"
    if os.path.islink(path) and "symbolic links" in str(error):
        return _LOOP
    return f"cannot be read: {error.strerror or error}"


def _list_local(folder: str, gather: Callable[[Iterable[str]], Sequence[str]]) -> Listing:
    if not os.path.isdir(folder):
        what = "is no folder" if os.path.exists(folder) else "no such folder"
        raise ReadError(folder, what)
    problems: list[tuple[str, str]] = []
    closed: set[str] = set()

    def visit(relative: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
        here = os.path.join(folder, relative)
        status = os.stat(here)
        key = (status.st_dev, status.st_ino)
        if key in above:
            problems.append((relative, _LOOP))
            return
        with os.scandir(here) as entries:
            found = [entry for entry in entries if not _is_hidden(entry.name)]
        for entry in found:
            path = f"{relative}/{entry.name}" if relative else entry.name
            if not _is_text(entry.name):
                problems.append((path.encode(errors="backslashreplace").decode(), _NO_TEXT))
                continue
            mode = 0
            try:
                mode = entry.stat().st_mode
                if stat.S_ISDIR(mode):
                    yield from visit(path, (*above, key))
                elif stat.S_ISREG(mode):
                    yield path
                else:
                    problems.append((path, "not a plain file"))
            except OSError as error:
                if _cause(error) is Cause.PASSING:
                    # Otherwise files would be missing because a disk was slow to answer.
                    raise
                problems.append((path, _explain(os.path.join(folder, path), error)))
                if stat.S_ISDIR(mode) or isinstance(error, PermissionError):
                    closed.add(path)

    try:
        files = gather(visit("", ()))
    except OSError as error:
        raise ReadError(folder, _explain(folder, error), _cause(error)) from error
    return Listing(files, tuple(sorted(problems)), frozenset(closed))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _OF_SYSTEM


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _list_remote(folder: str, gather: Callable[[Iterable[str]], Sequence[str]]) -> Listing:
    try:
        found = [item.name for item in objects.match(folder)]
    except objects.ObjectError as error:
        raise ReadError(folder, error.reason, _OF_OBJECTS[error.kind]) from error
    if not found:
        raise ReadError(folder, "no such folder, or nothing in it")
    visible = [f for f in found if f and not any(map(_is_hidden, f.split("/")))]
    # Web consoles create an empty object `folder/` to represent a folder.
    return Listing(gather(f for f in visible if not f.endswith("/")), ())


def _read_remote(path: str) -> bytes:
    try:
        return objects.read(path, MAX_FILE_BYTES + 1)
    except objects.ObjectError as error:
        raise ReadError(path, error.reason, _OF_OBJECTS[error.kind]) from error
