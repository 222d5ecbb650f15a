"""A progress bar that counts the work of all workers of a job, on any machine.

Runners report nothing useful to the process that launched a job before its end, and each reports
something different. Workers therefore count in the dataset's work folder, which all can access. If
it is local (or mounted on several machines), they append one byte to a file for each item done; in
an object store, each worker writes a small object of its own.
"""

import contextlib
import os
import threading
import time
import uuid
from types import TracebackType

from pipeline.io import atomic, storage

_LINE_SECONDS = 60.0
_LOOK_SECONDS = 0.25
# Minimum time between writing, or reading, the objects.
_OBJECT_SECONDS = 30.0


class _Object:
    """The count of this process, in an object that only it writes."""

    def __init__(self, folder: str) -> None:
        self._path = storage.join(folder, uuid.uuid4().hex)
        self._count, self._next = 0, 0.0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + _OBJECT_SECONDS
            text = str(self._count)
        atomic.write_text(self._path, text)


_objects: dict[str, _Object] = {}


def tick(path: str, count: int = 1) -> None:
    """Adds to the count in `path`; never fails.

    Args:
        path: local, or with a scheme that Beam's file systems know.
        count: number of items done.
    """
    with contextlib.suppress(Exception):
        if storage.is_remote(path):
            _objects.setdefault(path, _Object(path)).add(count)
            return
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(handle, b"." * count)
        finally:
            os.close(handle)


def done(path: str) -> int:
    """Returns the count of all workers; in an object store, as it was up to half a minute ago."""
    if not storage.is_remote(path):
        try:
            return os.stat(path).st_size
        except OSError:
            return 0
    total = 0
    # A worker may be writing at this moment.
    with contextlib.suppress(Exception):
        for name in atomic.names(path):
            with contextlib.suppress(Exception):
                total += int(storage.read_bytes(storage.join(path, name)))
    return total


class Bar:
    """Shows progress on stderr during the `with` block.

    On a terminal, the bar moves and disappears at the end; in a log, it is one line a minute.
    """

    def __init__(self, path: str, total: int, what: str, unit: str) -> None:
        """Sets what is counted.

        Args:
            path: as given to `tick`; it need not exist.
            total: the count at the end.
            what: name of the work, such as `inspect`.
            unit: unit of the count.
        """
        self._path, self._total, self._what, self._unit = path, total, what, unit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Bar":
        # A duplicate: while Beam runs, stderr itself is redirected to hide Beam's messages.
        self._stderr = os.fdopen(os.dup(2), "w", encoding="utf-8")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._stderr.close()

    def _watch(self) -> None:
        if not self._stderr.isatty():
            while not self._done.wait(_LINE_SECONDS):
                line = f"{self._what}: {self._count():,d} of {self._total:,d} {self._unit}"
                print(line, file=self._stderr, flush=True)
            return
        # Workers only count, so they need not have tqdm installed.
        import tqdm

        bar = tqdm.tqdm(
            total=self._total, desc=self._what, unit=f" {self._unit}", delay=1.0, leave=False,
            file=self._stderr,
        )  # fmt: skip
        seconds = _OBJECT_SECONDS if storage.is_remote(self._path) else _LOOK_SECONDS
        with bar:
            while not self._done.wait(seconds):
                bar.update(max(0, self._count() - bar.n))

    def _count(self) -> int:
        # A step that a runner repeats is counted twice.
        return min(done(self._path), self._total)
