"""The facts of all recordings in columns, about 130 bytes each, sorted by utterance id.

Numbers are in NumPy arrays, names in Arrow; `inspection.Facts` are made from single rows on
demand. Rows are numbered from 0.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from pipeline import inspection
from pipeline.corpora import corpus

# Number of rows that are converted to Python objects at a time.
CHUNK = 2**15


class FactTable(Sequence[inspection.Facts]):
    """Facts of usable recordings.

    Attributes:
        ids: ids of the utterances, an Arrow array of text, ascending and unique.
        speakers: int32 `[row]`, indices into `speaker_names`.
        speaker_names: sorted.
        num_samples: int64 `[row]`, at the dataset's rate.
        peaks: float64 `[row]`.
        levels: float64 `[row]`, active level in dB.
        sha256: uint8 `[row, 32]`, of the file.
    """

    def __init__(
        self, columns: dict[str, Any], notes: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        """Makes a table of columns in any order; if two rows have the same id, the last counts.

        Args:
            columns: `id`, `folder` (the path up to the file name), `file`, `speaker`, `sex`,
                `split`: Arrow arrays of text; `num_samples`, `peak`, `level`, `sha256`,
                `file_bytes`, `file_rate`: as the attributes.
            notes: of those recordings that have any, by id.
        """
        rows = _sorted_rows(columns["id"])
        take = _taker(rows)
        self.ids = take(columns.pop("id"))
        self.speakers, self.speaker_names = _codes(take(columns.pop("speaker")), np.int32)
        self._sexes, self._sex_names = _codes(take(columns.pop("sex")), np.int8)
        self._splits, self._split_names = _codes(take(columns.pop("split")), np.int8)
        self._folders, self._folder_names = _codes(take(columns.pop("folder")), np.int32)
        self._files = take(columns.pop("file"))
        self.num_samples = take(columns.pop("num_samples"))
        self.peaks = take(columns.pop("peak"))
        self.levels = take(columns.pop("level"))
        self.sha256 = take(columns.pop("sha256"))
        self._file_bytes = take(columns.pop("file_bytes"))
        self._file_rates = take(columns.pop("file_rate"))
        self._notes = notes or {}
        _release()

    @classmethod
    def of(cls, facts: Iterable[inspection.Facts]) -> "FactTable":
        """Makes a table of facts in any order, which need not all be in memory at once."""
        if isinstance(facts, cls):
            return facts
        parts, rest = [], iter(facts)
        notes: dict[str, tuple[str, ...]] = {}
        while chunk := list(itertools.islice(rest, CHUNK)):
            parts.append(_columns(chunk))
            notes |= {fact.utterance.id: fact.notes for fact in chunk if fact.notes}
        parts = parts or [_columns([])]
        # Each column is removed from the parts, since all of them twice would be much memory.
        columns = {name: _concatenate([part.pop(name) for part in parts]) for name in [*parts[0]]}
        return cls(columns, notes)

    def __len__(self) -> int:
        return len(self.num_samples)

    @overload
    def __getitem__(self, index: int) -> inspection.Facts: ...
    @overload
    def __getitem__(self, index: slice) -> list[inspection.Facts]: ...
    def __getitem__(self, index: int | slice) -> inspection.Facts | list[inspection.Facts]:
        rows = np.arange(len(self))[index]
        found = self.facts(np.atleast_1d(rows))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[inspection.Facts]:
        for rows in chunks(len(self)):
            yield from self.facts(rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and list(self) == list(other)

    def names(self, rows: np.ndarray) -> list[str]:
        """Returns the utterances' ids."""
        return _texts(self.ids, rows)

    def paths(self, rows: np.ndarray) -> list[str]:
        """Returns the paths of the recordings."""
        folders = map(self._folder_names.__getitem__, self._folders[rows].tolist())
        return [a + b for a, b in zip(folders, _texts(self._files, rows), strict=True)]

    def speakers_of(self, rows: np.ndarray) -> list[str]:
        """Returns the speakers' names."""
        return list(map(self.speaker_names.__getitem__, self.speakers[rows].tolist()))

    def sexes(self, rows: np.ndarray) -> list[str]:
        """Returns `f`, `m`, or empty if unknown."""
        return list(map(self._sex_names.__getitem__, self._sexes[rows].tolist()))

    def checksums(self, rows: np.ndarray) -> list[str]:
        """Returns the SHA-256 of the files, hexadecimal."""
        return self.sha256[rows].tobytes().hex(" ", self.sha256.shape[1]).split()

    def facts(self, rows: np.ndarray) -> list[inspection.Facts]:
        """Returns the facts of some rows as objects."""
        names = self.names(rows)
        splits = map(self._split_names.__getitem__, self._splits[rows].tolist())
        utterances = map(
            corpus.Utterance,
            names, self.paths(rows), self.speakers_of(rows), self.sexes(rows), splits,
        )  # fmt: skip
        numbers = (self.num_samples, self.peaks, self.levels)
        about = (self._file_bytes, self._file_rates)
        return list(
            map(
                inspection.Facts,
                utterances,
                *(column[rows].tolist() for column in numbers),
                self.checksums(rows),
                *(column[rows].tolist() for column in about),
                (self._notes.get(name, ()) for name in names),
            )
        )

    def noted(self) -> list[inspection.Facts]:
        """Returns the facts of recordings that have notes."""
        if not self._notes:
            return []
        found = [
            rows[[name in self._notes for name in self.names(rows)]] for rows in chunks(len(self))
        ]
        return self.facts(np.concatenate(found))

    def where(self, kept: np.ndarray) -> "FactTable":
        """Returns a table of the rows for which a bool `[row]` is true."""
        return FactTable.of(fact for fact, keep in zip(self, kept, strict=True) if keep)

    def shared(self) -> np.ndarray:
        """Returns bool `[row]`: whether the same file is also a recording of another speaker."""
        files = np.ascontiguousarray(self.sha256).view("V32").ravel()
        order = np.argsort(files, kind="stable")
        starts = np.flatnonzero(np.append(True, files[order][1:] != files[order][:-1]))
        speakers = self.speakers[order]
        several = np.zeros(len(self), bool)
        if len(self):
            differ = np.minimum.reduceat(speakers, starts) != np.maximum.reduceat(speakers, starts)
            several[order] = np.repeat(differ, np.diff(np.append(starts, len(self))))
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


def chunks(count: int) -> Iterator[np.ndarray]:
    """Yields the rows from 0 to `count`, some at a time."""
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count))


def _columns(facts: Sequence[inspection.Facts]) -> dict[str, Any]:
    import pyarrow as pa

    utterances = [fact.utterance for fact in facts]
    places = [utterance.path.rpartition("/") for utterance in utterances]
    texts = {
        "id": [utterance.id for utterance in utterances],
        "folder": [folder + slash for folder, slash, _ in places],
        "file": [name for _, _, name in places],
        "speaker": [utterance.speaker for utterance in utterances],
        "sex": [utterance.sex for utterance in utterances],
        "split": [utterance.split for utterance in utterances],
    }
    checksums = b"".join(bytes.fromhex(fact.sha256) for fact in facts)
    arrays = {name: pa.array(values, pa.large_string()) for name, values in texts.items()}
    for name in ("folder", "speaker", "sex", "split"):
        arrays[name] = arrays[name].dictionary_encode()
    return {
        **arrays,
        "num_samples": np.array([fact.num_samples for fact in facts], np.int64),
        "peak": np.array([fact.peak for fact in facts], np.float64),
        "level": np.array([fact.active_level_db for fact in facts], np.float64),
        "sha256": np.frombuffer(checksums, np.uint8).reshape(len(facts), 32),
        "file_bytes": np.array([fact.file_bytes for fact in facts], np.uint32),
        "file_rate": np.array([fact.file_rate for fact in facts], np.uint32),
    }


def _concatenate(parts: list[Any]) -> Any:
    import pyarrow as pa

    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    # Each part has a dictionary of its own.
    return pa.concat_arrays(pa.chunked_array(parts).unify_dictionaries().chunks)


def _sorted_rows(ids: Any) -> np.ndarray | None:
    """Returns the rows in the order of their ids, each once; None if they already are."""
    import pyarrow.compute as pc

    if pc.all(pc.less(ids[:-1], ids[1:])).as_py() in (True, None):
        return None
    rows = pc.sort_indices(ids).to_numpy()
    ordered = ids.take(pc.sort_indices(ids))
    last = pc.not_equal(ordered[:-1], ordered[1:]).to_numpy(zero_copy_only=False)
    return rows[np.append(last.astype(bool), True)]


def _taker(rows: np.ndarray | None) -> Callable[[Any], Any]:
    import pyarrow as pa

    def take(column: Any) -> Any:
        if rows is None:
            return column
        return column[rows] if isinstance(column, np.ndarray) else column.take(pa.array(rows))

    return take


def _codes(texts: Any, dtype: Any) -> tuple[np.ndarray, list[str]]:
    """Returns indices into a sorted list of the texts, and that list."""
    import pyarrow.compute as pc

    encoded = pc.dictionary_encode(texts)
    names = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    places = np.empty(len(names), dtype)
    places[order] = np.arange(len(names), dtype=dtype)
    return places[encoded.indices.to_numpy()], [names[place] for place in order]


def _release() -> None:
    """Releases Arrow's memory of deleted columns."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


def _texts(column: Any, rows: np.ndarray) -> list[str]:
    import pyarrow as pa

    found: list[str] = column.take(pa.array(rows)).to_pylist()
    return found
