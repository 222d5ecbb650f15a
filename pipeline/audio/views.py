"""Views of files: a part of a file, or a file with some bytes replaced.

The file itself is not changed. Views show decoders a corrected header.
"""

import io
import os
from collections.abc import Mapping
from typing import BinaryIO


class View(io.RawIOBase):
    """Bytes `start` to `stop` of a file, some of them replaced.

    Positions are counted from `start`. Nothing else may use the file at the same time.
    """

    def __init__(
        self, file: BinaryIO, start: int, stop: int, patches: Mapping[int, bytes] | None = None
    ) -> None:
        """Creates a view of part of a file.

        Args:
            file: binary and seekable; closing the view does not close it.
            start: first byte.
            stop: the byte after the last.
            patches: bytes to read instead of those in the file, by position from `start`.
        """
        super().__init__()
        self._file, self._start, self._size = file, start, stop - start
        self._patches = sorted((patches or {}).items())
        self._end_of_patches = max((at + len(new) for at, new in self._patches), default=0)
        self._position = 0

    def readable(self) -> bool:
        """Returns True."""
        return True

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def tell(self) -> int:
        """Returns the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves to a position, as in any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads the requested number of bytes, or fewer at the end."""
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
        """Reads bytes into a buffer and returns how many."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
