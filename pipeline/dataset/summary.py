"""What a job says, and what the dataset's files say of it."""

import collections
import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from pipeline import plan, schema
from pipeline.corpora import corpus
from pipeline.dataset import dataset, shards, utterance_shards

_KINDS = {
    "timit": "TIMIT",
    "voxceleb": "VoxCeleb",
    "subsets": "speakers' folders below subsets",
    "speakers": "speakers' folders",
    "manifest": "a manifest",
}


def splits(
    mixtures: Iterable[plan.Mixture], sidecars: Iterable[shards.Sidecar], sample_rate: int
) -> dict[str, dataset.SplitInfo]:
    """Each split's counts and shards.

    Args:
        mixtures: that are in the shards.
        sidecars: of all shards, in order.
        sample_rate: of the dataset, Hz.
    """
    speakers: dict[str, set[str]] = collections.defaultdict(set)
    for mixture in mixtures:
        speakers[mixture.split].update(mixture.speakers)
    return {
        split: dataset.SplitInfo(
            mixtures=sum(sidecar.shard.records for sidecar in part),
            speakers=len(speakers[split]),
            seconds=sum(sidecar.samples for sidecar in part) / sample_rate,
            frames=sum(sidecar.frames for sidecar in part),
            shards=tuple(sidecar.shard for sidecar in part),
        )
        for split, part in _by_split(sidecars).items()
    }


def utterances(
    sidecars: Sequence[utterance_shards.Sidecar],
    plans: Iterable[utterance_shards.ShardPlan],
    sample_rate: int,
) -> dataset.UtterancesInfo | None:
    """The clean utterances' counts and shards; None where there are none.

    Args:
        sidecars: of all their shards, in order.
        plans: likewise.
        sample_rate: of the dataset, Hz.
    """
    entries = [entry for sidecar in sidecars for entry in sidecar.entries]
    if not entries:
        return None
    return dataset.UtterancesInfo(
        utterances=len(entries),
        speakers=len({entry.speaker_id for entry in entries}),
        seconds=sum(entry.num_samples for entry in entries) / sample_rate,
        shards=tuple(sidecar.shard for sidecar in sidecars),
        plan_digest=plan.digest(plans),
    )


def train_level_db(sidecars: Iterable[shards.Sidecar]) -> float | None:
    """Mean active level of the train split's mixtures, dB; None where there are none."""
    part = _by_split(sidecars).get("train", [])
    records = sum(sidecar.shard.records for sidecar in part)
    return sum(s.active_level_mdb for s in part) / (1000 * records) if records else None


def corpus_lines(table: corpus.Corpus) -> Iterator[str]:
    """Lines about what was found."""
    for path, kind in table.kinds:
        yield f"{path}: {_KINDS.get(kind, kind)}"
    yield from table.notes
    speakers = len({utterance.speaker for utterance in table.utterances})
    yield f"{len(table.utterances):,d} recordings of {speakers:,d} speakers"


def rejected_csv(rejections: Iterable[corpus.Rejection]) -> str:
    """The text of `rejected.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "reason"])
    writer.writerows([rejection.path, rejection.reason] for rejection in rejections)
    return text.getvalue()


def finished(info: dataset.DatasetInfo) -> Iterator[str]:
    """Lines about a finished dataset."""
    counts = info.counts
    yield from _cut_lines(counts["cut"])
    yield (
        f"{counts['recordings']:,d} recordings, of which {counts['rejected']:,d} unusable "
        f"({schema.REJECTED_FILE} says why) and {counts['too_short']:,d} too short; "
        f"{counts['dropped']:,d} mixtures dropped, a voice being hardly active in them"
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
    mixtures: Sequence[plan.Mixture],
    shard_plans: Iterable[plan.ShardPlan],
    utterance_plans: Sequence[utterance_shards.ShardPlan],
    masks: Sequence[str],
    sample_rate: int,
    num_cut: int = 0,
) -> Iterator[str]:
    """Lines about a dataset that would be made.

    Args:
        mixtures: all of them.
        shard_plans: likewise.
        utterance_plans: likewise.
        masks: that would be stored.
        sample_rate: of the dataset, Hz.
        num_cut: recordings that are too long.
    """
    yield from _cut_lines(num_cut)
    count = collections.Counter(shard.name.split for shard in shard_plans)
    total = 0
    for split in count:
        part = [mixture for mixture in mixtures if mixture.split == split]
        size = sum(plan.record_bytes(mixture, masks) for mixture in part)
        total += size
        hours = sum(mixture.num_samples for mixture in part) / sample_rate / 3600
        speakers = len({speaker for mixture in part for speaker in mixture.speakers})
        yield _line(split, len(part), hours, speakers, size, count[split])
    clean = [utterance for shard in utterance_plans for utterance in shard.utterances]
    if clean:
        size = sum(map(utterance_shards.planned_bytes, utterance_plans))
        total += size
        hours = sum(utterance.num_samples for utterance in clean) / sample_rate / 3600
        speakers = len({utterance.recording.speaker for utterance in clean})
        yield _clean_line(len(clean), hours, speakers, size, len(utterance_plans))
    yield f"dry run: about {total / 1e6:,.1f} MB would be written; nothing was"


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


def _by_split(sidecars: Iterable[shards.Sidecar]) -> dict[str, list[shards.Sidecar]]:
    found: dict[str, list[shards.Sidecar]] = collections.defaultdict(list)
    for sidecar in sidecars:
        found[schema.ShardName.parse(sidecar.shard.name).split].append(sidecar)
    return found
