"""The findings of the inspection, in files of the work folder that survive a killed job.

Every half minute, workers write their findings to a new file, under a temporary name that is then
renamed. A later job takes from these files the facts of recordings that have not changed since
(size and modification time), and inspects the others.
"""

import dataclasses
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence

from pipeline import fact_table, inspection, version
from pipeline.corpora import corpus
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


def read(work: str) -> tuple[fact_table.FactTable, list[corpus.Rejection]]:
    """Reads all findings in the work folder, without duplicates from steps that a runner repeated.

    Returns:
        Facts by utterance id, rejections by path.
    """
    rejections: set[corpus.Rejection] = set()

    def facts() -> Iterator[inspection.Facts]:
        for _, finding in _read(work):
            if finding.facts is not None:
                yield finding.facts
            elif finding.rejection is not None:
                rejections.add(finding.rejection)

    table = fact_table.FactTable.of(facts())
    return table, sorted(rejections)


def keep(work: str, utterances: Sequence[corpus.Utterance], sample_rate: int) -> set[str]:
    """Keeps the facts of an earlier job that are still valid, and removes everything else.

    Args:
        work: the work folder; it need not exist.
        utterances: the utterances needed now.
        sample_rate: sample rate of the dataset in Hz.

    Returns:
        The ids of those that need not be inspected again.
    """
    wanted = {utterance.path: utterance for utterance in utterances}
    head = _Head(sample_rate, version.versions())
    kept: dict[str, Finding] = {}
    for own_head, finding in _read(work):
        facts = finding.facts
        # A recording that could not be read may be readable now.
        utterance = wanted.get(facts.utterance.path) if facts else None
        if (
            own_head == head
            and facts is not None
            and utterance is not None
            and finding.stamp is not None
            and finding.stamp == stamp(utterance.path)
        ):
            # The corpus may describe the recording differently now.
            facts = dataclasses.replace(facts, utterance=utterance)
            kept[utterance.id] = Finding(finding.stamp, facts)
    atomic.remove_folder(work)
    atomic.make_folder(work)
    findings = list(kept.values())
    for start in range(0, len(findings), _PER_FILE):
        write(work, sample_rate, findings[start : start + _PER_FILE])
    return set(kept)


def _read(work: str) -> Iterator[tuple[_Head, Finding]]:
    """Yields each finding with the head of its file."""
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
        for finding in findings:
            yield head, finding
