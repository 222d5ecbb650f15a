"""The ideal masks: names, ranges, encodings, and formulas in NumPy.

To add a mask, add a row to `MASKS` and, for mixtures that are made on the device, one to
`models.masks.IDEAL`; a test compares the two. The record, `--masks`, `--target` and the
documentation follow. Axes are `[source, frame, bin]`; masks of each kind add up to one over the
voices.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from pipeline import encodings


@dataclasses.dataclass(frozen=True)
class Spectrograms:
    """The spectrograms from which masks are computed.

    Attributes:
        voices: complex64 `[source, frame, bin]`.
        mixture: complex64 `[frame, bin]`, their sum.
    """

    voices: np.ndarray
    mixture: np.ndarray

    @functools.cached_property
    def magnitudes(self) -> np.ndarray:
        """Magnitudes of the voices, float32 `[source, frame, bin]`."""
        return np.abs(self.voices)


@dataclasses.dataclass(frozen=True)
class Mask:
    """One kind of mask.

    Attributes:
        name: name in the record and in flags.
        meaning: one line for the documentation.
        encoding: how it is stored.
        ideal: computes the masks, of the first `count` voices if that is given, else of all.
    """

    name: str
    meaning: str
    encoding: encodings.Encoding
    ideal: Callable[..., np.ndarray]

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest stored value."""
        return self.encoding.range or (0.0, 1.0)


def binary(magnitudes: np.ndarray, count: int | None = None) -> np.ndarray:
    """Marks the loudest voice in each bin; a tie goes to the first.

    Args:
        magnitudes: float32 `[source, frame, bin]` of the voices.
        count: number of voices to return masks of; by default all.

    Returns:
        bool `[source, frame, bin]`, true for one voice in each bin.
    """
    if len(magnitudes) == 2:
        first = magnitudes[:1] >= magnitudes[1:]
        return first if count == 1 else np.concatenate([first, ~first])
    sources = np.arange(len(magnitudes)).reshape(-1, 1, 1)
    return np.argmax(magnitudes, axis=0)[np.newaxis] == sources[:count]


def ratio(magnitudes: np.ndarray, count: int | None = None) -> np.ndarray:
    """Returns `|S_s| / sum_k |S_k|`, or 1 / S if all voices are zero.

    Args:
        magnitudes: float32 `[source, frame, bin]` of the voices.
        count: number of voices to return masks of; by default all.

    Returns:
        float32 `[source, frame, bin]`, which adds up to one over all voices.
    """
    return _quotients(magnitudes[:count], magnitudes.sum(axis=0), len(magnitudes))


def phase_sensitive(
    spectrograms: np.ndarray, mixture: np.ndarray, count: int | None = None
) -> np.ndarray:
    """Returns `Re(S_s / X)` (Erdogan et al. 2015), or 1 / S where the mixture is zero.

    Args:
        spectrograms: complex64 `[source, frame, bin]` of the voices.
        mixture: complex64 `[frame, bin]`, their sum.
        count: number of voices to return masks of; by default all.

    Returns:
        float32 `[source, frame, bin]`, not clipped, which adds up to one over all voices.
    """
    power = mixture.real**2 + mixture.imag**2
    some = spectrograms[:count]
    projection = some.real * mixture.real + some.imag * mixture.imag
    return _quotients(projection, power, len(spectrograms))


def _quotients(parts: np.ndarray, total: np.ndarray, num_sources: int) -> np.ndarray:
    """Returns `parts` `[source, frame, bin]` over `total` `[frame, bin]`, 1 / S where it is 0."""
    silent = total == 0
    if not silent.any():
        return parts / total
    masks = parts / np.where(silent, np.float32(1), total)
    masks[:, silent] = 1 / num_sources
    return masks


MASKS = {
    mask.name: mask
    for mask in (
        Mask(
            "ibm", "ideal binary mask", encodings.BITS,
            lambda s, count=None: binary(s.magnitudes, count),
        ),
        Mask(
            "irm", "ideal ratio mask", encodings.Encoding("irm", "uint8", (0.0, 1.0)),
            lambda s, count=None: ratio(s.magnitudes, count),
        ),
        Mask(
            "psm", "phase-sensitive mask, clipped to [-1, 2]",
            encodings.Encoding("psm", "uint8", (-1.0, 2.0)),
            lambda s, count=None: phase_sensitive(s.voices, s.mixture, count),
        ),
    )
}  # fmt: skip
