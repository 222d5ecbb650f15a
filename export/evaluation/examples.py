"""Chooses the mixtures shown in the evaluation report: the best model's best, median and worst."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from export.evaluation import conditions, oracles, report, scoring
from export.evaluation.dataset_mixtures import Mixture


def choose(
    data: conditions.Source,
    models: Sequence[str],
    rows: Sequence[scoring.Row],
    count: int,
    separate: Callable[[Mixture], Sequence[scoring.Separation]],
) -> Iterator[report.Example]:
    """Reads the chosen mixtures and separates them again.

    Args:
        data: what is evaluated; without SI-SDR there are no examples.
        models: names of the systems, of which the best one decides; without any, the first oracle.
        rows: the rows of all mixtures and systems.
        count: the number of mixtures of each kind: best, median and worst.
        separate: returns the models' separations of a mixture.
    """
    if not data.has_si_sdr:
        return

    def improvement(row: scoring.Row) -> float:
        return float(row["si_sdr_improvement"])

    by_system: dict[str, list[scoring.Row]] = {}
    for row in rows:
        if row["si_sdr_improvement"] is not None:
            by_system.setdefault(row["system"], []).append(row)
    candidates = [by_system[name] for name in models if name in by_system] or [
        by_system.get(oracles.ORACLES[0], [])
    ]
    leading = max(candidates, key=lambda own: np.mean([improvement(row) for row in own]))
    ranked = sorted(leading, key=improvement, reverse=True)
    wanted: dict[str, str] = {}
    middle = max((len(ranked) - count) // 2, 0)
    for kind, chosen in (
        ("best", ranked[:count]),
        ("median", ranked[middle : middle + count]),
        ("worst", ranked[-count:][::-1] if count else []),
    ):
        for row in chosen:
            wanted.setdefault(row["mixture_id"], kind)
    if not wanted:
        return
    found = {}
    for mixture in data.read():
        if mixture.id in wanted:
            found[mixture.id] = report.Example(
                dataset=data.name,
                kind=wanted[mixture.id],
                mixture=mixture,
                rows={row["system"]: row for row in rows if row["mixture_id"] == mixture.id},
                separations=separate(mixture),
            )
            if len(found) == len(wanted):
                break
    yield from (found[mixture_id] for mixture_id in wanted)
