"""The lines that a job prints, and the counts in the dataset's files."""

import collections
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline import inspection, plan, schema
from pipeline.corpora import corpus
from pipeline.dataset import dataset, mixture_shards, shards, utterance_shards

_KINDS = {
    "timit": "TIMIT",
    "voxceleb": "VoxCeleb",
    "subsets": "speakers' folders below subsets",
    "speakers": "speakers' folders",
    "manifest": "a manifest",
}


def splits(
    mixtures: plan.Mixtures, sidecars: Iterable[mixture_shards.Counts], sample_rate: int
) -> dict[str, dataset.SplitInfo]:
    """Returns each split's counts and shards.

    Args:
        mixtures: those in the shards.
        sidecars: side-cars of all shards, in order.
        sample_rate: sample rate of the dataset in Hz.
    """
    return {
        split: dataset.SplitInfo(
            mixtures=sum(sidecar.shard.records for sidecar in part),
            speakers=mixtures.speakers(split),
            seconds=sum(sidecar.samples for sidecar in part) / sample_rate,
            frames=sum(sidecar.frames for sidecar in part),
            shards=tuple(sidecar.shard for sidecar in part),
        )
        for split, part in _by_split(sidecars).items()
    }


def utterances(
    totals: utterance_shards.Totals, plan_digest: str, sample_rate: int
) -> dataset.UtterancesInfo | None:
    """Returns counts and shards of the clean utterances; None if there are none.

    Args:
        totals: all their shards.
        plan_digest: digest of all their plans.
        sample_rate: sample rate of the dataset in Hz.
    """
    if not totals.utterances:
        return None
    return dataset.UtterancesInfo(
        utterances=totals.utterances,
        speakers=totals.speakers,
        seconds=totals.samples / sample_rate,
        shards=tuple(sidecar.shard for sidecar in totals.sidecars),
        plan_digest=plan_digest,
    )


def train_level_db(sidecars: Iterable[mixture_shards.Counts]) -> float | None:
    """Returns the mean active level of the train split's mixtures, dB; None if there are none."""
    part = _by_split(sidecars).get("train", [])
    records = sum(sidecar.shard.records for sidecar in part)
    return sum(s.active_level_mdb for s in part) / (1000 * records) if records else None


def corpus_lines(table: corpus.Corpus) -> Iterator[str]:
    """Yields lines about the corpus."""
    for path, kind in table.kinds:
        yield f"{path}: {_KINDS.get(kind, kind)}"
    yield from table.notes
    utterances = table.utterances
    yield f"{len(utterances):,d} recordings of {len(utterances.speakers.names):,d} speakers"


def reading_lines(facts: Iterable[inspection.Facts]) -> Iterator[str]:
    """Yields lines about how recordings were read, if it was unusual: one for each kind of note."""
    paths: dict[str, list[str]] = collections.defaultdict(list)
    texts: dict[str, str] = {}
    for fact in facts:
        for note in fact.notes:
            # The numbers in a note vary between recordings.
            kind = re.sub(r"\d+", "0", note)
            texts.setdefault(kind, note)
            paths[kind].append(fact.utterance.path)
    for kind, of_kind in paths.items():
        others = f" and {len(of_kind) - 1:,d} others" if len(of_kind) > 1 else ""
        yield f"note: {of_kind[0]}{others}: {texts[kind]}"


def rejected_csv(rejections: Iterable[corpus.Rejection]) -> str:
    """Returns the text of `rejected.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows([rejection.path, rejection.reason] for rejection in rejections)
    return text.getvalue()


def finished(info: dataset.DatasetInfo) -> Iterator[str]:
    """Yields lines about a finished dataset."""
    counts = info.counts
    yield from _cut_lines(counts["cut"])
    yield (
        f"{counts['recordings']:,d} recordings, of which {counts['rejected']:,d} unusable "
        f"({schema.REJECTED_FILE} says why) and {counts['too_short']:,d} too short; "
        f"{counts['dropped']:,d} mixtures dropped because a voice is hardly active in them"
    )
    for name, split in info.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        hours = split.seconds / 3600
        yield _line(name, split.mixtures, hours, split.speakers, size, len(split.shards))
    clean = info.utterances
    if clean is not None:
        size = sum(shard.bytes for shard in clean.shards)
        hours = clean.seconds / 3600
        yield _clean_line(clean.utterances, hours, clean.speakers, size, len(clean.shards))
    if info.mean is not None and info.deviation is not None:
        yield f"log-magnitudes of train: mean {info.mean:.4f}, deviation {info.deviation:.4f}"


def planned(
    mixtures: plan.Mixtures,
    of_mixtures: shards.Plans[Any],
    of_utterances: shards.Plans[Any],
    speakers: int,
    num_cut: int = 0,
) -> Iterator[str]:
    """Yields lines about a dataset that would be made.

    Args:
        mixtures: all mixtures.
        of_mixtures: plans of their shards.
        of_utterances: plans of the shards of clean utterances.
        speakers: number of speakers of the clean utterances.
        num_cut: number of recordings that are too long.
    """
    yield from _cut_lines(num_cut)
    for split in dict.fromkeys(name.split for name in of_mixtures.names):
        part = [
            rows
            for name, rows in zip(of_mixtures.names, of_mixtures.rows, strict=True)
            if name.split == split
        ]
        records, hours, size = _totals(of_mixtures, part)
        yield _line(split, records, hours, mixtures.speakers(split), size, len(part))
    if of_utterances.names:
        records, hours, size = _totals(of_utterances, of_utterances.rows)
        yield _clean_line(records, hours, speakers, size, len(of_utterances))
    total = of_mixtures.num_bytes + of_utterances.num_bytes
    yield f"dry run: about {total / 1e6:,.1f} MB would be written; nothing was"


def _totals(plans: shards.Plans[Any], parts: Sequence[np.ndarray]) -> tuple[int, float, int]:
    """Returns the number of records, hours and bytes."""
    rows = np.concatenate(parts)
    hours = int(plans.samples[rows].sum()) / plans.sample_rate / 3600
    return len(rows), hours, int(plans.bytes_of(plans.samples[rows]).sum())


def _cut_lines(num_cut: int) -> Iterator[str]:
    if num_cut:
        yield f"{num_cut:,d} recordings are longer than --max_seconds, and were cut to that"


def _line(split: str, mixtures: int, hours: float, speakers: int, size: int, shards: int) -> str:
    return (
        f"{split:5s} {mixtures:9,d} mixtures {hours:9.2f} h {speakers:6,d} speakers "
        f"{size / 1e6:10,.1f} MB in {shards} shards"
    )


def _clean_line(utterances: int, hours: float, speakers: int, size: int, shards: int) -> str:
    return (
        f"clean {utterances:9,d} utterances {hours:7.2f} h {speakers:6,d} speakers "
        f"{size / 1e6:10,.1f} MB in {shards} shards"
    )


def _by_split(
    sidecars: Iterable[mixture_shards.Counts],
) -> dict[str, list[mixture_shards.Counts]]:
    found: dict[str, list[mixture_shards.Counts]] = collections.defaultdict(list)
    for sidecar in sidecars:
        found[schema.ShardName.parse(sidecar.shard.name).split].append(sidecar)
    return found
