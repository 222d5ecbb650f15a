"""How the values of an array lie in a byte string, for everyone who writes or reads one.

A code `c` stands for the value `c * scale + offset`. NumPy's side is here; readers on another
library take `dtype`, `packed`, `scale` and `offset`, so that no two of them can disagree.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

_STEPS = 255


@dataclasses.dataclass(frozen=True)
class Encoding:
    """One way to store an array: little-endian, in C order.

    Attributes:
        name: part of `schema.fingerprint`: another way needs another name.
        dtype: of what is stored.
        range: lowest and highest value, of which uint8 codes are 255 equal steps; None where the
            values themselves are stored.
        packed: each value is one bit, the highest of a byte first (`np.packbits`).
        decoded: dtype of what `decode` gives.
    """

    name: str
    dtype: str
    range: tuple[float, float] | None = None
    packed: bool = False
    decoded: str = "float32"

    @property
    def scale(self) -> float:
        """Value of one step."""
        return 1.0 if self.range is None else (self.range[1] - self.range[0]) / _STEPS

    @property
    def offset(self) -> float:
        """Value of code 0."""
        return 0.0 if self.range is None else self.range[0]

    @property
    def description(self) -> str:
        """For the documentation."""
        if self.packed:
            return "bits (`np.packbits` over the whole array)"
        if self.range is None:
            return self.dtype
        low, span = self.range[0], self.range[1] - self.range[0]
        if (low, span) == (0, 1):
            return f"uint8: round({_STEPS} · value)"
        return f"uint8: value = code · {span:g} / {_STEPS} {'−' if low < 0 else '+'} {abs(low):g}"

    def num_bytes(self, count: int) -> int:
        """Length of the byte string of so many values."""
        return (count + 7) // 8 if self.packed else count * np.dtype(self.dtype).itemsize

    def encode(self, array: np.ndarray) -> bytes:
        """The byte string; what is beyond the range is clipped."""
        if self.packed:
            return np.packbits(array.astype(bool, copy=False)).tobytes()
        if self.range is None:
            return array.astype(np.dtype(self.dtype).newbyteorder("<"), copy=False).tobytes()
        low, high = map(np.float32, self.range)
        values = np.clip(array.astype(np.float32, copy=False), low, high)
        if self.offset:
            values -= np.float32(self.offset)
        values *= np.float32(1 / self.scale)
        # + 0.5 and truncation: none is negative here, and it is one pass less than rint.
        values += np.float32(0.5)
        return values.astype(np.uint8).tobytes()

    def decode(self, data: bytes, shape: Sequence[int]) -> np.ndarray:
        """The array; `data` has as many bytes as `num_bytes` says."""
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
