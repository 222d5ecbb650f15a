"""A progress bar fed by a file that grows by one byte for each thing that is done.

Workers of a Beam job report nothing until a bundle ends; that a file grows every process on this
machine can see.
"""

import os
import threading
from types import TracebackType

import tqdm


class Bar:
    """Shows on stderr how far the work is, while the `with` block runs.

    On a terminal it moves; in a log it is a line a minute. Nothing is shown of work that is done
    before a second is over.
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
        terminal = self._stderr.isatty()
        bar = tqdm.tqdm(
            total=self._total, desc=self._what, unit=f" {self._unit}", delay=1.0, leave=False,
            mininterval=0.5 if terminal else 60.0, ascii=None if terminal else True,
            file=self._stderr,
        )  # fmt: skip
        with bar:
            while not self._done.wait(0.25):
                bar.update(max(0, min(self._size(), self._total) - bar.n))

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0
