"""A dataset's summary as a table that people read: on the screen (Markdown) and on the page."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from export.evaluation import aggregates, metrics, oracles

NOTHING = "–"
# What stands beside the mask accuracy that it is another kind of.
_SHORT = {"mask_accuracy_as_given": "in order given, %"}
# What a table of all conditions shows, as far as a condition has it.
_CONDITION_FIGURES = (
    "si_sdr_improvement",
    "overlap_si_sdr_improvement",
    "wrong_output",
    "wrong_level",
    "weaker_level",
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        header: titles of the columns, the first one the systems'.
        rows: a system each.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As GitHub's Markdown, with columns that line up in a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            first, rest = cells[0].ljust(widths[0]), zip(cells[1:], widths[1:], strict=True)
            return "| " + " | ".join([first, *(c.rjust(w) for c, w in rest)]) + " |"

        rule = [":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])]
        return "\n".join([line(self.header), f"|{'|'.join(rule)}|", *map(line, self.rows)])


def summary_table(systems: Mapping[str, Any], names: Sequence[str]) -> Table:
    """The main table of a dataset.

    Args:
        systems: what `statistics.summarise` gives.
        names: of the metrics.

    Returns:
        SI-SDR improvement by pair (mean), for all with its interval, its median and the share that
        got worse; then the mean of every other figure.
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
    """The metrics that a dataset's systems have, of what `aggregates.summarise` gives."""
    figures: Mapping[str, Any] = next(iter(systems.values()), {})
    return [name for name in metrics.METRICS if name in figures]


def conditions_table(datasets: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row for each dataset, condition and model; without any, the first oracle stands for it.

    Args:
        datasets: of the summary.

    Returns:
        Means with their intervals; None where nothing but clean mixtures was asked for.
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
    """A number with a real minus sign; a dash for None."""
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
