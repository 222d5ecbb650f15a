"""The evaluator's folder: the journal of an unfinished run, and the files of a finished one.

results.partial.jsonl   a line of settings, then a line a mixture; removed at the end
results.csv             every figure of every mixture and system
report.html             the page
results.json            settings and summary; written last, so that it marks a whole folder
"""

import csv
import io
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from export.evaluation.scoring import Row
from pipeline import errors
from pipeline.io import atomic

JOURNAL_FILE = "results.partial.jsonl"
ROWS_FILE = "results.csv"
PAGE_FILE = "report.html"
SUMMARY_FILE = "results.json"


class Journal:
    """The rows that are there already, and a place for those that come.

    A mixture is one line of the file: a run that is killed loses at most the line it was writing.

    Args:
        folder: made where it is missing.
        settings: what decides the figures; a journal of other settings is not gone on with.
        overwrite: drop what another run left.

    Raises:
        UserError: the folder holds a run of other settings, or files that would be replaced.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self._path = pathlib.Path(folder) / JOURNAL_FILE
        self._settings = dict(settings)
        self._mixtures: dict[tuple[str, str], list[Row]] = {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for name in (SUMMARY_FILE, PAGE_FILE, ROWS_FILE, JOURNAL_FILE):
                (self._path.parent / name).unlink(missing_ok=True)
        elif not self._path.exists() and not (self._path.parent / SUMMARY_FILE).exists():
            for path in (self._path.parent / PAGE_FILE, self._path.parent / ROWS_FILE):
                if path.exists():
                    raise errors.UserError(
                        f"{path} is there and of no run of this command: choose another "
                        "--output_dir, or --overwrite"
                    )
        self._read()

    def _read(self) -> None:
        whole = 0
        if self._path.exists():
            for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True)):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None:
                    break
                if number == 0:
                    if entry != self._settings:
                        raise errors.UserError(
                            f"{self._path} was begun with other settings or another model: choose "
                            "another --output_dir, or --overwrite"
                        )
                else:
                    self._mixtures[entry["dataset"], entry["mixture"]] = entry["rows"]
                whole += len(line)
            os.truncate(self._path, whole)
        if not whole:
            self._append(self._settings)

    def __len__(self) -> int:
        return len(self._mixtures)

    def __contains__(self, key: tuple[str, str]) -> bool:
        """Whether (dataset, mixture id) is there."""
        return key in self._mixtures

    def rows(self, dataset: str) -> list[Row]:
        """All rows of a dataset, sorted by mixture; the systems in the order of the table."""
        keys = sorted(key for key in self._mixtures if key[0] == dataset)
        return [row for key in keys for row in self._mixtures[key]]

    def add(self, dataset: str, mixture: str, rows: list[Row]) -> None:
        """Keeps the rows of a mixture, on the disk at once."""
        self._append({"dataset": dataset, "mixture": mixture, "rows": rows})
        self._mixtures[dataset, mixture] = rows

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")

    def remove(self) -> None:
        """At the end of a whole run."""
        self._path.unlink(missing_ok=True)


def finished_settings(folder: str) -> dict[str, Any] | None:
    """The settings of the finished run that the folder holds, or None."""
    try:
        text = (pathlib.Path(folder) / SUMMARY_FILE).read_text(encoding="utf-8")
        return json.loads(text)["settings"]
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
        return None


def write_rows(folder: str, datasets: Mapping[str, Sequence[Row]]) -> None:
    """Writes results.csv: one line a mixture and system; `nan` for what is not a number."""
    rows = [{"dataset": name, **row} for name, own in datasets.items() for row in own]
    columns = dict.fromkeys(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {column: row.get(column) for column in columns}
        writer.writerow({c: "nan" if value is None else value for c, value in line.items()})
    atomic.write_text(pathlib.Path(folder) / ROWS_FILE, text.getvalue())


def write_summary(folder: str, summary: Mapping[str, Any]) -> None:
    """Writes results.json, which makes the folder whole."""
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.write_text(pathlib.Path(folder) / SUMMARY_FILE, text)
