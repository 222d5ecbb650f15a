"""A progress bar fed by a file that grows by one byte for each thing that is done.

Workers of a Beam job report nothing until a bundle ends; that a file grows every process on this
machine can see.
"""

import os
import threading
from types import TracebackType

import tqdm

_LINE_SECONDS = 60.0


class Bar:
    """Shows on stderr how far the work is, while the `with` block runs.

    On a terminal it moves, and is gone at the end; in a log it is a line a minute.
    """

    def __init__(self, path: str, total: int, what: str, unit: str) -> None:
        """Watches a file.

        Args:
            path: of the file; there need be none yet, or ever.
            total: its size at the end.
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
                line = f"{self._what}: {self._size():,d} of {self._total:,d} {self._unit}"
                print(line, file=self._stderr, flush=True)
            return
        bar = tqdm.tqdm(
            total=self._total, desc=self._what, unit=f" {self._unit}", delay=1.0, leave=False,
            file=self._stderr,
        )  # fmt: skip
        with bar:
            while not self._done.wait(0.25):
                bar.update(max(0, self._size() - bar.n))

    def _size(self) -> int:
        try:
            # A step that a runner has repeated counts twice.
            return min(os.stat(self._path).st_size, self._total)
        except OSError:
            return 0
