"""The findings of the inspection, in files of the work folder that survive a killed job.

Every half minute, workers write their findings to a new file, under a temporary name that is then
renamed. A later job takes from these files the facts of recordings that have not changed since
(size and modification time), and inspects the others.
"""

import itertools
import os
import uuid
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline import fact_table, inspection, version
from pipeline.corpora import corpus, utterance_table
from pipeline.io import atomic, storage, stored_json

PREFIX = "facts"
# How long a worker collects findings before writing them; if it dies, they are lost.
FLUSH_SECONDS = 30.0
# Kept findings per file, since `storage.read_bytes` has a limit.
_PER_FILE = 100_000


class Finding(stored_json.Stored, frozen=True, omit_defaults=True):
    """The result of inspecting a recording: facts, or why it is rejected.

    Attributes:
        stamp: size and modification time (nanoseconds) before the inspection; None if they are not
            available, or the file is in an object store.
        facts: of a usable recording.
        rejection: of any other.
    """

    stamp: tuple[int, int] | None
    facts: inspection.Facts | None = None
    rejection: corpus.Rejection | None = None

    @classmethod
    def of(
        cls, found: inspection.Facts | corpus.Rejection, stamp: tuple[int, int] | None
    ) -> "Finding":
        """Returns the finding for what `inspection.inspect` returned."""
        if isinstance(found, inspection.Facts):
            return cls(stamp, facts=found)
        return cls(stamp, rejection=found)


class _Head(stored_json.Stored, frozen=True):
    """The first line of a file; facts are valid for one rate and one set of versions only."""

    sample_rate: int
    versions: dict[str, str]


def stamp(path: str) -> tuple[int, int] | None:
    """Returns size and modification time of a local file; None if they are not available."""
    if storage.is_remote(path):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def write(work: str, sample_rate: int, found: Iterable[Finding]) -> None:
    """Writes findings to a new file.

    Args:
        work: the work folder.
        sample_rate: of the dataset, Hz.
        found: at least one.
    """
    text = "".join(map(stored_json.dumps, [_Head(sample_rate, version.versions()), *found]))
    atomic.write_text(storage.join(work, f"{PREFIX}-{uuid.uuid4().hex}.jsonl"), text)


def read(
    work: str, utterances: utterance_table.UtteranceTable
) -> tuple[fact_table.FactTable, list[corpus.Rejection]]:
    """Reads all findings in the work folder, without duplicates from steps that a runner repeated.

    Args:
        work: the work folder.
        utterances: what was inspected, sorted by id; facts about other recordings are ignored.

    Returns:
        Facts by utterance id, rejections by path.
    """
    rejections: set[corpus.Rejection] = set()
    find = utterance_table.Finder(utterances)

    def parts() -> Iterator[tuple[np.ndarray, list[inspection.Facts]]]:
        for _, findings in _read(work):
            rejections.update(one.rejection for one in findings if one.rejection is not None)
            rows, facts, _ = _located(findings, find)
            yield rows, facts

    table = fact_table.FactTable.found(utterances, parts())
    return table, sorted(rejections)


def keep(work: str, utterances: utterance_table.UtteranceTable, sample_rate: int) -> np.ndarray:
    """Keeps the facts of an earlier job that are still valid, and removes everything else.

    Args:
        work: the work folder; it need not exist.
        utterances: what is needed now, sorted by id.
        sample_rate: sample rate of the dataset in Hz.

    Returns:
        bool `[utterance]`: those that need not be inspected again.
    """
    head = _Head(sample_rate, version.versions())
    find = utterance_table.Finder(utterances)
    stamps = np.zeros((len(utterances), 2), np.int64)

    def parts() -> Iterator[tuple[np.ndarray, list[inspection.Facts]]]:
        for own_head, findings in _read(work):
            if own_head != head:
                continue
            rows, facts, own = _located([one for one in findings if one.stamp], find)
            pairs = zip(own, facts, strict=True)
            valid = np.array([old == stamp(fact.utterance.path) for old, fact in pairs], bool)
            rows = rows[valid]
            stamps[rows] = np.array(own, np.int64).reshape(-1, 2)[valid]
            yield rows, list(itertools.compress(facts, valid.tolist()))

    # Their utterances are the present ones: the corpus may describe a recording differently now.
    kept = fact_table.FactTable.found(utterances, parts())
    atomic.remove_folder(work)
    atomic.make_folder(work)
    for start in range(0, len(kept), _PER_FILE):
        rows = np.arange(start, min(start + _PER_FILE, len(kept)))
        own = map(tuple, stamps[kept.rows[rows]].tolist())
        write(work, sample_rate, map(Finding, own, kept.facts(rows)))
    known = np.zeros(len(utterances), bool)
    known[kept.rows] = True
    return known


def _located(
    findings: Iterable[Finding], find: utterance_table.Finder
) -> tuple[np.ndarray, list[inspection.Facts], list[tuple[int, int] | None]]:
    """Returns the rows of usable recordings in a table, their facts and stamps.

    A recording that could not be read may be readable later, so rejections are left out.
    """
    usable = [(one.facts, one.stamp) for one in findings if one.facts is not None]
    rows = find([facts.utterance.path for facts, _ in usable])
    inside = list(itertools.compress(usable, (rows >= 0).tolist()))
    return rows[rows >= 0], [facts for facts, _ in inside], [own for _, own in inside]


def _read(work: str) -> Iterator[tuple[_Head, list[Finding]]]:
    """Yields the head and the findings of each file."""
    for name in atomic.names(work):
        if not name.startswith(PREFIX):
            continue
        first, _, rest = storage.read_bytes(storage.join(work, name)).partition(b"\n")
        try:
            head = stored_json.loads(first, _Head)
            findings = stored_json.loads_lines(rest, Finding)
        except ValueError:
            # After a power failure, the name may be on disk without the content.
            continue
        yield head, findings
