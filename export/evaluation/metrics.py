"""Separation metrics: SI-SDR, SDR, STOI, PESQ and mask accuracy, from maintained libraries.

fast_bss_eval gives SI-SDR (Le Roux et al. 2019) and SDR (Vincent et al. 2006, filters of 512
samples), pystoi gives STOI (Taal et al. 2011), pesq gives PESQ (ITU-T P.862, narrowband at 8 kHz,
wideband at 16 kHz). Both ratios are computed on zero-mean signals and clipped to ±100 dB: beyond
that the result depends on rounding alone, such as whether a perfect estimate gives 150 dB or
infinity. A metric is NaN if it is undefined because the signal is silent or too short, or if its
library is not installed. Any other exception of a library is a bug, and is propagated.
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
    """One metric of an estimate.

    Attributes:
        name: its name in the results.
        title: its name in tables and charts.
        unit: the values' unit; empty if they have none.
        library: the module that computes it; empty if NumPy does.
        digits: decimal places in tables and charts.
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
        # For conversations and single speakers; see `export.evaluation.turn_taking`.
        Metric("overlap_si_sdr", "overlap: SI-SDR", "dB", "fast_bss_eval", 1),
        Metric("wrong_output", "alone: wrong output", "%", "", 1),
        Metric("wrong_level", "alone: level of wrong output", "dB", "", 1),
        Metric("diarization_error", "diarisation error rate", "%", "", 1),
        Metric("weaker_level", "solo: weaker output", "dB", "", 1),
    )
}
# Metrics whose improvement over the mixture is also reported.
IMPROVED = ("si_sdr", "sdr", "overlap_si_sdr")
_IMPROVEMENT = "_improvement"
# For masks in a fixed order, such as those of a network trained without permutations.
_AS_GIVEN = "_as_given"
# Ratios are clipped to this, in dB; beyond it, 32-bit rounding decides.
BOUND_DB = 100.0
# 30 frames of 256 samples with a hop of 128 at 10 kHz.
_STOI_SECONDS = 0.3968


def figures(names: Iterable[str]) -> list[str]:
    """Lists the figures of the metrics: values, improvements, accuracy in the order given."""
    found = []
    for name in names:
        found.append(name)
        if name in IMPROVED:
            found.append(name + _IMPROVEMENT)
        if name == "mask_accuracy":
            found.append(name + _AS_GIVEN)
    return found


def of_figure(figure: str) -> Metric:
    """Returns the metric that a figure of `figures` belongs to."""
    return METRICS[figure.removesuffix(_IMPROVEMENT).removesuffix(_AS_GIVEN)]


def title(figure: str) -> str:
    """Returns a figure's title with its unit."""
    metric = of_figure(figure)
    text = metric.title
    if figure.endswith(_IMPROVEMENT):
        text += " improvement"
    if figure.endswith(_AS_GIVEN):
        text += " in the order given"
    return f"{text}, {metric.unit}" if metric.unit else text


def missing_libraries(names: Iterable[str]) -> dict[str, str]:
    """Returns the metrics that cannot be computed here, with the module that each one lacks.

    Raises:
        UserError: SI-SDR is among them, which is needed to match estimates with voices.
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
    """Computes the SI-SDR of every estimate against every voice, both made zero-mean.

    Args:
        references: the voices, `[source, sample]`.
        estimates: `[estimate, sample]`.

    Returns:
        float64 `[source, estimate]`, dB, within ±`BOUND_DB`; NaN if either signal is constant or
        has values that are not finite.
    """
    return _pairwise("pairwise_si_sdr_loss", references, estimates)


def sdr_matrix(references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Computes the SDR (BSS eval, distortion filters of 512 samples), as `si_sdr_matrix` does."""
    return _pairwise("pairwise_sdr_loss", references, estimates)


def _pairwise(function: str, references: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    # The package's top-level functions fail without PyTorch; its NumPy module does not.
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
            # A residual of exactly zero gives an infinite ratio.
            with np.errstate(divide="ignore", invalid="ignore"):
                matrix[sounding] = -getattr(bss, function)(guesses, voices)
        except np.linalg.LinAlgError:
            # The filters of SDR have no solution for signals of two samples.
            pass
    return np.clip(matrix, -BOUND_DB, BOUND_DB)


def _without_mean(signals: np.ndarray) -> np.ndarray:
    """Makes signals zero-mean with a peak of 1; the library treats a norm below 1e-6 as noise.

    Constant signals, and those with NaN or infinity, become exactly zero.
    """
    signals = np.asarray(signals, np.float64)
    signals = np.where(np.isfinite(signals).all(axis=-1, keepdims=True), signals, 0.0)
    constant = np.ptp(signals, axis=-1, keepdims=True) == 0
    centred = np.where(constant, 0.0, signals - signals.mean(axis=-1, keepdims=True))
    return centred / np.where(constant, 1.0, np.abs(centred).max(axis=-1, keepdims=True))


def best_permutation(matrix: np.ndarray) -> np.ndarray:
    """Finds the assignment of estimates to voices with the largest sum.

    Args:
        matrix: `[source, estimate]`, dB; NaN pairs are chosen last.

    Returns:
        int64 `[source]`, the estimate of each voice.
    """
    finite = np.where(np.isnan(matrix), -1e6, matrix)
    return scipy.optimize.linear_sum_assignment(finite, maximize=True)[1]


def stoi(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Computes the short-time objective intelligibility of non-silent signals `[sample]`.

    The result is NaN unless the reference has 0.4 s within 40 dB of its loudest frame.
    """
    import pystoi

    if reference.size < _STOI_SECONDS * rate:
        return float("nan")
    with warnings.catch_warnings():
        # With too few frames of speech pystoi warns and returns 1e-5, which is not a measurement.
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(pystoi.stoi(_with_peak_1(reference), _with_peak_1(estimate), rate))
        except RuntimeWarning:
            return float("nan")


def pesq(reference: np.ndarray, estimate: np.ndarray, rate: int) -> float:
    """Computes the perceptual quality, 1 to 4.6, of non-silent signals `[sample]`.

    The result is NaN for rates other than 8 and 16 kHz, for signals under 0.25 s, and if P.862
    detects no utterance.
    """
    import pesq as library

    mode = {8000: "nb", 16000: "wb"}.get(rate)
    if mode is None:
        return float("nan")
    try:
        # The library aligns the levels in 32 bits, where a much quieter signal would vanish.
        return float(library.pesq(rate, _with_peak_1(reference), _with_peak_1(estimate), mode))
    except (library.NoUtterancesError, library.BufferTooShortError):
        return float("nan")


def _with_peak_1(signal: np.ndarray) -> np.ndarray:
    signal = np.asarray(signal, np.float64)
    return signal / np.abs(signal).max()


def mask_accuracy(masks: np.ndarray, magnitudes: np.ndarray, mixture: np.ndarray) -> float:
    """Computes the share of counted bins in which the largest mask is that of the loudest voice.

    Each bin counts once, however many voices there are, as in `trainer.metrics.mask_agreement`.
    There the order is the one in which most bins agree. Here it is the caller's; in the results it
    is that of the best SI-SDR.

    Args:
        masks: `[source, frame, bin]`, in the order of the voices.
        magnitudes: the voices' magnitudes, float32 `[source, frame, bin]`.
        mixture: the mixture's magnitude, float32 `[frame, bin]`.

    Returns:
        Percent, over all voices; NaN if no bin counts.
    """
    counted = features.counted_bins(mixture, magnitudes)
    if not counted.any():
        return float("nan")
    # A tie between masks goes to the first, as in `ideal_masks.binary`.
    agree = masks.argmax(axis=0) == magnitudes.argmax(axis=0)
    return float(100 * agree[counted].mean())


def score(
    references: np.ndarray, estimates: np.ndarray, rate: int, names: Iterable[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Computes each metric of each voice's estimate, under the best permutation by SI-SDR.

    Args:
        references: the voices, float32 `[source, sample]`.
        estimates: float32 `[source, sample]`, in any order.
        rate: in Hz.
        names: the metrics' names; mask accuracy is ignored because it needs masks.

    Returns:
        The index of each voice's estimate, int64 `[source]`, and the values by metric, float64
        `[source]`.

    Raises:
        ValueError: voices and estimates differ in length.
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
    # For silence the libraries return arbitrary numbers or divide by zero.
    if not all(np.isfinite(signal).all() and signal.any() for signal in (reference, estimate)):
        return float("nan")
    return function(reference, estimate, rate)


@functools.cache
def versions() -> dict[str, str]:
    """Returns the versions of the libraries that determine the results."""
    import importlib.metadata as metadata

    found = {}
    for name in ("numpy", "scipy", "fast-bss-eval", "pystoi", "pesq"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
