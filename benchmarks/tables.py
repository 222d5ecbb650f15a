"""Updates the tables of docs/speed.md from benchmarks/results.

    python -m benchmarks.tables

On the page, a table of all of NAME.json is between `<!-- NAME -->` and `<!-- end of NAME -->`; a
table of the rows that begin with TEXT is between `<!-- NAME: TEXT -->` and its end.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from absl import flags

from benchmarks import measure
from pipeline import cli

_PAGE = flags.DEFINE_string("page", "docs/speed.md", "The page to update.")
_PLACE = re.compile(r"<!-- (\w+)(?:: ([^>]*?))? -->\n.*?<!-- end of \1(?:: \2)? -->", re.DOTALL)


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    page = pathlib.Path(_PAGE.value)
    results = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in measure.RESULTS.glob("*.json")
    }
    page.write_text(fill(page.read_text(encoding="utf-8"), results), encoding="utf-8")


def fill(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the page's text with updated tables."""

    def table(place: re.Match[str]) -> str:
        name, beginning = place[1], place[2] or ""
        label = f"{name}: {beginning}" if beginning else name
        body = markdown(results[name], beginning) if name in results else "Not measured yet.\n"
        return f"<!-- {label} -->\n{body}<!-- end of {label} -->"

    return _PLACE.sub(table, text)


def markdown(result: Mapping[str, Any], beginning: str = "") -> str:
    """Formats the results saved by `measure.report` as two tables: medians and ratios."""
    machine = result["machine"]
    when = [f"{result['date']}, {machine['processor']}, {machine['cores']} cores"]
    load = machine.get("load_before", [0.0])[0]
    when.append(f"load before {load:.2g}")
    if measure.busy(machine):
        when.append("**the machine was busy: what these figures are, not how large**")
    lines = ["; ".join(when) + f". `{result['command']}`", ""]
    units = result["unit"]
    rows = [
        (job, median, units if isinstance(units, str) else units[job], result["runs"][job])
        for job, median in result["medians"].items()
        if job.startswith(beginning)
    ]
    lines += ["| | median | | lowest to highest |", "|:--|--:|:--|--:|"]
    for job, median, unit, runs in rows:
        cells = [job, _digits(median), unit, f"{_digits(min(runs))} to {_digits(max(runs))}"]
        lines.append(f"| {' | '.join(cells)} |")
    ratios = {k: v for k, v in result["ratios"].items() if k.startswith(beginning)}
    if ratios:
        lines += ["", "| ratio | |", "|:--|--:|"]
        lines += [f"| {title} | {_digits(value)} |" for title, value in ratios.items()]
    return "\n".join(lines) + "\n"


def _digits(value: float) -> str:
    """Three significant digits without an exponent, at most six digits."""
    return f"{float(f'{value:.3g}'):g}"


if __name__ == "__main__":
    cli.run(main, __doc__)
