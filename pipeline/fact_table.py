"""The facts of all recordings in columns, about 70 bytes each, in the order of a corpus.

`inspection.Facts` are made from single rows on demand. Rows are numbered from 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from pipeline import columns, inspection
from pipeline.corpora import corpus, utterance_table


class FactTable(Sequence[inspection.Facts]):
    """Facts of usable recordings.

    Attributes:
        utterances: the utterances of a corpus, sorted by id; perhaps more than have facts.
        rows: int32 `[row]`, the row of each recording in `utterances`, ascending.
        speakers: int32 `[row]`, indices into `speaker_names`.
        num_samples: int64 `[row]`, at the dataset's rate.
        peaks: float64 `[row]`.
        levels: float64 `[row]`, active level in dB.
        sha256: uint8 `[row, 32]`, of the file.
    """

    def __init__(
        self,
        utterances: utterance_table.UtteranceTable,
        rows: np.ndarray,
        numbers: dict[str, np.ndarray],
        notes: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        """Sets the columns.

        Args:
            utterances: the utterances of a corpus, sorted by id.
            rows: int32 `[row]`, rows of these, ascending.
            numbers: `num_samples`, `peak`, `level`, `sha256`, `file_bytes`, `file_rate`: for each
                utterance.
            notes: of those recordings that have any, by id.
        """
        self.utterances = utterances
        self.rows = rows
        self._numbers = numbers
        self.speakers = utterances.speakers.codes[rows].astype(np.int32, copy=False)
        self.num_samples = numbers["num_samples"]
        self.peaks = numbers["peak"]
        self.levels = numbers["level"]
        self.sha256 = numbers["sha256"]
        self._notes = notes or {}

    @classmethod
    def of(cls, facts: Iterable[inspection.Facts]) -> "FactTable":
        """Makes a table of facts in any order; if two have the same id, the last counts."""
        if isinstance(facts, cls):
            return facts
        by_id = {fact.utterance.id: fact for fact in facts}
        ordered = [by_id[name] for name in sorted(by_id)]
        utterances = utterance_table.UtteranceTable.of(fact.utterance for fact in ordered)
        return cls.found(utterances, [(np.arange(len(ordered)), ordered)])

    @classmethod
    def found(
        cls,
        utterances: utterance_table.UtteranceTable,
        parts: Iterable[tuple[np.ndarray, Sequence[inspection.Facts]]],
    ) -> "FactTable":
        """Makes a table of what was found out about a corpus.

        Args:
            utterances: of the corpus, sorted by id.
            parts: some rows of the corpus and their facts, at a time; of several facts for one row,
                the last counts.
        """
        count = len(utterances)
        numbers: dict[str, np.ndarray] = {
            "num_samples": np.empty(count, np.int64),
            "peak": np.empty(count, np.float64),
            "level": np.empty(count, np.float64),
            "sha256": np.empty((count, 32), np.uint8),
            "file_bytes": np.empty(count, np.uint32),
            "file_rate": np.empty(count, np.uint32),
        }
        present = np.zeros(count, bool)
        notes: dict[str, tuple[str, ...]] = {}
        for rows, facts in parts:
            present[rows] = True
            numbers["num_samples"][rows] = [fact.num_samples for fact in facts]
            numbers["peak"][rows] = [fact.peak for fact in facts]
            numbers["level"][rows] = [fact.active_level_db for fact in facts]
            checksums = bytes.fromhex("".join(fact.sha256 for fact in facts))
            numbers["sha256"][rows] = np.frombuffer(checksums, np.uint8).reshape(-1, 32)
            numbers["file_bytes"][rows] = [fact.file_bytes for fact in facts]
            numbers["file_rate"][rows] = [fact.file_rate for fact in facts]
            noted = np.flatnonzero([bool(fact.notes) for fact in facts])
            names = utterances.ids.at(rows[noted])
            notes |= {name: facts[n].notes for name, n in zip(names, noted.tolist(), strict=True)}
        every = cls(utterances, np.arange(count, dtype=np.int32), numbers, notes)
        return every.where(present)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> inspection.Facts: ...
    @overload
    def __getitem__(self, index: slice) -> list[inspection.Facts]: ...
    def __getitem__(self, index: int | slice) -> inspection.Facts | list[inspection.Facts]:
        found = self.facts(columns.chosen(len(self), index))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[inspection.Facts]:
        for rows in columns.chunks(len(self)):
            yield from self.facts(rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    @property
    def speaker_names(self) -> list[str]:
        """The speakers of the corpus, sorted."""
        return self.utterances.speakers.names

    def names(self, rows: np.ndarray) -> list[str]:
        """Returns the utterances' ids."""
        return self.utterances.ids.at(self.rows[rows])

    def paths(self, rows: np.ndarray) -> list[str]:
        """Returns the paths of the recordings."""
        return self.utterances.paths(self.rows[rows])

    def speakers_of(self, rows: np.ndarray) -> list[str]:
        """Returns the speakers' names."""
        return self.utterances.speakers.at(self.rows[rows])

    def sexes(self, rows: np.ndarray) -> list[str]:
        """Returns `f`, `m`, or empty if unknown."""
        return self.utterances.sexes.at(self.rows[rows])

    def checksums(self, rows: np.ndarray) -> list[str]:
        """Returns the SHA-256 of the files, hexadecimal."""
        return self.sha256[rows].tobytes().hex(" ", self.sha256.shape[1]).split()

    def facts(self, rows: np.ndarray) -> list[inspection.Facts]:
        """Returns the facts of some rows as objects."""
        utterances = self.utterances.utterances(self.rows[rows])
        numbers = (self.num_samples, self.peaks, self.levels)
        about = (self._numbers["file_bytes"], self._numbers["file_rate"])
        return list(
            map(
                inspection.Facts,
                utterances,
                *(column[rows].tolist() for column in numbers),
                self.checksums(rows),
                *(column[rows].tolist() for column in about),
                (self._notes.get(utterance.id, ()) for utterance in utterances),
            )
        )

    def noted(self) -> list[inspection.Facts]:
        """Returns the facts of recordings that have notes."""
        if not self._notes:
            return []
        found = [
            rows[[name in self._notes for name in self.names(rows)]]
            for rows in columns.chunks(len(self))
        ]
        return self.facts(np.concatenate(found))

    def where(self, kept: np.ndarray) -> "FactTable":
        """Returns a table of the rows for which a bool `[row]` is true."""
        if kept.all():
            return self
        numbers = {name: column[kept] for name, column in self._numbers.items()}
        return FactTable(self.utterances, self.rows[kept], numbers, self._notes)

    def shared(self) -> np.ndarray:
        """Returns bool `[row]`: whether the same file is also a recording of another speaker."""
        several = np.zeros(len(self), bool)
        starts = np.ascontiguousarray(self.sha256[:, :8]).view(np.uint64).ravel()
        rows = columns.repeated(starts)
        if rows.size:
            files = self.sha256[rows].view("V32").ravel()
            order = np.argsort(files, kind="stable")
            files, speakers = files[order], self.speakers[rows[order]]
            first = np.flatnonzero(np.append(True, files[1:] != files[:-1]))
            differ = np.minimum.reduceat(speakers, first) != np.maximum.reduceat(speakers, first)
            several[rows[order]] = np.repeat(differ, np.diff(np.append(first, len(rows))))
        return several


def reject_shared(table: FactTable) -> tuple[FactTable, list[corpus.Rejection]]:
    """Rejects recordings that occur with several speakers, since it is unknown who speaks.

    Args:
        table: of all recordings.

    Returns:
        The facts of the others, and the rejections in the order of the ids.
    """
    several = table.shared()
    if not several.any():
        return table, []
    found = table.facts(np.flatnonzero(several))
    owners: dict[str, dict[str, str]] = {}
    for fact in found:
        mine = owners.setdefault(fact.sha256, {})
        mine.setdefault(fact.utterance.speaker, fact.utterance.path)
    rejections = []
    for fact in found:
        other, path = next(
            (name, path)
            for name, path in owners[fact.sha256].items()
            if name != fact.utterance.speaker
        )
        reason = f"the same file as {path}, which is {other}'s"
        rejections.append(corpus.Rejection(fact.utterance.path, reason))
    return table.where(~several), rejections
