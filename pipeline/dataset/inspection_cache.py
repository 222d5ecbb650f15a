"""What the inspection has found, in files of the work folder that outlive a job which is killed.

Workers write what they have found every half minute, each time into a file of its own, under a
temporary name that is then renamed. A job that finds such files takes from them the facts of
recordings that have not changed since (size and time of the last change), and inspects the others.
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
# How long a worker keeps to itself what it has found: that is lost with it.
FLUSH_SECONDS = 30.0
# Findings in a file of those that are kept: `storage.read_bytes` has a limit.
_PER_FILE = 100_000

Found = inspection.Facts | corpus.Rejection


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one look at a recording gave.

    Attributes:
        utterance: whose recording.
        found: facts, or why it is rejected.
        stamp: size and time of the last change (nanoseconds) before the look; None where the file
            could not be asked, or lies in an object store.
    """

    utterance: corpus.Utterance
    found: Found
    stamp: tuple[int, int] | None


def stamp(path: str) -> tuple[int, int] | None:
    """Size and time of the last change of a local file; None where that cannot be told."""
    if storage.is_remote(path):
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def write(work: str, sample_rate: int, found: Iterable[Finding]) -> None:
    """Writes some findings into a file of their own.

    Args:
        work: folder.
        sample_rate: of the dataset, Hz: facts hold for one rate.
        found: at least one.
    """
    lines = [{"sample_rate": sample_rate, "versions": version.versions()}]
    lines += [_to_dict(finding) for finding in found]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    atomic.write_text(storage.join(work, f"{PREFIX}-{uuid.uuid4().hex}.jsonl"), text)


def read(work: str) -> tuple[fact_table.FactTable, list[corpus.Rejection]]:
    """All that is in the work folder, without what a runner did twice.

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
    """Keeps the facts of an earlier job that still hold, and removes all else from the folder.

    Args:
        work: folder; it need not be there.
        utterances: that are wanted now.
        sample_rate: of the dataset, Hz.

    Returns:
        The ids of those that need no second look.
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
            # What could not be read may now be readable.
            and isinstance(facts, inspection.Facts)
            and finding.stamp is not None
            and finding.stamp == stamp(utterance.path)
        ):
            # Whose recording it is may be told otherwise now.
            facts = dataclasses.replace(facts, utterance=utterance)
            kept[utterance.id] = Finding(utterance, facts, finding.stamp)
    atomic.remove_folder(work)
    atomic.make_folder(work)
    findings = list(kept.values())
    for start in range(0, len(findings), _PER_FILE):
        write(work, sample_rate, findings[start : start + _PER_FILE])
    return set(kept)


def _read(work: str) -> Iterator[tuple[dict[str, object], Finding]]:
    """Each finding with the head of its file."""
    for name in atomic.names(work):
        if not name.startswith(PREFIX):
            continue
        lines = storage.read_bytes(storage.join(work, name)).splitlines()
        try:
            head, *found = map(json.loads, lines)
            findings = [_from_dict(fields) for fields in found]
        except (KeyError, TypeError, ValueError):
            # A power cut: the name was on the disk before the content.
            continue
        for finding in findings:
            yield head, finding


def _to_dict(finding: Finding) -> dict[str, object]:
    good = isinstance(finding.found, inspection.Facts)
    found = dataclasses.asdict(finding.found)
    # It stands beside it.
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
