"""How good an estimate is: SI-SDR, SDR, STOI, PESQ and mask accuracy, from well-kept libraries.

fast_bss_eval gives SI-SDR (Le Roux et al. 2019) and SDR (Vincent et al. 2006, filters of 512
samples), pystoi gives STOI (Taal et al. 2011), pesq gives PESQ (ITU-T P.862, narrow band at 8 kHz,
wide band at 16 kHz). Both ratios are taken of signals without their mean. A figure that cannot be
computed, or whose library is not installed, is not a number: nothing here raises for a signal.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import warnings
from collections.abc import Callable, Iterable

import numpy as np
import scipy.optimize

from pipeline import errors, features


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure of an estimate.

    Attributes:
        name: in the results.
        title: for people.
        unit: of the values; empty where they have none.
        library: the module that computes it; empty where NumPy does.
        digits: after the point, where people read it.
    """

    name: str
    title: str
    unit: str
    library: str
    digits: int


METRICS = {
    metric.name: metric
    for metric in (
        Metric("si_sdr", "SI-SDR", "dB", "fast_bss_eval", 1),
        Metric("sdr", "SDR", "dB", "fast_bss_eval", 1),
        Metric("stoi", "STOI", "", "pystoi", 3),
        Metric("pesq", "PESQ", "", "pesq", 2),
        Metric("mask_accuracy", "mask accuracy", "%", "", 1),
    )
}
# Those of which the improvement over the mixture is a figure as well.
IMPROVED = ("si_sdr", "sdr")
_IMPROVEMENT = "_improvement"
# Of masks whose first is meant to be voice 1, as those of a network trained without permutations.
_AS_GIVEN = "_as_given"


def figures(names: Iterable[str]) -> list[str]:
    """What the metrics give, in order: themselves, improvements, accuracy in the order given."""
    found = []
    for name in names:
        found.append(name)
        if name in IMPROVED:
            found.append(name + _IMPROVEMENT)
        if name == "mask_accuracy":
            found.append(name + _AS_GIVEN)
    return found


def of_figure(figure: str) -> Metric:
    """The metric that a figure of `figures` comes from."""
    return METRICS[figure.removesuffix(_IMPROVEMENT).removesuffix(_AS_GIVEN)]


def title(figure: str) -> str:
    """A figure's name and unit, for people."""
    metric = of_figure(figure)
    text = metric.title
    if figure.endswith(_IMPROVEMENT):
        text += " improvement"
    if figure.endswith(_AS_GIVEN):
        text += " in the order given"
    return f"{text}, {metric.unit}" if metric.unit else text


def missing_libraries(names: Iterable[str]) -> dict[str, str]:
    """The metrics that cannot be computed here, with the module that each of them lacks.

    Raises:
        UserError: SI-SDR is among them, without which no estimate is matched with a voice.
    """
    missing = {
        name: METRICS[name].library
        for name in names
        if METRICS[name].library and importlib.util.find_spec(METRICS[name].library) is None
    }
    if importlib.util.find_spec("fast_bss_eval") is None:
        raise errors.UserError("fast_bss_eval is not installed: pip install voices-apart[evaluate]")
    return missing


def si_sdr_matrix(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SI-SDR of every estimate against every voice, both made zero-mean.

    Args:
        references: the voices, `[source, sample]`.
        estimates: `[estimate, sample]`.

    Returns:
        float64 `[source, estimate]`, dB; not a number where one of the two is constant.
    """
    return _pairwise("pairwise_si_sdr_loss", references, estimates)


def sdr_matrix(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """SDR (BSS eval, distortion filters of 512 samples), likewise."""
    return _pairwise("pairwise_sdr_loss", references, estimates)


def _pairwise(function: str, references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    # The package's own front door fails where PyTorch is absent; its NumPy part does not.
    from fast_bss_eval import numpy as bss

    if references.shape[-1] != estimates.shape[-1]:
        lengths = references.shape[-1], estimates.shape[-1]
        raise ValueError(f"voices and estimates differ in length: {lengths}")
    references, estimates = _without_mean(references), _without_mean(estimates)
    matrix = np.full((len(references), len(estimates)), np.nan)
    sounding = np.ix_(references.any(axis=-1), estimates.any(axis=-1))
    if matrix[sounding].size:
        voices, guesses = references[sounding[0].ravel()], estimates[sounding[1].ravel()]
        # Its filters have no solution for a signal of a few samples.
        with np.errstate(all="ignore"), contextlib.suppress(np.linalg.LinAlgError, ValueError):
            matrix[sounding] = -getattr(bss, function)(guesses, voices)
    return np.where(np.isfinite(matrix), matrix, np.nan)


def _without_mean(signals: np.ndarray) -> np.ndarray:
    """Zero-mean with a peak of 1, or exactly zero: the library takes a norm below 1e-6 as noise."""
    signals = np.asarray(signals, np.float64)
    constant = np.ptp(signals, axis=-1, keepdims=True) == 0
    centred = np.where(constant, 0.0, signals - signals.mean(axis=-1, keepdims=True))
    return centred / np.where(constant, 1.0, np.abs(centred).max(axis=-1, keepdims=True))


def best_permutation(matrix: np.ndarray) -> np.ndarray:
    """Which estimate belongs to each voice: the assignment with the largest sum.

    Args:
        matrix: `[source, estimate]`, dB; pairs that are not a number are taken last.

    Returns:
        int64 `[source]`, the estimate of each voice.
    """
    finite = np.where(np.isnan(matrix), -1e6, matrix)
    return scipy.optimize.linear_sum_assignment(finite, maximize=True)[1]


def stoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility, of `[sample]` signals; under 0.4 s not a number."""
    import pystoi

    with warnings.catch_warnings():
        # Too few frames of speech: pystoi warns and returns 1e-5, which is no measurement.
        warnings.filterwarnings("error", message="Not enough STFT frames")
        return float(pystoi.stoi(reference, estimate, rate))


def pesq(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Perceptual quality, 1 to 4.6, of `[sample]` signals; only rates of 8 and 16 kHz have it."""
    import pesq as library

    mode = {8000: "nb", 16000: "wb"}[rate]
    return float(library.pesq(rate, reference, estimate, mode))


def mask_accuracy(masks: np.ndarray, magnitudes: np.ndarray, mixture: np.ndarray) -> float:
    """In how many of the bins that count the largest mask is that of the loudest voice.

    Each bin counts once, however many voices there are, as in `trainer.metrics.mask_agreement`.
    There the order is the one in which most bins agree; here it is the caller's, in results that
    of the best SI-SDR.

    Args:
        masks: `[source, frame, bin]`, in the order of the voices.
        magnitudes: of the voices, float32 `[source, frame, bin]`.
        mixture: magnitude of the mixture, float32 `[frame, bin]`.

    Returns:
        Percent, of all voices together; not a number where no bin counts.
    """
    counted = features.counted_bins(mixture, magnitudes)
    if not counted.any():
        return float("nan")
    # A tie among masks goes to the first, as it does in `features.ideal_binary_mask`.
    agree = masks.argmax(axis=0) == magnitudes.argmax(axis=0)
    return float(100 * agree[counted].mean())


def score(
    references: np.ndarray, estimates: np.ndarray, rate: int, names: Iterable[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Each metric of each voice's estimate, under the best permutation by SI-SDR.

    Args:
        references: the voices, float32 `[source, sample]`.
        estimates: float32 `[source, sample]`, in any order.
        rate: in Hz.
        names: of the metrics; mask accuracy, which needs masks, is passed over.

    Returns:
        The estimate of each voice, int64 `[source]`; and by metric float64 `[source]`.

    Raises:
        ValueError: voices and estimates are not equally long.
    """
    names = list(names)
    matrix = si_sdr_matrix(references, estimates)
    order = best_permutation(matrix)
    chosen = (np.arange(len(references)), order)
    values: dict[str, np.ndarray] = {}
    if "si_sdr" in names:
        values["si_sdr"] = matrix[chosen]
    if "sdr" in names:
        values["sdr"] = sdr_matrix(references, estimates)[chosen]
    perceptual: dict[str, Callable[..., float]] = {"stoi": stoi, "pesq": pesq}
    for name in [name for name in names if name in perceptual]:
        values[name] = np.array(
            [
                _or_nan(perceptual[name], reference, estimate, rate)
                for reference, estimate in zip(references, estimates[order], strict=True)
            ]
        )
    return order, values


def _or_nan(
    function: Callable[..., float], reference: np.ndarray, estimate: np.ndarray, rate: int
) -> float:
    # Of silence the libraries make up a number, or divide by zero.
    if not reference.any() or not estimate.any():
        return float("nan")
    # Whatever a library thinks of a strange signal, the run goes on.
    try:
        with np.errstate(all="ignore"):
            value = function(reference, estimate, rate)
    except Exception:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the libraries that decide the figures."""
    import importlib.metadata as metadata

    found = {}
    for name in ("numpy", "scipy", "fast-bss-eval", "pystoi", "pesq"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
