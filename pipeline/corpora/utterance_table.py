"""The utterances of a corpus in columns, about 60 bytes each."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from pipeline import columns, errors


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Utterance:
    """One recording of one speaker.

    Attributes:
        id: unique among the utterances that are read; the table is sorted by it.
        path: where the recording is.
        speaker: name of the speaker.
        sex: `f`, `m`, or empty if unknown.
        split: the declared split, or empty.
    """

    id: str
    path: str
    speaker: str
    sex: str = ""
    split: str = ""


_fields = operator.attrgetter("id", "path", "speaker", "sex", "split")


@dataclasses.dataclass(frozen=True, eq=False)
class UtteranceTable(Sequence[Utterance]):
    """Utterances in columns; `Utterance` objects are made from single rows on demand.

    Attributes:
        ids: the utterances' ids.
        folders: the paths of their recordings up to the file name.
        files: the file names.
        speakers: names of the speakers.
        sexes: `f`, `m`, or empty if unknown.
        splits: the declared splits, or empty.
    """

    ids: columns.Texts
    folders: columns.Codes
    files: columns.Texts
    speakers: columns.Codes
    sexes: columns.Codes
    splits: columns.Codes

    @classmethod
    def of(cls, utterances: Iterable[Utterance]) -> "UtteranceTable":
        """Makes a table of utterances, which need not all be in memory at once."""
        if isinstance(utterances, cls):
            return utterances
        parts = (zip(*map(_fields, batch), strict=True) for batch in columns.batches(utterances))
        return cls.of_parts(parts)

    @classmethod
    def of_parts(cls, parts: Iterable[Iterable[Sequence[str]]]) -> "UtteranceTable":
        """Makes a table of parts: ids, paths, speakers, sexes and splits of some utterances."""
        return cls.concatenate([_columns(*part) for part in parts] or [_columns(*[()] * 5)])

    @classmethod
    def concatenate(cls, parts: list[dict[str, Any]]) -> "UtteranceTable":
        """Makes a table of the rows of all parts, and removes the columns from the parts."""
        found: dict[str, Any] = {}
        for name in [*parts[0]]:
            # Each column is removed from the parts, since all of them twice would be much memory.
            own = [part.pop(name) for part in parts]
            found[name] = own[0].concatenate(own)
            del own
            columns.release()
        return cls(**found)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> list[Utterance]: ...
    def __getitem__(self, index: int | slice) -> Utterance | list[Utterance]:
        found = self.utterances(columns.chosen(len(self), index))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[Utterance]:
        for rows in columns.chunks(len(self)):
            yield from self.utterances(rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def utterances(self, rows: np.ndarray) -> list[Utterance]:
        """Returns some utterances as objects."""
        coded = (self.speakers.at(rows), self.sexes.at(rows), self.splits.at(rows))
        return list(map(Utterance, self.ids.at(rows), self.paths(rows), *coded))

    def paths(self, rows: np.ndarray) -> list[str]:
        """Returns the paths of the recordings."""
        return list(map(operator.add, self.folders.at(rows), self.files.at(rows)))

    def take(self, rows: np.ndarray) -> "UtteranceTable":
        """Returns a table of some rows."""
        return UtteranceTable(**{name: column.take(rows) for name, column in self.columns.items()})

    def where(self, kept: np.ndarray) -> "UtteranceTable":
        """Returns a table of the rows for which a bool `[row]` is true."""
        return self if kept.all() else self.take(np.flatnonzero(kept))

    @property
    def columns(self) -> dict[str, Any]:
        """The columns by their names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


class Finder:
    """Finds rows of a table by the paths of the recordings, which are unique."""

    def __init__(self, table: UtteranceTable) -> None:
        """Sets the table; from its first use on, this takes 12 bytes for each row."""
        self._table = table

    @functools.cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The hashes of the paths, ascending, and their rows."""
        hashes = columns.hashes(len(self._table), self._table.paths)
        rows = np.argsort(hashes).astype(np.int32)
        return hashes[rows], rows

    def __call__(self, paths: Sequence[str]) -> np.ndarray:
        """Returns the row of each path, int64 `[path]`; -1 if it is not in the table."""
        hashes, order = self._sorted
        wanted = np.fromiter(map(hash, paths), np.int64, len(paths))
        places = np.searchsorted(hashes, wanted)
        found = np.full(len(paths), -1)
        left = np.arange(len(paths))
        while left.size:
            left = left[places[left] < len(hashes)]
            left = left[hashes[places[left]] == wanted[left]]
            rows = order[places[left]]
            pairs = zip(self._table.paths(rows), left.tolist(), strict=True)
            same = np.array([path == paths[place] for path, place in pairs], bool)
            found[left[same]] = rows[same]
            # Another path may have the same hash.
            left = left[~same]
            places[left] += 1
        return found


def known(speakers: columns.Codes, values: columns.Codes) -> np.ndarray:
    """Returns what is known of each speaker, indices into `values.names`; -1 if nothing is."""
    given = np.flatnonzero(~values.empty)[::-1]
    found = np.full(len(speakers.names), -1, np.int8)
    # Of several for one speaker, NumPy keeps the last, which is that of the first row.
    found[speakers.codes[given]] = values.codes[given]
    return found


def consistent(table: UtteranceTable, place: Callable[[int], str] | None = None) -> UtteranceTable:
    """Fills in each speaker's known split and sex; raises UserError if they contradict.

    Args:
        table: in the order in which rows are compared.
        place: returns where a row is, for messages; by default the path of its recording.
    """
    found: dict[str, Any] = {}
    owners = table.speakers.codes
    for field, what in (("splits", "in two splits"), ("sexes", "of two sexes")):
        values: columns.Codes = getattr(table, field)
        own = known(table.speakers, values)
        wrong = np.flatnonzero((values.codes != own[owners]) & ~values.empty)
        if wrong.size:
            same = (owners == owners[wrong[0]]) & ~values.empty
            rows = np.array([np.flatnonzero(same)[0], wrong[0]])
            one, other = values.at(rows)
            here = list(map(place, rows.tolist())) if place else table.paths(rows)
            (speaker, _) = table.speakers.at(rows)
            raise errors.UserError(
                f"speaker {speaker} is {what}: {one} ({here[0]}) and {other} ({here[1]})"
            )
        # Where nothing is known, there are empty values, whose code is 0.
        found[field] = columns.Codes.used(np.maximum(own, 0)[owners], values.names)
    return dataclasses.replace(table, **found)


def _columns(
    ids: Sequence[str],
    paths: Sequence[str],
    speakers: Sequence[str],
    sexes: Sequence[str],
    splits: Sequence[str],
) -> dict[str, Any]:
    places = [path.rfind("/") + 1 for path in paths]
    return {
        "ids": columns.Texts.of(ids),
        "folders": columns.Codes.of([p[:place] for p, place in zip(paths, places, strict=True)]),
        "files": columns.Texts.of(p[place:] for p, place in zip(paths, places, strict=True)),
        "speakers": columns.Codes.of(speakers),
        "sexes": columns.Codes.of(sexes),
        "splits": columns.Codes.of(splits),
    }
