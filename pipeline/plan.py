"""From a table of facts to the list of mixtures, and from there to shards. A pure function.

The plan is complete: it holds every gain, so that no later step decides anything. Every draw is a
SHA-256 of (seed, what is drawn, mixture id): the plan of one mixture depends neither on the others
nor on a library's random numbers. Changing a draw changes everybody's datasets: it is a breaking
release.

One thing is known only when the audio is there: a mixture in which a voice is active for less than
half a second is left out of the shard and counted (`pipeline.dataset.mixture_shards`). That too
follows from the plan alone, and the `mixtures.csv` of a finished dataset lists what is in it.
"""

import bisect
import collections
import dataclasses
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

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


def _hint(split: str, alone: bool) -> str:
    if alone:
        return "; name the folder in which the speakers' folders are, or a manifest"
    if split == "valid":
        return "; raise --valid_fraction, or set it to 0 for no valid split"
    return "; give the split more speakers, or leave it out"
