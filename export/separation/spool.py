"""A temporary, unnamed file of samples, for processing a recording in several passes."""

import contextlib
import tempfile
from types import TracebackType

import numpy as np

from pipeline.io import atomic


class Spool:
    """Appends float32 `[sample, column]` and reads any range of it; deleted when it is closed.

    Attributes:
        num_samples: number of samples so far.
        num_columns: number of columns; 0 before the first samples.
    """

    def __init__(self) -> None:
        """Opens the file in the folder for temporary files (`TMPDIR`)."""
        self._file = tempfile.TemporaryFile(prefix="voices-apart-")  # noqa: SIM115 (close)
        self.num_samples = self.num_columns = 0

    def append(self, samples: np.ndarray) -> None:
        """Appends `[sample, column]`.

        Raises:
            UserError: the disk is full.
        """
        self.num_columns = samples.shape[1]
        self.num_samples += len(samples)
        with atomic.naming_tmpdir():
            self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(samples, np.float32).data)
            self._file.flush()

    def read(self, first: int, last: int) -> np.ndarray:
        """Reads samples `first` to `last`, `[sample, column]`; zeros where there are none."""
        begin, end = max(first, 0), min(last, self.num_samples)
        width = 4 * self.num_columns
        self._file.seek(begin * width)
        data = self._file.read(max(0, end - begin) * width)
        samples = np.frombuffer(data, np.float32).reshape(-1, self.num_columns)
        if begin == first and end == last:
            return samples
        before = min(max(0, -first), last - first)
        after = last - first - before - len(samples)
        return np.pad(samples, ((before, after), (0, 0)))

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # What is left in its buffer is not needed.
            self._file.close()
