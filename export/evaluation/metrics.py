"""How good an estimate is: SI-SDR, SDR, STOI, PESQ and mask accuracy, from well-kept libraries.

fast_bss_eval gives SI-SDR (Le Roux et al. 2019) and SDR (Vincent et al. 2006, filters of 512
samples), pystoi gives STOI (Taal et al. 2011), pesq gives PESQ (ITU-T P.862, narrow band at 8 kHz,
wide band at 16 kHz). Both ratios are taken of signals without their mean, and lie within ±100 dB:
beyond that rounding decides, and between infinity and 150 dB for an estimate that is the voice
itself. A figure that a signal does not have, being silent or too short, is not a number, and so is
one whose library is not installed. What else a library raises is a fault of the program, and is
passed on.
"""

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
        # Of conversations and of one person alone; see `export.evaluation.turn_taking`.
        Metric("overlap_si_sdr", "overlap: SI-SDR", "dB", "fast_bss_eval", 1),
        Metric("wrong_output", "alone: wrong output", "%", "", 1),
        Metric("wrong_level", "alone: level of wrong output", "dB", "", 1),
        Metric("weaker_level", "solo: weaker output", "dB", "", 1),
    )
}
# Those of which the improvement over the mixture is a figure as well.
IMPROVED = ("si_sdr", "sdr", "overlap_si_sdr")
_IMPROVEMENT = "_improvement"
# Of masks whose first is meant to be voice 1, as those of a network trained without permutations.
_AS_GIVEN = "_as_given"
# What ratios are clipped to, in dB. Samples of 32 bits round at less.
BOUND_DB = 100.0
# 30 frames of 256 samples, 128 apart, at 10 kHz.
_STOI_SECONDS = 0.3968


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
        float64 `[source, estimate]`, dB, within ±`BOUND_DB`; not a number where one of the two is
        constant or holds what is no finite number.
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
        try:
            # The ratio to no rest at all is infinite.
            with np.errstate(divide="ignore", invalid="ignore"):
                matrix[sounding] = -getattr(bss, function)(guesses, voices)
        except np.linalg.LinAlgError:
            # The filters of SDR have no solution for two samples.
            pass
    return np.clip(matrix, -BOUND_DB, BOUND_DB)


def _without_mean(signals: np.ndarray) -> np.ndarray:
    """Zero-mean with a peak of 1, or exactly zero: the library takes a norm below 1e-6 as noise.

    What holds NaN or infinity becomes zero, too: it is like nothing.
    """
    signals = np.asarray(signals, np.float64)
    signals = np.where(np.isfinite(signals).all(axis=-1, keepdims=True), signals, 0.0)
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
    """Short-time objective intelligibility, of `[sample]` signals that are not silent.

    It needs 0.4 s in which the reference is within 40 dB of its loudest; with less it is not a
    number.
    """
    import pystoi

    if reference.size < _STOI_SECONDS * rate:
        return float("nan")
    with warnings.catch_warnings():
        # Too few frames of speech: pystoi warns and returns 1e-5, which is no measurement.
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(pystoi.stoi(_with_peak_1(reference), _with_peak_1(estimate), rate))
        except RuntimeWarning:
            return float("nan")


def pesq(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Perceptual quality, 1 to 4.6, of `[sample]` signals that are not silent.

    Other rates than 8 and 16 kHz do not have it, nor do signals under 0.25 s or without what P.862
    takes for an utterance: there it is not a number.
    """
    import pesq as library

    mode = {8000: "nb", 16000: "wb"}.get(rate)
    if mode is None:
        return float("nan")
    try:
        # It brings both to one level, in 32 bits, in which what is far below the other is nothing.
        return float(library.pesq(rate, _with_peak_1(reference), _with_peak_1(estimate), mode))
    except (library.NoUtterancesError, library.BufferTooShortError):
        return float("nan")


def _with_peak_1(signal: np.ndarray) -> np.ndarray:
    signal = np.asarray(signal, np.float64)
    return signal / np.abs(signal).max()


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
    # A tie among masks goes to the first, as it does in `ideal_masks.binary`.
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
                _unless_silent(perceptual[name], reference, estimate, rate)
                for reference, estimate in zip(references, estimates[order], strict=True)
            ]
        )
    return order, values


def _unless_silent(
    function: Callable[..., float], reference: np.ndarray, estimate: np.ndarray, rate: int
) -> float:
    # Of silence the libraries make up a number, or divide by zero.
    if not all(np.isfinite(signal).all() and signal.any() for signal in (reference, estimate)):
        return float("nan")
    return function(reference, estimate, rate)


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
