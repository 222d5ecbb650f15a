"""What a job says at its end, and what the dataset's info says of it."""

import collections
import importlib.metadata
import platform
from collections.abc import Iterable, Iterator, Sequence

import soundfile

from pipeline import dataset, plan, schema, shards, version


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


def train_level_db(sidecars: Iterable[shards.Sidecar]) -> float | None:
    """Mean active level of the train split's mixtures, dB; None where there are none."""
    part = _by_split(sidecars).get("train", [])
    records = sum(sidecar.shard.records for sidecar in part)
    return sum(s.active_level_mdb for s in part) / (1000 * records) if records else None


def versions() -> dict[str, str]:
    """What decides bytes, beside the plan."""
    libraries = ("numpy", "scipy", "soundfile", "soxr")
    return {
        "voices-apart": version.VERSION,
        "python": platform.python_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def finished(info: dataset.DatasetInfo) -> Iterator[str]:
    """Lines about a finished dataset."""
    counts = info.counts
    yield (
        f"{counts['recordings']:,d} recordings, of which {counts['rejected']:,d} unusable "
        f"({schema.REJECTED_FILE} says why) and {counts['too_short']:,d} too short; "
        f"{counts['dropped']:,d} mixtures dropped, a voice being hardly active in them"
    )
    for name, split in info.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        hours = split.seconds / 3600
        yield _line(name, split.mixtures, hours, split.speakers, size, len(split.shards))
    if info.mean is not None and info.deviation is not None:
        yield f"log-magnitudes of train: mean {info.mean:.4f}, deviation {info.deviation:.4f}"


def planned(
    mixtures: Sequence[plan.Mixture],
    shard_plans: Iterable[plan.ShardPlan],
    masks: Sequence[str],
    sample_rate: int,
) -> Iterator[str]:
    """Lines about a dataset that would be made.

    Args:
        mixtures: all of them.
        shard_plans: likewise.
        masks: that would be stored.
        sample_rate: of the dataset, Hz.
    """
    count = collections.Counter(shard.name.split for shard in shard_plans)
    total = 0
    for split in count:
        part = [mixture for mixture in mixtures if mixture.split == split]
        size = sum(plan.record_bytes(mixture, masks) for mixture in part)
        total += size
        hours = sum(mixture.num_samples for mixture in part) / sample_rate / 3600
        speakers = len({speaker for mixture in part for speaker in mixture.speakers})
        yield _line(split, len(part), hours, speakers, size, count[split])
    yield f"dry run: about {total / 1e6:,.1f} MB would be written; nothing was"


def _line(split: str, mixtures: int, hours: float, speakers: int, size: int, shards: int) -> str:
    return (
        f"{split:5s} {mixtures:9,d} mixtures {hours:9.2f} h {speakers:6,d} speakers "
        f"{size / 1e6:10,.1f} MB in {shards} shards"
    )


def _by_split(sidecars: Iterable[shards.Sidecar]) -> dict[str, list[shards.Sidecar]]:
    found: dict[str, list[shards.Sidecar]] = collections.defaultdict(list)
    for sidecar in sidecars:
        found[schema.ShardName.parse(sidecar.shard.name).split].append(sidecar)
    return found
