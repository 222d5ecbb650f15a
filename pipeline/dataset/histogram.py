"""Statistics of float16 values that do not depend on the order of summation, to the last bit.

A histogram counts how often each of the 65,536 codes occurs. Counts are integers, so the sum of
histograms is exact in any order; mean and deviation are then rational numbers, rounded once.
"""

import fractions
import math
from typing import Annotated

import msgspec
import numpy as np

from pipeline.io import stored_json

NUM_CODES = 2**16


class Codes(stored_json.Stored, frozen=True):
    """A histogram for JSON: the codes that occur, and how often each does."""

    codes: tuple[Annotated[int, msgspec.Meta(ge=0, lt=NUM_CODES)], ...]
    counts: tuple[Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)], ...]

    def __post_init__(self) -> None:
        if not len(set(self.codes)) == len(self.codes) == len(self.counts):
            raise ValueError("not one count for each code")

    @classmethod
    def of(cls, counts: np.ndarray) -> "Codes":
        """Converts int64 `[code]`."""
        codes = np.flatnonzero(counts)
        return cls(tuple(codes.tolist()), tuple(counts[codes].tolist()))

    def to_array(self) -> np.ndarray:
        """The inverse of `of`."""
        counts = np.zeros(NUM_CODES, np.int64)
        counts[list(self.codes)] = self.counts
        return counts


def count(values: np.ndarray) -> np.ndarray:
    """Counts how often each code occurs.

    Args:
        values: float16, of any shape.

    Returns:
        int64 `[code]`, 65,536 long.
    """
    codes = np.ascontiguousarray(values, "<f2").view("<u2").ravel()
    return np.bincount(codes, minlength=NUM_CODES)


def mean_and_deviation(counts: np.ndarray) -> tuple[float, float] | None:
    """Returns mean and (population) standard deviation of the values; None if there are none.

    Args:
        counts: int64 `[code]`; must be zero for NaN and infinity.
    """
    codes = np.flatnonzero(counts)
    if not codes.size:
        return None
    # Every finite float16 is a multiple of 2^-24.
    units = (codes.astype("<u2").view("<f2").astype(np.float64) * 2**24).astype(np.int64)
    numbers = [(int(c), int(u)) for c, u in zip(counts[codes], units, strict=True)]
    total = sum(c for c, _ in numbers)
    mean = fractions.Fraction(sum(c * u for c, u in numbers), total)
    variance = fractions.Fraction(sum(c * u * u for c, u in numbers), total) - mean**2
    return float(mean / 2**24), math.sqrt(variance / 2**48)
