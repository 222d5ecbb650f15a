"""Files that are parts of other files, or that read as if some of their bytes were different.

Both leave the file itself alone: a decoder is shown what a header should have said.
"""

import io
import os
from collections.abc import Mapping
from typing import BinaryIO


class View(io.RawIOBase):
    """Bytes `start` to `stop` of a file, some of them replaced.

    Positions are counted from `start`. The file must not be used by others meanwhile.
    """

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patches: Mapping[int, bytes] | None = None
    ) -> None:
        """Shows part of a file.

        Args:
            file: binary and seekable; it is not closed with the view.
            start: first byte.
            stop: the byte after the last.
            patches: what is to be read at which position, counted from `start`.
        """
        super().__init__()
        self._file, self._start, self._size = file, start, stop - start
        self._patches = sorted((patches or {}).items())
        self._end_of_patches = max((at + len(new) for at, new in self._patches), default=0)
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """As many bytes as are asked for, fewer at the end alone."""
        left = max(self._size - self._position, 0)
        self._file.seek(self._start + self._position)
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        first = self._position
        self._position += len(data)
        if first >= self._end_of_patches:
            return data
        changed = bytearray(data)
        for at, new in self._patches:
            for index in range(max(at, first), min(at + len(new), self._position)):
                changed[index - first] = new[index - at]
        return bytes(changed)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Likewise, into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
