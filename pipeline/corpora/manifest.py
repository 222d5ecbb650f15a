"""Reads and checks CSV manifests, which list a corpus in one file as spreadsheets write it."""

import codecs
import collections
import csv
import io
import itertools
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np

from pipeline import columns, errors, schema
from pipeline.io import storage

REQUIRED = ("path", "speaker")
# The separators that spreadsheet programs write, depending on the country.
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# In Excel, such a line before the header sets the separator.
_SEPARATOR_LINE = re.compile(r"\"?sep=.\"?(\r\n|\r|\n)", re.IGNORECASE)
SPLIT_NAMES = {
    "": "",
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SEX_NAMES = {
    **dict.fromkeys(("f", "female", "woman"), "f"),
    **dict.fromkeys(("m", "male", "man"), "m"),
    **dict.fromkeys(("", "-", "?", "u", "unknown", "o", "other", "x", "na", "n/a", "none"), ""),
}


class Rows(NamedTuple):
    """Some rows of a manifest, each a recording, in columns.

    Attributes:
        lines: int64 `[row]`, line numbers in the file, from 1, for messages.
        paths: as written.
        speakers: not empty.
        sexes: `f`, `m` or empty.
        splits: `train`, `valid`, `test` or empty.
    """

    lines: np.ndarray
    paths: list[str]
    speakers: list[str]
    sexes: list[str]
    splits: list[str]


def read_rows(path: str) -> Iterator[Rows]:
    """Reads a manifest, some rows at a time.

    It is in UTF-8, with or without a byte order mark, or in UTF-16 with one. Cells are separated by
    commas, semicolons or tabs, as in the header. The header has the columns `path` and `speaker`,
    and optionally `sex` (`f`, `m`, …) and `split` (`train`, `valid` or `dev`, `test`, …). Other
    columns are ignored. A speaker's name means the same person however its accents are encoded.

    Args:
        path: local or with a scheme that Beam knows.

    Raises:
        UserError: a column is missing or a row cannot be understood; the message names the line.
        storage.ReadError: the file cannot be read.
    """
    data = storage.read_bytes(path)
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # Decoded line by line, since all of the text would need several times the memory of the file.
    text = io.TextIOWrapper(io.BytesIO(data), "utf-16" if utf16 else "utf-8-sig", newline="")
    try:
        yield from _rows(path, text)
    except UnicodeDecodeError as error:
        raise errors.UserError(
            f"{path}: not UTF-8 text: {error.reason}; save it as CSV in UTF-8"
        ) from error


def _rows(path: str, text: TextIO) -> Iterator[Rows]:
    first = text.readline()
    skipped = int(_SEPARATOR_LINE.fullmatch(first) is not None)
    if skipped:
        first = text.readline()
    separator = separator_of(first, REQUIRED)
    reader = csv.reader(
        itertools.chain([first], text), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        header = _header(path, next(reader))
        for lines, rows in _filled(reader):
            yield _in_columns(path, np.array(lines) + skipped, header, rows, separator)
    except csv.Error as error:
        line = reader.line_num + skipped
        raise errors.UserError(f"{path}, line {line}: not CSV: {error}") from error


def _filled(reader: Any) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yields line numbers and cells of some rows at a time, without the empty rows."""
    lines: list[int] = []
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if "".join(cells).strip():
                lines.append(reader.line_num)
                rows.append(cells)
            if len(rows) == columns.CHUNK:
                yield lines, rows
                lines, rows = [], []
    except (csv.Error, UnicodeDecodeError):
        # Errors in rows before come first.
        if rows:
            yield lines, rows
        raise
    if rows:
        yield lines, rows


def separator_of(text: str, columns: Collection[str]) -> str:
    """Returns the separator of the cells of a table, judged by its first line.

    Args:
        text: text of the table.
        columns: names that its first line has, in lower case.

    Returns:
        One of `SEPARATORS`; a comma if none fits.
    """
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    for separator in SEPARATORS:
        try:
            (cells,) = csv.reader([line], delimiter=separator, skipinitialspace=True)
        except (csv.Error, ValueError):
            continue
        if {*columns} <= {cell.strip().lower() for cell in cells}:
            return separator
    return ","


def person(name: str) -> str:
    """Returns a speaker's name in the Unicode form NFC, in which names are compared and stored.

    macOS writes file names in the decomposed form, where é is two characters.
    """
    # Interned, since there are many utterances of each speaker.
    return sys.intern(unicodedata.normalize("NFC", name))


def _header(path: str, cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise errors.UserError(
            f"{path}: no column {' or '.join(missing)} in its first line, which should be like "
            "path,speaker,sex,split (with commas, semicolons or tabs between)"
        )
    repeated = [column for column, n in collections.Counter(header).items() if column and n > 1]
    if repeated:
        raise errors.UserError(f"{path}: column {repeated[0]} is there twice")
    return header


def _in_columns(
    path: str, lines: np.ndarray, header: list[str], rows: list[list[str]], separator: str
) -> Rows:
    try:
        cells = dict(zip(header, zip(*rows, strict=True), strict=True))
        nothing = ("",) * len(rows)
        return Rows(
            lines,
            list(map(_required, cells["path"])),
            _each(lambda cell: person(_required(cell)), cells["speaker"]),
            _each(lambda cell: SEX_NAMES[cell.strip().lower()], cells.get("sex", nothing)),
            _each(lambda cell: SPLIT_NAMES[cell.strip().lower()], cells.get("split", nothing)),
        )
    except (KeyError, ValueError):
        for line, row in zip(lines.tolist(), rows, strict=True):
            _check(f"{path}, line {line}", header, row, separator)
        raise


def _each(translate: Callable[[str], str], cells: Sequence[str]) -> list[str]:
    """Translates cells, each different one once."""
    found = {cell: translate(cell) for cell in set(cells)}
    return list(map(found.__getitem__, cells))


def _required(cell: str) -> str:
    cell = cell.strip()
    if not cell:
        raise ValueError("an empty cell")
    return cell


def _check(where: str, header: list[str], cells: list[str], separator: str) -> None:
    """Raises UserError if a row cannot be understood."""
    if len(cells) != len(header):
        raise errors.UserError(
            f"{where}: {len(cells)} cells, but the header has {len(header)}; a cell with a "
            f"{SEPARATORS[separator]} needs quotation marks"
        )
    row = dict(zip(header, map(str.strip, cells), strict=True))
    for column in REQUIRED:
        if not row[column]:
            raise errors.UserError(f"{where}: no {column}")
    if row.get("split", "").lower() not in SPLIT_NAMES:
        raise errors.UserError(
            f"{where}: split {row['split']!r} is none of {', '.join(schema.SPLITS)}"
        )
    if row.get("sex", "").lower() not in SEX_NAMES:
        raise errors.UserError(f"{where}: sex {row['sex']!r} is neither f nor m")
