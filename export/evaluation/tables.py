"""Formats a dataset's summary as a table, for the terminal (Markdown) and the report."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from export.evaluation import aggregates, metrics, oracles

NOTHING = "–"
# Short titles for columns that follow the one they are a variant of.
_SHORT = {"mask_accuracy_as_given": "in order given, %"}
# Columns of the table of all conditions, where a condition has them.
_CONDITION_FIGURES = (
    "si_sdr_improvement",
    "overlap_si_sdr_improvement",
    "wrong_output",
    "wrong_level",
    "diarization_error",
    "weaker_level",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
        header: titles of the columns; the first column holds the systems.
        rows: one per system.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Formats the table as GitHub Markdown, with columns aligned for a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
            return "| " + " | ".join([first, *(c.rjust(w) for c, w in rest)]) + " |"

        rule = [":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]
        return "\n".join([line(self.header), f"|{'|'.join(rule)}|", *map(line, self.rows)])


def summary_table(systems: Mapping[str, Any], names: Sequence[str]) -> Table:
    """Builds the main table of a dataset.

    Args:
        systems: the result of `aggregates.summarise`.
        names: the metrics' names.

    Returns:
        The mean SI-SDR improvement by pair, and over all mixtures with its interval, its median and
        the share that got worse; then the mean of every other figure.
    """
    main = "si_sdr_improvement" if "si_sdr" in names else None
    columns: list[tuple[str, str, str]] = []  # (title, figure, what)
    if main:
        found = next(iter(systems.values()))[main]
        columns += [(column, main, column) for column in found if column != aggregates.ALL]
        columns += [
            ("all [95 %]", main, "interval"),
            ("median", main, "median"),
            ("got worse", main, "worse"),
        ]
    for figure in metrics.figures(names):
        if figure not in ("si_sdr", "si_sdr_improvement", "sdr", "overlap_si_sdr"):
            columns.append((_SHORT.get(figure, metrics.title(figure)), figure, aggregates.ALL))
    header = ("system", *(column for column, _, _ in columns))
    rows = [
        (system, *(_cell(figures[figure], figure, what) for _, figure, what in columns))
        for system, figures in systems.items()
    ]
    return Table(header, tuple(rows))


def metric_names(systems: Mapping[str, Any]) -> list[str]:
    """Returns the metrics of a dataset's systems, from the result of `aggregates.summarise`."""
    figures: Mapping[str, Any] = next(iter(systems.values()), {})
    return [name for name in metrics.METRICS if name in figures]


def conditions_table(datasets: Sequence[Mapping[str, Any]]) -> Table | None:
    """Builds a row per dataset, condition and model; without models, for the first oracle.

    Args:
        datasets: the datasets of the summary.

    Returns:
        Means with their intervals; None if only clean mixtures were requested.
    """
    if not any("condition" in data for data in datasets):
        return None
    figures = [
        figure
        for figure in _CONDITION_FIGURES
        if any(figure in found for data in datasets for found in data["systems"].values())
    ]
    rows = [
        (
            f"{data['dataset']}, {data['condition']}",
            system,
            *(
                _cell(data["systems"][system][figure], figure, "interval")
                if figure in data["systems"][system]
                else NOTHING
                for figure in figures
            ),
        )
        for data in datasets
        for system in [name for name in data["systems"] if name not in oracles.ANCHORS]
        or [name for name in data["systems"] if name == oracles.ORACLES[0]]
    ]
    header = ("condition", "system", *(metrics.title(figure) for figure in figures))
    return Table(header, tuple(rows))


def number(value: float | None, digits: int) -> str:
    """Formats a number with a true minus sign; a dash for None."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.removeprefix("-")


def _cell(by_column: Mapping[str, Any], figure: str, what: str) -> str:
    digits = metrics.of_figure(figure).digits
    whole = by_column[aggregates.ALL]
    if what == "interval":
        mean = number(whole["mean"], digits)
        if whole["low"] is None or whole["low"] == whole["high"]:
            return mean
        return f"{mean} [{number(whole['low'], digits)}, {number(whole['high'], digits)}]"
    if what == "median":
        return number(whole["median"], digits)
    if what == "worse":
        return NOTHING if whole["worse"] is None else f"{100 * whole['worse']:.0f} %"
    text = number(by_column[what]["mean"], digits)
    return text
