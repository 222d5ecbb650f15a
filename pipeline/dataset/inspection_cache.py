"""The findings of the inspection, in files of the work folder that survive a killed job.

Every half minute, workers write their findings to a new file, under a temporary name that is then
renamed. A later job takes from these files the facts of recordings that have not changed since
(size and modification time), and inspects the others.
"""

import dataclasses
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence

from pipeline import fact_table, inspection, version
from pipeline.corpora import corpus
from pipeline.io import atomic, storage

PREFIX = "facts"
# How long a worker collects findings before writing them; if it dies, they are lost.
FLUSH_SECONDS = 30.0
# Kept findings per file, since `storage.read_bytes` has a limit.
_PER_FILE = 100_000

Found = inspection.Facts | corpus.Rejection


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of inspecting a recording.

    Attributes:
        utterance: the utterance of the recording.
        found: facts, or why it is rejected.
        stamp: size and modification time (nanoseconds) before the inspection; None if they are not
            available, or the file is in an object store.
    """

    utterance: corpus.Utterance
    found: Found
    stamp: tuple[int, int] | None


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
        sample_rate: of the dataset, Hz; facts are valid for one rate only.
        found: at least one.
    """
    lines = [{"sample_rate": sample_rate, "versions": version.versions()}]
    lines += [_to_dict(finding) for finding in found]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    atomic.write_text(storage.join(work, f"{PREFIX}-{uuid.uuid4().hex}.jsonl"), text)


def read(work: str) -> tuple[fact_table.FactTable, list[corpus.Rejection]]:
    """Reads all findings in the work folder, without duplicates from steps that a runner repeated.

    Returns:
        Facts by utterance id, rejections by path.
    """
    rejections: set[corpus.Rejection] = set()

    def facts() -> Iterator[inspection.Facts]:
        for _, finding in _read(work):
            if isinstance(finding.found, inspection.Facts):
                yield finding.found
            else:
                rejections.add(finding.found)

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
    head = {"sample_rate": sample_rate, "versions": version.versions()}
    kept: dict[str, Finding] = {}
    for own_head, finding in _read(work):
        utterance = wanted.get(finding.utterance.path)
        facts = finding.found
        if (
            own_head == head
            and utterance is not None
            # A recording that could not be read may be readable now.
            and isinstance(facts, inspection.Facts)
            and finding.stamp is not None
            and finding.stamp == stamp(utterance.path)
        ):
            # The corpus may describe the recording differently now.
            facts = dataclasses.replace(facts, utterance=utterance)
            kept[utterance.id] = Finding(utterance, facts, finding.stamp)
    atomic.remove_folder(work)
    atomic.make_folder(work)
    findings = list(kept.values())
    for start in range(0, len(findings), _PER_FILE):
        write(work, sample_rate, findings[start : start + _PER_FILE])
    return set(kept)


def _read(work: str) -> Iterator[tuple[dict[str, object], Finding]]:
    """Yields each finding with the head of its file."""
    for name in atomic.names(work):
        if not name.startswith(PREFIX):
            continue
        lines = storage.read_bytes(storage.join(work, name)).splitlines()
        try:
            head, *found = map(json.loads, lines)
            findings = [_from_dict(fields) for fields in found]
        except (KeyError, TypeError, ValueError):
            # After a power failure, the name may be on disk without the content.
            continue
        for finding in findings:
            yield head, finding


def _to_dict(finding: Finding) -> dict[str, object]:
    good = isinstance(finding.found, inspection.Facts)
    found = dataclasses.asdict(finding.found)
    # The utterance is stored beside it.
    found.pop("utterance", None)
    return {
        "utterance": dataclasses.asdict(finding.utterance),
        "stamp": finding.stamp,
        "facts" if good else "rejection": found,
    }


def _from_dict(fields: dict) -> Finding:
    utterance = corpus.Utterance(**fields["utterance"])
    own = fields["stamp"]
    found: Found
    if "facts" in fields:
        facts = fields["facts"]
        found = inspection.Facts(utterance=utterance, **facts | {"notes": tuple(facts["notes"])})
    else:
        found = corpus.Rejection(**fields["rejection"])
    return Finding(utterance, found, None if own is None else (own[0], own[1]))
