"""A progress bar, fed by all who take part in a job, on whatever machine.

Runners tell the process that has launched a job nothing of use before its end, and each something
else. So workers count in the dataset's work folder, which they all reach: in a local one (or one
that several machines have mounted) by a file that grows by one byte for each thing that is done, in
an object store each in a small object of its own.
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
# Objects are neither written nor looked at more often.
_OBJECT_SECONDS = 30.0


class _Object:
    """What this process has done, in an object that only it writes."""

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
    """Counts for whoever watches `path`; never fails.

    Args:
        path: local, or with a scheme that Beam's file systems know.
        count: of what has been done.
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
    """What all have counted; in an object store what they had half a minute ago."""
    if not storage.is_remote(path):
        try:
            return os.stat(path).st_size
        except OSError:
            return 0
    total = 0
    # A worker may be writing just now.
    with contextlib.suppress(Exception):
        for name in atomic.names(path):
            with contextlib.suppress(Exception):
                total += int(storage.read_bytes(storage.join(path, name)))
    return total


class Bar:
    """Shows on stderr how far the work is, while the `with` block runs.

    On a terminal it moves, and is gone at the end; in a log it is a line a minute.
    """

    def __init__(self, path: str, total: int, what: str, unit: str) -> None:
        """Watches what workers `tick`.

        Args:
            path: where; there need be nothing yet, or ever.
            total: the count at the end.
            what: is done, such as `inspect`.
            unit: of what is counted.
        """
        self._path, self._total, self._what, self._unit = path, total, what, unit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Bar":
        # A copy: while Beam runs, stderr itself is pointed away from its noise.
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
        # Workers, who only tick, need not have it.
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
        # A step that a runner has repeated counts twice.
        return min(done(self._path), self._total)
