"""A CSV manifest to checked rows: anybody's corpus in one file."""

import collections
import csv
import dataclasses
import io
from collections.abc import Iterator

from pipeline import errors, schema
from pipeline.io import storage

REQUIRED = ("path", "speaker")
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


@dataclasses.dataclass(frozen=True)
class Row:
    """One recording as the manifest names it.

    Attributes:
        line: in the file, from 1, for messages.
        path: as written.
        speaker: not empty.
        sex: `f`, `m` or empty.
        split: `train`, `valid`, `test` or empty.
    """

    line: int
    path: str
    speaker: str
    sex: str
    split: str


def read_rows(path: str) -> Iterator[Row]:
    """Reads a manifest row by row.

    It is UTF-8, with or without a byte order mark, and has a header line with at least `path` and
    `speaker`, and perhaps `sex` (`f`, `m`, …) and `split` (`train`, `valid` or `dev`, `test`, …).
    Further columns are ignored.

    Args:
        path: local or with a scheme that Beam knows.

    Raises:
        UserError: a column is missing or a row cannot be understood; names the line.
        storage.ReadError: the file cannot be read.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UserError(f"{path}: not UTF-8 text: {error.reason}") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = _header(path, next(reader, []))
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield _row(path, reader.line_num, header, cells)
    except csv.Error as error:
        raise errors.UserError(f"{path}, line {reader.line_num}: not CSV: {error}") from error


def _header(path: str, cells: list[str]) -> list[str]:
    header = [cell.strip().lower() for cell in cells]
    missing = [column for column in REQUIRED if column not in header]
    if missing:
        raise errors.UserError(
            f"{path}: no column {' or '.join(missing)} in its first line, which should be like "
            "path,speaker,sex,split"
        )
    repeated = [column for column, n in collections.Counter(header).items() if column and n > 1]
    if repeated:
        raise errors.UserError(f"{path}: column {repeated[0]} is there twice")
    return header


def _row(path: str, line: int, header: list[str], cells: list[str]) -> Row:
    where = f"{path}, line {line}"
    if len(cells) != len(header):
        raise errors.UserError(
            f"{where}: {len(cells)} cells, but the header has {len(header)}; a cell with a comma "
            "needs quotation marks"
        )
    row = dict(zip(header, cells, strict=True))
    for column in REQUIRED:
        if not row[column]:
            raise errors.UserError(f"{where}: no {column}")
    split = SPLIT_NAMES.get(row.get("split", "").lower())
    if split is None:
        raise errors.UserError(
            f"{where}: split {row['split']!r} is none of {', '.join(schema.SPLITS)}"
        )
    sex = SEX_NAMES.get(row.get("sex", "").lower())
    if sex is None:
        raise errors.UserError(f"{where}: sex {row['sex']!r} is neither f nor m")
    return Row(line, row["path"], row["speaker"], sex, split)
