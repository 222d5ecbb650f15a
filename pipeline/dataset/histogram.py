"""Statistics of float16 values that are the same to the last bit whatever the order of the sums.

A histogram counts how often each of the 65,536 codes came. Counts are integers, so histograms add
up exactly in any order; mean and deviation are then rational numbers, rounded once.
"""

import fractions
import math
from collections.abc import Mapping

import numpy as np

NUM_CODES = 2**16


def count(values: np.ndarray) -> np.ndarray:
    """How often each code comes.

    Args:
        values: float16, of any shape.

    Returns:
        int64 `[code]`, 65,536 long.
    """
    codes = np.ascontiguousarray(values, "<f2").view("<u2").ravel()
    return np.bincount(codes, minlength=NUM_CODES)


def to_dict(counts: np.ndarray) -> dict[str, list[int]]:
    """The codes that came, and how often, for JSON."""
    codes = np.flatnonzero(counts)
    return {"codes": codes.tolist(), "counts": counts[codes].tolist()}


def from_dict(fields: Mapping[str, list[int]]) -> np.ndarray:
    """The inverse of `to_dict`: int64 `[code]`.

    Raises:
        ValueError: these are no counts of codes.
    """
    codes, numbers = fields["codes"], fields["counts"]
    if not (
        all(type(code) is int and 0 <= code < NUM_CODES for code in codes)
        and all(type(number) is int and 0 < number < 2**63 for number in numbers)
        and len(set(codes)) == len(codes) == len(numbers)
    ):
        raise ValueError("these are no counts of codes")
    counts = np.zeros(NUM_CODES, np.int64)
    counts[codes] = numbers
    return counts


def mean_and_deviation(counts: np.ndarray) -> tuple[float, float] | None:
    """Mean and (population) standard deviation of what was counted; None where there is nothing.

    Args:
        counts: int64 `[code]`; codes of NaN and infinity must not have come.
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
