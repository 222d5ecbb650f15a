"""The evaluator's folder: the journal of an unfinished run, and the files of a finished one.

results.partial.jsonl   a line of settings, then one line per mixture; removed at the end
results.csv             every figure of every mixture and system
report.html             the report
results.json            settings and summary; written last, so it marks a complete folder
"""

import contextlib
import csv
import io
import json
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from export.evaluation.scoring import Row
from pipeline import errors
from pipeline.io import atomic

JOURNAL_FILE = "results.partial.jsonl"
ROWS_FILE = "results.csv"
PAGE_FILE = "report.html"
SUMMARY_FILE = "results.json"


class Journal:
    """Stores the rows of a run as they are computed, so that it can be resumed.

    Each mixture is one line of the file: a run that is killed loses at most the line it was
    writing.

    Args:
        folder: created if missing.
        settings: the settings that determine the results; only a journal with the same settings is
            resumed.
        overwrite: discard a journal with other settings. Existing results stay until `write` has
            new ones.

    Raises:
        UserError: the folder holds a run with other settings, or files that would be replaced.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any], overwrite: bool = False) -> None:
        self._path = pathlib.Path(folder) / JOURNAL_FILE
        self._settings = dict(settings)
        self._mixtures: dict[tuple[str, str], list[Row]] = {}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not (overwrite or self._path.exists() or (self._path.parent / SUMMARY_FILE).exists()):
            for path in (self._path.parent / PAGE_FILE, self._path.parent / ROWS_FILE):
                if path.exists():
                    raise errors.UserError(
                        f"{path} is there and of no run of this command: choose another "
                        "--output_dir, or --overwrite"
                    )
        self._read(overwrite)

    def _read(self, overwrite: bool) -> None:
        whole = 0
        if self._path.exists():
            for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True)):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except (ValueError, RecursionError):
                    entry = None
                if entry is None:
                    break
                if number == 0:
                    if entry != self._settings:
                        if overwrite:
                            break
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
        """Returns whether the journal has the rows of (dataset, mixture id)."""
        return key in self._mixtures

    def rows(self, dataset: str) -> list[Row]:
        """Returns all rows of a dataset, by mixture, with systems in the order of the table."""
        keys = sorted(key for key in self._mixtures if key[0] == dataset)
        return [row for key in keys for row in self._mixtures[key]]

    def require(self, dataset: str, count: int, systems: Collection[str]) -> None:
        """Checks that a dataset is complete.

        Args:
            dataset: the dataset's name.
            count: its number of mixtures.
            systems: the systems, each of which must have a row for every mixture.

        Raises:
            UserError: there are too many or too few rows.
        """
        of_mixtures = [rows for (name, _), rows in self._mixtures.items() if name == dataset]
        if len(of_mixtures) != count:
            raise errors.UserError(
                f"{dataset}: {len(of_mixtures)} different mixtures were scored, of {count}; no "
                f"results were written, and the figures so far are in {self._path}"
            )
        for rows in of_mixtures:
            if [row["system"] for row in rows] != list(systems):
                raise errors.UserError(
                    f"{dataset}: {rows[0]['mixture_id']} has figures of "
                    f"{', '.join(row['system'] for row in rows)}, not of {', '.join(systems)}; "
                    f"remove {self._path} and start again"
                )

    def add(self, dataset: str, mixture: str, rows: list[Row]) -> None:
        """Adds the rows of a mixture and writes them to disk immediately."""
        self._append({"dataset": dataset, "mixture": mixture, "rows": rows})
        self._mixtures[dataset, mixture] = rows

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(entry, allow_nan=False).encode() + b"\n")

    def remove(self) -> None:
        """Removes the journal at the end of a complete run."""
        self._path.unlink(missing_ok=True)


def finished_settings(folder: str) -> dict[str, Any] | None:
    """Returns the settings of the finished run in a folder, or None."""
    try:
        text = (pathlib.Path(folder) / SUMMARY_FILE).read_text(encoding="utf-8")
        return json.loads(text)["settings"]
    except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError, RecursionError):
        return None


def write(
    folder: str, datasets: Mapping[str, Sequence[Row]], page: str, summary: Mapping[str, Any]
) -> None:
    """Writes the files of a finished run; existing ones are replaced once all are complete.

    Args:
        folder: an existing folder.
        datasets: rows by the dataset's name; missing values become `nan` in results.csv.
        page: the text of report.html.
        summary: the content of results.json.
    """
    names = (ROWS_FILE, PAGE_FILE, SUMMARY_FILE)
    paths = [pathlib.Path(folder) / name for name in names]
    texts = (_csv(datasets), page, _json(summary))
    # The stack renames the files in reverse order: results.json last.
    with contextlib.ExitStack() as stack:
        for path in reversed(paths):
            file = stack.enter_context(atomic.create(str(path)))
            file.write(texts[paths.index(path)].encode())
        # The old marker would declare a mixture of two runs complete.
        stack.callback(paths[-1].unlink, missing_ok=True)


def _csv(datasets: Mapping[str, Sequence[Row]]) -> str:
    rows = [{"dataset": name, **row} for name, own in datasets.items() for row in own]
    columns = dict.fromkeys(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        line = {column: row.get(column) for column in columns}
        writer.writerow({c: "nan" if value is None else value for c, value in line.items()})
    return text.getvalue()


def _json(summary: Mapping[str, Any]) -> str:
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
