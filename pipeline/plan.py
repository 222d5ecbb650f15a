"""From a table of facts to the list of mixtures, and from there to shards. A pure function.

The plan is complete: it holds every gain, so that no later step decides anything. Every draw is a
SHA-256 of (seed, what is drawn, mixture id): the plan of one mixture depends neither on the others
nor on a library's random numbers. Changing a draw changes everybody's datasets: it is a breaking
release.

One thing is known only when the audio is there: a mixture in which a voice is active for less than
half a second is left out of the shard and counted (`pipeline.dataset.shards`). That too follows
from the plan alone, and the `mixtures.csv` of a finished dataset lists what is in it.
"""

import bisect
import collections
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from pipeline import errors, inspection, schema

TARGET_LEVEL_DB = -26.0
MAX_PEAK = 0.98
# A worker needs some 140 bytes of memory for each sample of the mixture that it makes.
MAX_SAMPLES = 600 * schema.DEFAULT_SAMPLE_RATE
_SPLIT_ORDER = {split: order for order, split in enumerate(schema.SPLITS)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How mixtures are made.

    Attributes:
        num_sources: voices in a mixture.
        mixtures_per_utterance: how often each utterance is the first voice.
        level: `active` brings each voice to -26 dB active level, and then apart; `raw` leaves them
            as recorded.
        length: `min` cuts to the shortest voice, `max` pads with zeros to the longest.
        max_snr_db: two voices differ by up to this much (`active` only); each of more than two is
            moved by up to half of it.
        min_samples: shorter utterances are left out.
        max_samples: longer mixtures are cut to this at their end.
        seed: of all draws.
    """

    num_sources: int = 2
    mixtures_per_utterance: int = 1
    level: str = "active"
    length: str = "min"
    max_snr_db: float = 5.0
    min_samples: int = schema.DEFAULT_SAMPLE_RATE
    max_samples: int = MAX_SAMPLES
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Mixture:
    """One mixture; all its voices begin at their first sample.

    Attributes:
        id: unique in the plan: the first voice's utterance, `-` and a number.
        split: `train`, `valid` or `test`.
        num_samples: each voice is cut or padded with zeros at its end to this.
        utterance_ids: of each voice.
        speakers: likewise, all different.
        gains_db: likewise; multiples of 0.01.
    """

    id: str
    split: str
    num_samples: int
    utterance_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    gains_db: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Recording:
    """What writing needs of a recording: where, whose, and the SHA-256 of the file."""

    path: str
    speaker: str
    sex: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """All that decides the bytes of one shard.

    Attributes:
        name: of the shard.
        sample_rate: in Hz.
        masks: those stored.
        mixtures: in the order of the records.
        recordings: by utterance id.
    """

    name: schema.ShardName
    sample_rate: int
    masks: tuple[str, ...]
    mixtures: tuple[Mixture, ...]
    recordings: dict[str, Recording]

    @property
    def path(self) -> str:
        """Of the shard, within the dataset's folder."""
        return str(self.name)

    @property
    def digest(self) -> str:
        """SHA-256 over everything but the recordings' paths: a corpus may be moved.

        The list of features is part of it: it decides what the records hold.
        """
        rows = [
            [
                m.id,
                m.num_samples,
                *[[u, f"{gain:.2f}"] for u, gain in zip(m.utterance_ids, m.gains_db, strict=True)],
            ]
            for m in self.mixtures
        ]
        recordings = {u: [r.speaker, r.sex, r.sha256] for u, r in self.recordings.items()}
        record = schema.fingerprint(schema.mixture_features(self.masks))
        facts = [record, str(self.name), self.sample_rate, self.masks]
        text = json.dumps([*facts, rows, recordings], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """As text, which `from_json` reads."""
        fields = {
            **vars(self),
            "name": str(self.name),
            "mixtures": [vars(mixture) for mixture in self.mixtures],
            "recordings": {u: vars(recording) for u, recording in self.recordings.items()},
        }
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "ShardPlan":
        """The inverse of `to_json`."""
        fields = json.loads(text)
        return cls(
            schema.ShardName.parse(fields["name"]),
            fields["sample_rate"],
            tuple(fields["masks"]),
            tuple(map(_mixture, fields["mixtures"])),
            {u: Recording(**r) for u, r in fields["recordings"].items()},
        )


class _Digested(Protocol):
    @property
    def digest(self) -> str: ...


def make(
    facts: Iterable[inspection.Facts], splits: Mapping[str, str], settings: Settings
) -> list[Mixture]:
    """Draws all mixtures.

    Args:
        facts: of the usable recordings, in any order; those too short are passed over.
        splits: of each speaker (`corpus.assign_splits`).
        settings: how.

    Returns:
        By split (train, valid, test), first voice and number.

    Raises:
        UserError: nothing is long enough, or a split has fewer speakers than a mixture has voices.
    """
    by_split: dict[str, list[inspection.Facts]] = collections.defaultdict(list)
    for fact in facts:
        if fact.num_samples >= settings.min_samples:
            by_split[splits[fact.utterance.speaker]].append(fact)
    if not by_split:
        raise errors.UserError(
            f"no utterance has {settings.min_samples} samples or more; lower --min_seconds"
        )
    speakers = {fact.utterance.speaker for part in by_split.values() for fact in part}
    mixtures = []
    for split in sorted(by_split, key=_SPLIT_ORDER.__getitem__):
        pool = _Pool(by_split[split])
        if len(pool.speakers) < settings.num_sources:
            raise errors.UserError(
                f"split {split} has {len(pool.speakers)} speaker(s) with usable recordings "
                f"({', '.join(pool.speakers)}), but a mixture has {settings.num_sources} voices, "
                "each another speaker's" + _hint(split, alone=len(speakers) == 1)
            )
        for first in sorted(pool.facts, key=lambda fact: fact.utterance.id):
            for number in range(settings.mixtures_per_utterance):
                mixture_id = f"{first.utterance.id}-{number}"
                voices = _draw_voices(pool, first, mixture_id, settings)
                mixtures.append(_mix(mixture_id, split, voices, settings))
    return mixtures


def make_shards(
    mixtures: Iterable[Mixture],
    facts: Iterable[inspection.Facts],
    *,
    sample_rate: int,
    masks: Sequence[str],
    num_shards: int,
    seed: int,
) -> list[ShardPlan]:
    """Deals the mixtures out to shards, evenly and in an order that a salted hash decides.

    Args:
        mixtures: of all splits.
        facts: of all recordings that they name.
        sample_rate: of the dataset, Hz.
        masks: that are stored.
        num_shards: of each split; a split of fewer mixtures has one shard for each.
        seed: salt of the hash.

    Returns:
        The shards by split and number; those of a split differ by at most one mixture.
    """
    recordings = {fact.utterance.id: recording(fact) for fact in facts}
    by_split: dict[str, list[Mixture]] = collections.defaultdict(list)
    for mixture in mixtures:
        by_split[mixture.split].append(mixture)
    shards = []
    for split in sorted(by_split, key=_SPLIT_ORDER.__getitem__):
        by_id = {mixture.id: mixture for mixture in by_split[split]}
        for name, ids in deal(split, by_id, num_shards, seed):
            part = tuple(by_id[mixture_id] for mixture_id in ids)
            used = sorted({u for m in part for u in m.utterance_ids})
            named = {u: recordings[u] for u in used}
            shards.append(ShardPlan(name, sample_rate, tuple(masks), part, named))
    return shards


def deal(
    split: str, ids: Iterable[str], num_shards: int, seed: int
) -> Iterator[tuple[schema.ShardName, list[str]]]:
    """Deals a split's records out to shards, evenly and in an order that a salted hash decides.

    Args:
        split: whose.
        ids: of the records.
        num_shards: that are wanted; of fewer records each has a shard.
        seed: salt of the hash.

    Yields:
        Each shard, and its records in their order.
    """
    order = sorted(ids, key=lambda name: (_draw(seed, "order", name), name))
    for name in schema.ShardName.of_split(split, min(num_shards, len(order))):
        yield name, order[name.index :: name.count]


def digest(shards: Iterable[_Digested]) -> str:
    """SHA-256 of a whole plan."""
    return hashlib.sha256("\n".join(shard.digest for shard in shards).encode()).hexdigest()


def record_bytes(mixture: Mixture, masks: Iterable[str]) -> int:
    """About how many bytes a mixture's record takes: its arrays, and a little for the rest."""
    num_sources = len(mixture.utterance_ids)
    sizes = {
        "S": num_sources,
        "N": mixture.num_samples,
        "T": schema.num_frames(mixture.num_samples),
        "F": schema.NUM_BINS,
        "K": schema.num_stored_masks(num_sources),
    }
    arrays = sum(f.num_bytes(sizes) for f in schema.mixture_features(masks) if f.encoding)
    names = len(mixture.id) + sum(map(len, mixture.utterance_ids + mixture.speakers))
    return arrays + names + 400


def recording(fact: inspection.Facts) -> Recording:
    """What writing needs, from the facts."""
    utterance = fact.utterance
    return Recording(utterance.path, utterance.speaker, utterance.sex, fact.sha256)


class _Pool:
    """The utterances of one split, by speaker, to draw other speakers' from."""

    def __init__(self, facts: Iterable[inspection.Facts]) -> None:
        self.facts = sorted(facts, key=lambda f: (f.utterance.speaker, f.utterance.id))
        self._names = [fact.utterance.speaker for fact in self.facts]
        self.speakers = [name for name, _ in itertools.groupby(self._names)]

    def draw(self, number: int, without: Iterable[str]) -> inspection.Facts:
        """One of the utterances of all but some speakers, each as likely, by a random number."""
        ranges = sorted(
            (bisect.bisect_left(self._names, s), bisect.bisect_right(self._names, s))
            for s in without
        )
        position = number % (len(self.facts) - sum(stop - start for start, stop in ranges))
        for start, stop in ranges:
            if position >= start:
                position += stop - start
        return self.facts[position]


def _draw(seed: int, what: str, mixture_id: str) -> int:
    """64 random bits."""
    text = f"{seed}/{what}/{mixture_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _draw_uniform(seed: int, what: str, mixture_id: str) -> float:
    """Between -1 and 1."""
    return _draw(seed, what, mixture_id) / 2**63 - 1


def _draw_voices(
    pool: _Pool, first: inspection.Facts, mixture_id: str, settings: Settings
) -> list[inspection.Facts]:
    voices = [first]
    for voice in range(1, settings.num_sources):
        number = _draw(settings.seed, f"voice {voice}", mixture_id)
        voices.append(pool.draw(number, [v.utterance.speaker for v in voices]))
    return voices


def _mix(
    mixture_id: str, split: str, voices: Sequence[inspection.Facts], settings: Settings
) -> Mixture:
    gains = [0.0] * len(voices)
    if settings.level == "active":
        moves = _level_moves(len(voices), mixture_id, settings)
        levels = [voice.active_level_db for voice in voices]
        gains = [TARGET_LEVEL_DB + move - level for move, level in zip(moves, levels, strict=True)]
    peak = math.fsum(v.peak * 10 ** (g / 20) for v, g in zip(voices, gains, strict=True))
    common = min(0.0, 20 * math.log10(MAX_PEAK / peak))
    longest = max if settings.length == "max" else min
    return Mixture(
        id=mixture_id,
        split=split,
        num_samples=min(longest(voice.num_samples for voice in voices), settings.max_samples),
        utterance_ids=tuple(voice.utterance.id for voice in voices),
        speakers=tuple(voice.utterance.speaker for voice in voices),
        # Down to what is written in the list, so that the list gives exactly these.
        gains_db=tuple(math.floor(100 * (gain + common)) / 100 for gain in gains),
    )


def _level_moves(num_sources: int, mixture_id: str, settings: Settings) -> list[float]:
    half = settings.max_snr_db / 2
    if num_sources == 2:
        move = half * _draw_uniform(settings.seed, "level", mixture_id)
        return [move, -move]
    return [
        half * _draw_uniform(settings.seed, f"level {voice}", mixture_id)
        for voice in range(num_sources)
    ]


def _mixture(fields: dict[str, Any]) -> Mixture:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Mixture(**values)


def _hint(split: str, alone: bool) -> str:
    if alone:
        return "; name the folder in which the speakers' folders are, or a manifest"
    if split == "valid":
        return "; raise --valid_fraction, or set it to 0 for no valid split"
    return "; give the split more speakers, or leave it out"
