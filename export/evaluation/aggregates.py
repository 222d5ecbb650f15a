"""Aggregates metrics over mixtures: means, medians, confidence intervals, paired differences.

Intervals are 95 % percentile bootstrap intervals of the mean over mixtures, with a fixed seed.
Mixtures that share speakers are not independent: with few speakers the true intervals are wider.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.evaluation import dataset_mixtures, metrics
from export.evaluation.scoring import Row

ALL = "all"
COLUMNS = (*dataset_mixtures.PAIRS, ALL)
_RESAMPLES = 2000
_LEVEL = 0.95


def interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Computes the bootstrap confidence interval of the mean.

    Args:
        values: finite values, `[mixture]`.
        seed: the random seed.

    Returns:
        Lower and upper end; NaN if there are fewer than two values.
    """
    if values.size < 2:
        return float("nan"), float("nan")
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    import scipy.stats

    result = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=_LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarise(rows: Sequence[Row], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Summarises the rows of one dataset.

    Args:
        rows: the dataset's rows.
        names: the metrics' names.

    Returns:
        By system, figure and column (those of `COLUMNS` that have mixtures): `mean`, `low`, `high`,
        `median`, `count` (the number of mixtures), `missing` (how many of them are NaN) and, for
        improvements, `worse` (the share of mixtures that got worse). A value is None if it cannot
        be computed.
    """
    table: dict[str, dict[str, Any]] = {}
    for system, own in _by(rows, "system").items():
        table[system] = {
            figure: {
                column: _describe(_values(chosen, figure), figure)
                for column, chosen in _columns(own).items()
            }
            for figure in metrics.figures(names)
        }
    return table


def differences(
    rows: Sequence[Row], systems: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Compares every pair of systems, mixture by mixture.

    Args:
        rows: the rows of one dataset.
        systems: the systems to compare, in the order of the table.
        names: the metrics' names.

    Returns:
        For each pair and figure, the difference `system` minus `baseline` over the mixtures that
        both have: `mean`, `low`, `high`, `count`, and `better`, the share of mixtures in which it
        is positive.
    """
    by_system = {
        system: {row["mixture_id"]: row for row in own}
        for system, own in _by(rows, "system").items()
    }
    found = []
    for baseline, system in itertools.combinations(systems, 2):
        for name in names:
            mixtures = list(by_system[system])
            values = _values([by_system[system][m] for m in mixtures], name) - _values(
                [by_system[baseline][m] for m in mixtures], name
            )
            values = values[np.isfinite(values)]
            low, high = interval(values)
            found.append(
                {
                    "system": system,
                    "baseline": baseline,
                    "figure": name,
                    "mean": _number(values.mean() if values.size else np.nan),
                    "low": _number(low),
                    "high": _number(high),
                    "count": int(values.size),
                    "better": _number((values > 0).mean() if values.size else np.nan),
                }
            )
    return found


def _describe(values: np.ndarray, figure: str) -> dict[str, Any]:
    finite = values[np.isfinite(values)]

    def of(function: Callable[[np.ndarray], Any]) -> float | None:
        return _number(function(finite)) if finite.size else None

    low, high = interval(finite)
    described = {
        "mean": of(np.mean),
        "low": _number(low),
        "high": _number(high),
        "median": of(np.median),
        "count": int(values.size),
        "missing": int(values.size - finite.size),
    }
    if figure.endswith("_improvement"):
        described["worse"] = of(lambda v: np.mean(v < 0))
    return described


def _columns(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found = {column: [row for row in rows if column in (ALL, row["pair"])] for column in COLUMNS}
    return {column: chosen for column, chosen in found.items() if chosen}


def _values(rows: Sequence[Row], figure: str) -> np.ndarray:
    return np.array(
        [np.nan if row.get(figure) is None else row[figure] for row in rows], np.float64
    )


def _by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), []).append(row)
    return groups


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
