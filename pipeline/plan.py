"""Plans all mixtures, and their order in shards, from the facts of recordings; a pure function.

The plan is complete: it contains every gain, so no later step decides anything. Every draw is a
SHA-256 of (seed, what is drawn, mixture id): the plan of one mixture depends neither on the others
nor on a library's random numbers. Changing a draw changes all users' datasets, so it is a breaking
release.

The plan is stored in columns: ten million mixtures take a minute and about 40 bytes each.

One thing is only known once the audio is read: a mixture in which a voice is active for less than
half a second is left out of the shard and counted (`pipeline.dataset.mixture_shards`). This, too,
follows from the plan alone, and the `mixtures.csv` of a finished dataset lists the mixtures in it.
"""

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from pipeline import columns, errors, fact_table, inspection, schema

TARGET_LEVEL_DB = -26.0
MAX_PEAK = 0.98
# A worker needs about 140 bytes of memory for each sample of a mixture.
MAX_SAMPLES = 600 * schema.DEFAULT_SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Settings:
    """How mixtures are made.

    Attributes:
        num_sources: voices in a mixture.
        mixtures_per_utterance: how often each utterance is the first voice.
        level: `active` sets each voice to -26 dB active level before the random difference; `raw`
            leaves the voices as recorded.
        length: `min` cuts to the shortest voice, `max` pads with zeros to the longest.
        max_snr_db: maximum level difference of two voices (`active` only); of more than two, each
            level changes by up to half of it.
        min_samples: shorter utterances are left out.
        max_samples: longer mixtures are cut to this at their end.
        seed: random seed of all draws.
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
    """One mixture, in which all voices begin at their first sample.

    Attributes:
        id: unique in the plan: the first voice's utterance, `-` and a number.
        split: `train`, `valid` or `test`.
        num_samples: length to which each voice is cut, or padded with zeros, at its end.
        utterance_ids: utterance of each voice.
        speakers: speaker of each voice, all different.
        gains_db: gain of each voice in dB, multiples of 0.01.
    """

    id: str
    split: str
    num_samples: int
    utterance_ids: tuple[str, ...]
    speakers: tuple[str, ...]
    gains_db: tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Mixtures(Sequence[Mixture]):
    """All mixtures in columns; `Mixture` objects are made from single rows on demand.

    Attributes:
        table: facts of the recordings.
        splits: int8 `[mixture]`, indices into `schema.SPLITS`.
        voices: int32 `[mixture, source]`, rows of the table.
        num_samples: int64 `[mixture]`.
        gains: int32 `[mixture, source]`, in hundredths of a dB.
        numbers: int32 `[mixture]`, the number at the end of a drawn mixture's id.
        given_ids: ids of mixtures from a list; None if they were drawn.
    """

    table: fact_table.FactTable
    splits: np.ndarray
    voices: np.ndarray
    num_samples: np.ndarray
    gains: np.ndarray
    numbers: np.ndarray
    given_ids: list[str] | None = None

    @classmethod
    def listed(cls, mixtures: Sequence[Mixture], table: fact_table.FactTable) -> "Mixtures":
        """Converts given mixtures, whose utterances must all be in the table."""
        place = {name: row for row, name in enumerate(table.names(np.arange(len(table))))}
        shape = (len(mixtures), len(mixtures[0].utterance_ids) if mixtures else 2)
        voices = [[place[name] for name in m.utterance_ids] for m in mixtures]
        gains = [[round(100 * gain) for gain in m.gains_db] for m in mixtures]
        return cls(
            table,
            np.array([schema.SPLITS.index(m.split) for m in mixtures], np.int8),
            np.array(voices, np.int32).reshape(shape),
            np.array([m.num_samples for m in mixtures], np.int64),
            np.array(gains, np.int32).reshape(shape),
            np.zeros(len(mixtures), np.int32),
            [m.id for m in mixtures],
        )

    def __len__(self) -> int:
        return len(self.num_samples)

    @overload
    def __getitem__(self, index: int) -> Mixture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mixture]: ...
    def __getitem__(self, index: int | slice) -> Mixture | list[Mixture]:
        found = self.mixtures(columns.chosen(len(self), index))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[Mixture]:
        for rows in columns.chunks(len(self)):
            yield from self.mixtures(rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    def select(self, rows: np.ndarray) -> "Mixtures":
        """Returns some of the mixtures, in the order of the rows."""
        given = self.given_ids
        return Mixtures(
            self.table,
            self.splits[rows],
            self.voices[rows],
            self.num_samples[rows],
            self.gains[rows],
            self.numbers[rows],
            None if given is None else [given[row] for row in rows.tolist()],
        )

    def ids(self, rows: np.ndarray, firsts: Sequence[str] | None = None) -> list[str]:
        """Returns the ids of some of the mixtures.

        Args:
            rows: rows of the mixtures.
            firsts: the utterance ids of their first voices, if they are at hand.
        """
        if self.given_ids is not None:
            return list(map(self.given_ids.__getitem__, rows.tolist()))
        firsts = firsts or self.table.names(self.voices[rows, 0])
        return [f"{a}-{b}" for a, b in zip(firsts, self.numbers[rows].tolist(), strict=True)]

    def columns(self, rows: np.ndarray) -> list[list[Any]]:
        """Returns id, split, samples, and each voice's utterance, speaker and gain in dB."""
        names = [self.table.names(voices) for voices in self.voices[rows].T]
        found: list[list[Any]] = [
            self.ids(rows, names[0]),
            list(map(schema.SPLITS.__getitem__, self.splits[rows].tolist())),
            self.num_samples[rows].tolist(),
        ]
        for own, voices, gains in zip(names, self.voices[rows].T, self.gains[rows].T, strict=True):
            found += [own, self.table.speakers_of(voices), (gains / 100).tolist()]
        return found

    def mixtures(self, rows: np.ndarray) -> list[Mixture]:
        """Returns some of the mixtures as objects."""
        ids, splits, num_samples, *voices = self.columns(rows)
        triples = (zip(*voices[part::3], strict=True) for part in range(3))
        return list(map(Mixture, ids, splits, num_samples, *triples))

    def without(self, dropped: Collection[str]) -> "Mixtures":
        """Returns the mixtures whose ids are not in `dropped`."""
        if not dropped:
            return self
        kept = [
            rows[[name not in dropped for name in self.ids(rows)]]
            for rows in columns.chunks(len(self))
        ]
        return self.select(np.concatenate(kept))

    def speakers(self, split: str) -> int:
        """Returns the number of speakers in a split."""
        voices = self.voices[self.splits == schema.SPLITS.index(split)]
        return int(np.unique(self.table.speakers[voices]).size)


def make(
    facts: Iterable[inspection.Facts], splits: Mapping[str, str], settings: Settings
) -> Mixtures:
    """Draws all mixtures.

    Args:
        facts: facts of the usable recordings, preferably a `FactTable`; short ones are left out.
        splits: split of each speaker (`corpus.assign_splits`).
        settings: how to draw.

    Returns:
        Sorted by split (train, valid, test), first voice and number.

    Raises:
        UserError: nothing is long enough, or a split has fewer speakers than a mixture has voices.
    """
    table = fact_table.FactTable.of(facts)
    long_enough = np.flatnonzero(table.num_samples >= settings.min_samples).astype(np.int32)
    if not long_enough.size:
        raise errors.UserError(
            f"no utterance has {settings.min_samples} samples or more; lower --min_seconds"
        )
    codes = [schema.SPLITS.index(splits[name]) for name in table.speaker_names]
    split_of = np.array(codes, np.int8)
    row_splits = split_of[table.speakers[long_enough]]
    alone = np.unique(table.speakers[long_enough]).size == 1
    parts = []
    for code in np.unique(row_splits).tolist():
        rows = long_enough[row_splits == code]
        speakers = np.unique(table.speakers[rows])
        if speakers.size < settings.num_sources:
            names = ", ".join(table.speaker_names[speaker] for speaker in speakers.tolist())
            raise errors.UserError(
                f"split {schema.SPLITS[code]} has {speakers.size} speaker(s) with usable "
                f"recordings ({names}), but a mixture has {settings.num_sources} voices, "
                "each another speaker's" + _hint(schema.SPLITS[code], alone=alone)
            )
        parts.append(_draw_split(table, rows, code, settings))
    # Each column is removed from the parts, since all of them twice would be much memory.
    columns = [np.concatenate([part.pop(0) for part in parts]) for _ in range(5)]
    return Mixtures(table, *columns)


def order(seed: int, count: int, names: Callable[[np.ndarray], list[str]]) -> np.ndarray:
    """Returns the rows from 0 to `count`, ordered by a salted hash of their names.

    Args:
        seed: the salt.
        count: number of rows.
        names: returns the names of given rows.
    """
    keys = np.empty(count, np.uint64)
    for rows in columns.chunks(count):
        keys[rows] = _draws(seed, "order", names(rows))
    found = np.argsort(keys).astype(np.int32)
    keys = keys[found]
    # Equal keys are ordered by name; even among a million, there is hardly one such pair.
    same = np.flatnonzero(keys[1:] == keys[:-1])
    for _, run in itertools.groupby(enumerate(same.tolist()), lambda pair: pair[1] - pair[0]):
        places = [place for _, place in run]
        tied = slice(places[0], places[-1] + 2)
        by_name = np.argsort(np.array(names(found[tied])), kind="stable")
        found[tied] = found[tied][by_name]
    return found


def deal(
    split: str, rows: np.ndarray, num_shards: int
) -> Iterator[tuple[schema.ShardName, np.ndarray]]:
    """Distributes a split's records evenly over shards.

    Args:
        split: name of the split.
        rows: rows of the records, in their order.
        num_shards: desired number; if there are fewer records, each has a shard.

    Yields:
        Each shard and its rows.
    """
    for name in schema.ShardName.of_split(split, min(num_shards, len(rows))):
        yield name, rows[name.index :: name.count]


def _draw_split(
    table: fact_table.FactTable, rows: np.ndarray, split: int, settings: Settings
) -> list[np.ndarray]:
    """Returns the columns of `Mixtures` for one split, drawn from the usable rows of the table."""
    # Sorted by speaker, then id, so that excluding a mixture's speakers excludes a few ranges.
    pool = rows[np.argsort(table.speakers[rows], kind="stable")].astype(np.int32)
    speakers = table.speakers[pool]
    starts = np.searchsorted(speakers, np.arange(len(table.speaker_names)), "left")
    stops = np.searchsorted(speakers, np.arange(len(table.speaker_names)), "right")
    total = len(rows) * settings.mixtures_per_utterance
    voices = np.empty((total, settings.num_sources), np.int32)
    voices[:, 0] = np.repeat(rows, settings.mixtures_per_utterance)
    numbers = np.tile(np.arange(settings.mixtures_per_utterance, dtype=np.int32), len(rows))
    num_samples = np.empty(total, np.int64)
    gains = np.empty(voices.shape, np.int32)
    for part in columns.chunks(total):
        firsts = zip(table.names(voices[part, 0]), numbers[part].tolist(), strict=True)
        ids = [f"{name}-{number}" for name, number in firsts]
        for voice in range(1, settings.num_sources):
            chosen = table.speakers[voices[part, :voice]]
            draws = _draws(settings.seed, f"voice {voice}", ids)
            voices[part, voice] = pool[_others(draws, len(pool), starts[chosen], stops[chosen])]
        lengths = table.num_samples[voices[part]]
        longest = lengths.max(axis=1) if settings.length == "max" else lengths.min(axis=1)
        num_samples[part] = np.minimum(longest, settings.max_samples)
        gains[part] = _gains(table, voices[part], ids, settings)
    return [np.full(total, split, np.int8), voices, num_samples, gains, numbers]


def _others(draws: np.ndarray, size: int, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Returns, for each draw, a uniform place in a pool outside of ranges `[mixture, range]`."""
    sequence = np.argsort(starts, axis=1)
    starts = np.take_along_axis(starts, sequence, 1)
    stops = np.take_along_axis(stops, sequence, 1)
    places = (draws % (size - (stops - starts).sum(axis=1)).astype(np.uint64)).astype(np.int64)
    for start, stop in zip(starts.T, stops.T, strict=True):
        places += np.where(places >= start, stop - start, 0)
    return places


def _gains(
    table: fact_table.FactTable, voices: np.ndarray, ids: Sequence[str], settings: Settings
) -> np.ndarray:
    """Returns gains in hundredths of a dB, int32 `[mixture, source]`."""
    gains = np.zeros(voices.shape)
    if settings.level == "active":
        gains = TARGET_LEVEL_DB + _level_moves(voices.shape, ids, settings) - table.levels[voices]
    common = np.zeros(len(voices))
    loud = (table.peaks[voices] * 10 ** (gains / 20)).sum(axis=1) > MAX_PEAK * (1 - 1e-9)
    # With the C library's functions, since NumPy's differ in the last bits between processors.
    factors = _each(functools.partial(math.pow, 10.0), gains[loud] / 20)
    products = (table.peaks[voices[loud]] * factors).tolist()
    peaks = np.array(list(map(math.fsum, products)))
    common[loud] = np.minimum(0.0, 20 * _each(math.log10, MAX_PEAK / peaks))
    # Rounded down to the precision of the list, so that the list gives exactly these gains.
    return np.floor(100 * (gains + common[:, np.newaxis])).astype(np.int32)


def _level_moves(shape: tuple[int, ...], ids: Sequence[str], settings: Settings) -> np.ndarray:
    half = settings.max_snr_db / 2
    if shape[1] == 2:
        move = half * _uniform(settings.seed, "level", ids)
        return np.stack([move, -move], axis=1)
    voices = [_uniform(settings.seed, f"level {voice}", ids) for voice in range(shape[1])]
    return half * np.stack(voices, axis=1)


def _each(function: Callable[[float], float], values: np.ndarray) -> np.ndarray:
    flat = map(function, values.ravel().tolist())
    return np.fromiter(flat, np.float64, values.size).reshape(values.shape)


def _draws(seed: int, what: str, ids: Iterable[str]) -> np.ndarray:
    """Returns 64 random bits for each id, uint64."""
    start = f"{seed}/{what}/".encode()
    sha256: Any = hashlib.sha256
    found = b"".join([sha256(start + name.encode()).digest() for name in ids])
    return np.frombuffer(found, ">u8")[::4].astype(np.uint64)


def _uniform(seed: int, what: str, ids: Iterable[str]) -> np.ndarray:
    """Returns values between -1 and 1, float64."""
    return _draws(seed, what, ids).astype(np.float64) / 2**63 - 1


def _hint(split: str, alone: bool) -> str:
    if alone:
        return "; name the folder in which the speakers' folders are, or a manifest"
    if split == "valid":
        return "; raise --valid_fraction, or set it to 0 for no valid split"
    return "; give the split more speakers, or leave it out"
