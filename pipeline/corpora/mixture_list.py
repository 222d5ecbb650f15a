"""Reads and writes `mixtures.csv`, from which the audio of a dataset can be rebuilt exactly.

Columns: `mixture_id`, `split`, `num_samples`, and for each voice from 1 on `utterance_1`,
`speaker_1`, `gain_db_1`. Utterances have the ids of `pipeline.corpora.corpus`, so a list fits any
copy of the corpus.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline import errors, inspection, plan, schema
from pipeline.corpora import manifest

_LINES = 2**14


def to_csv(mixtures: Sequence[plan.Mixture]) -> str:
    """Returns the mixtures as a table."""
    return "".join(to_csv_in_parts(mixtures))


def to_csv_in_parts(mixtures: Sequence[plan.Mixture]) -> Iterator[str]:
    """Yields the same text, some lines at a time."""
    num_sources = len(mixtures[0].utterance_ids) if mixtures else 0
    yield ",".join(_columns(num_sources)) + "\n"
    for start in range(0, len(mixtures), _LINES):
        rows = range(start, min(start + _LINES, len(mixtures)))
        columns = _cells(mixtures, rows, num_sources)
        columns[2] = list(map(str, columns[2]))
        for gains in columns[5::3]:
            # There are ten million gains, but few different ones.
            texts = {gain: f"{gain:.2f}" for gain in set(gains)}
            gains[:] = map(texts.__getitem__, gains)
        yield _lines(columns)


def _lines(columns: list[list[str]]) -> str:
    """Returns the rows of a table, with quotation marks where a cell needs them."""
    text = "\n".join(map(",".join, zip(*columns, strict=True))) + "\n"
    rows = len(columns[0])
    marks = [text.count(mark) for mark in (",", "\n", '"', "\r")]
    if marks == [rows * (len(columns) - 1), rows, 0, 0]:
        return text
    quoted = io.StringIO()
    csv.writer(quoted, lineterminator="\n").writerows(zip(*columns, strict=True))
    return quoted.getvalue()


def _cells(mixtures: Sequence[plan.Mixture], rows: range, num_sources: int) -> list[list[Any]]:
    if isinstance(mixtures, plan.Mixtures):
        return mixtures.columns(np.array(rows))
    part = mixtures[rows.start : rows.stop]
    columns: list[list[Any]] = [
        [mixture.id for mixture in part],
        [mixture.split for mixture in part],
        [mixture.num_samples for mixture in part],
    ]
    for voice in range(num_sources):
        columns.append([mixture.utterance_ids[voice] for mixture in part])
        columns.append([mixture.speakers[voice] for mixture in part])
        columns.append([mixture.gains_db[voice] for mixture in part])
    return columns


def from_csv(text: str, name: str) -> list[plan.Mixture]:
    """Returns the mixtures of a table: the inverse of `to_csv`.

    Args:
        text: text of the table.
        name: name of the file, for messages.

    Raises:
        UserError: it is not such a table; the message names the line.
    """
    separator = manifest.separator_of(text, ("mixture_id",))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    mixtures: dict[str, plan.Mixture] = {}
    try:
        header = next(reader, [])
        num_sources = (len(header) - 3) // 3
        if num_sources < 2 or header != _columns(num_sources):
            raise errors.UserError(
                f"{name}: not a list of mixtures; its columns must be {','.join(_columns(2))} (and "
                "three more for each further voice)"
            )
        for row in reader:
            if not row:
                continue
            try:
                mixture = _parse(row, num_sources)
                if mixture.id in mixtures:
                    raise ValueError(f"mixture {mixture.id} is there twice")
            except ValueError as error:
                raise errors.UserError(f"{name}, line {reader.line_num}: {error}") from error
            mixtures[mixture.id] = mixture
    except csv.Error as error:
        raise errors.UserError(f"{name}, line {reader.line_num}: not CSV: {error}") from error
    if not mixtures:
        raise errors.UserError(f"{name}: the list has no mixtures")
    return list(mixtures.values())


def check(
    mixtures: Sequence[plan.Mixture],
    facts: Iterable[inspection.Facts],
    name: str,
    max_samples: int = plan.MAX_SAMPLES,
) -> None:
    """Checks a list of mixtures against the available recordings.

    Args:
        mixtures: from a file.
        facts: facts of the usable recordings.
        name: name of the file, for messages.
        max_samples: maximum length of a mixture.

    Raises:
        UserError: an utterance is missing or belongs to another speaker, a speaker is in two
            splits, or a mixture is too long or exceeds full scale (its gains are from another
            corpus).
    """
    by_id = {fact.utterance.id: fact for fact in facts}
    homes: dict[str, str] = {}
    for mixture in mixtures:
        if mixture.num_samples > max_samples:
            raise errors.UserError(
                f"{name}: mixture {mixture.id} has {mixture.num_samples} samples, more than "
                f"--max_seconds allows ({max_samples}); raise it"
            )
        peak, longest = 0.0, 0
        for utterance_id, speaker, gain in zip(
            mixture.utterance_ids, mixture.speakers, mixture.gains_db, strict=True
        ):
            fact = by_id.get(utterance_id)
            if fact is None:
                raise errors.UserError(
                    f"{name}: mixture {mixture.id} needs utterance {utterance_id}, which is not "
                    "among the usable recordings"
                )
            if fact.utterance.speaker != speaker:
                raise errors.UserError(
                    f"{name}: utterance {utterance_id} is {speaker}'s in the list and "
                    f"{fact.utterance.speaker}'s in the corpus"
                )
            if homes.setdefault(speaker, mixture.split) != mixture.split:
                raise errors.UserError(
                    f"{name}: speaker {speaker} is in two splits, {homes[speaker]} and "
                    f"{mixture.split}"
                )
            peak += fact.peak * 10 ** (gain / 20)
            longest = max(longest, fact.num_samples)
        if mixture.num_samples > longest:
            raise errors.UserError(
                f"{name}: mixture {mixture.id} has {mixture.num_samples} samples, but its longest "
                f"recording {longest}; the list was made for another corpus or --sample_rate"
            )
        if peak > 0.999:
            raise errors.UserError(
                f"{name}: mixture {mixture.id} could exceed full scale ({peak:.2f} times); its "
                "gains were not made for these recordings"
            )


def _columns(num_sources: int) -> list[str]:
    voices = [
        f"{what}_{voice}"
        for voice in range(1, num_sources + 1)
        for what in ("utterance", "speaker", "gain_db")
    ]
    return ["mixture_id", "split", "num_samples", *voices]


def _parse(row: Sequence[str], num_sources: int) -> plan.Mixture:
    if len(row) != 3 + 3 * num_sources:
        raise ValueError(f"{len(row)} cells, not {3 + 3 * num_sources}")
    mixture_id, split, num_samples = row[:3]
    if not mixture_id:
        raise ValueError("mixture_id is empty")
    if split not in schema.SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(schema.SPLITS)}")
    if not (num_samples.isascii() and num_samples.isdigit() and 0 < int(num_samples) < 2**31):
        raise ValueError(f"num_samples is {num_samples!r}, not a number of samples")
    speakers = tuple(map(manifest.person, row[4::3]))
    if len(set(speakers)) < num_sources:
        raise ValueError("the voices are not of different speakers")
    gains = tuple(map(_parse_gain, row[5::3]))
    return plan.Mixture(mixture_id, split, int(num_samples), tuple(row[3::3]), speakers, gains)


def _parse_gain(text: str) -> float:
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not -200 <= gain <= 200 or f"{gain:.2f}" != text:
        raise ValueError(f"gain {text!r} is not a number of dB with two decimals")
    return gain
