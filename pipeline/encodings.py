"""Encodings of arrays as byte strings, for all writers and readers.

A code `c` means the value `c * scale + offset`. The NumPy implementation is here; readers with
another library use `dtype`, `packed`, `scale` and `offset`, so that all of them agree.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_STEPS = 255


@dataclasses.dataclass(frozen=True)
class Encoding:
    """An encoding of an array: little-endian, in C order.

    Attributes:
        name: part of `schema.fingerprint`; a different encoding needs a different name.
        dtype: dtype of the stored values.
        range: lowest and highest value, divided into 255 equal steps for uint8 codes; None if the
            values themselves are stored.
        packed: each value is one bit, the highest bit of a byte first (`np.packbits`).
        decoded: dtype of what `decode` returns.
    """

    name: str
    dtype: str
    range: tuple[float, float] | None = None
    packed: bool = False
    decoded: str = "float32"

    @property
    def scale(self) -> float:
        """Size of one step."""
        return 1.0 if self.range is None else (self.range[1] - self.range[0]) / _STEPS

    @property
    def offset(self) -> float:
        """Value of code 0."""
        return 0.0 if self.range is None else self.range[0]

    @property
    def description(self) -> str:
        """Text for the documentation."""
        if self.packed:
            return "bits (`np.packbits` over the whole array)"
        if self.range is None:
            return self.dtype
        low, span = self.range[0], self.range[1] - self.range[0]
        if (low, span) == (0, 1):
            return f"uint8: round({_STEPS} · value)"
        return f"uint8: value = code · {span:g} / {_STEPS} {'−' if low < 0 else '+'} {abs(low):g}"

    def num_bytes(self, count: int) -> int:
        """Returns the length of the byte string of `count` values."""
        return (count + 7) // 8 if self.packed else count * np.dtype(self.dtype).itemsize

    def encode(self, array: np.ndarray) -> bytes:
        """Returns the byte string; values outside the range are clipped."""
        if self.packed:
            return np.packbits(array.astype(bool, copy=False)).tobytes()
        if self.range is None:
            return array.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes()
        low, high = map(np.float32, self.range)
        values = np.clip(array.astype(np.float32, copy=False), low, high)
        if self.offset:
            values -= np.float32(self.offset)
        values *= np.float32(1 / self.scale)
        # Values are not negative here, so + 0.5 and truncation round, with one pass less than rint.
        values += np.float32(0.5)
        return values.astype(np.uint8).tobytes()

    def decode(self, data: bytes, shape: Sequence[int]) -> np.ndarray:
        """Returns the array; `data` must have the length that `num_bytes` gives."""
        codes = np.frombuffer(data, np.dtype(self.dtype).newbyteorder("<"))
        if self.packed:
            codes = np.unpackbits(codes, count=math.prod(shape))
        values = codes.reshape(shape).astype(self.decoded, copy=False)
        if self.range is None:
            return values
        return values * np.float32(self.scale) + np.float32(self.offset)


INT16 = Encoding("int16", "int16", decoded="int16")
FLOAT16 = Encoding("float16", "float16")
UINT8 = Encoding("uint8", "uint8", decoded="uint8")
BITS = Encoding("bits", "uint8", packed=True, decoded="bool")
