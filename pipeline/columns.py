"""Long columns: names in Arrow arrays, few different names as codes, and the rows that repeat.

Python strings are made for some rows at a time, so that tables of ten million rows fit in memory.
Rows are numbered from 0.
"""

import collections
import ctypes
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np

# Number of rows that are converted to Python objects at a time.
CHUNK = 2**15

_Item = TypeVar("_Item")


class Texts(Sequence[str]):
    """A column of text; a sequence of str.

    Attributes:
        array: Arrow array of large strings.
    """

    def __init__(self, array: Any) -> None:
        self.array = array

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Texts":
        """Makes a column of texts, which need not all be in memory at once."""
        import pyarrow as pa

        parts = [pa.array(part, pa.large_string()) for part in batches(texts)]
        return cls.concatenate([cls(part) for part in parts or [pa.array([], pa.large_string())]])

    @classmethod
    def concatenate(cls, parts: Sequence["Texts"]) -> "Texts":
        """Returns the rows of all parts."""
        import pyarrow as pa

        return parts[0] if len(parts) == 1 else cls(pa.concat_arrays([p.array for p in parts]))

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self.at(chosen(len(self), index))
        return found if isinstance(index, slice) else found[0]

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from self.array.slice(start, CHUNK).to_pylist()

    def at(self, rows: np.ndarray) -> list[str]:
        """Returns the texts of some rows."""
        found: list[str] = self.take(rows).array.to_pylist()
        return found

    def take(self, rows: np.ndarray) -> "Texts":
        """Returns a column of some rows."""
        import pyarrow as pa

        return Texts(self.array.take(pa.array(rows)))

    def order(self) -> np.ndarray | None:
        """Returns the rows in the order of their texts; None if they are in order already."""
        import pyarrow.compute as pc

        if pc.all(pc.less_equal(self.array[:-1], self.array[1:])).as_py() in (True, None):
            return None
        return np.asarray(pc.sort_indices(self.array)).astype(np.int32)

    def in_order(self) -> "Texts":
        """Returns the sorted column."""
        rows = self.order()
        return self if rows is None else self.take(rows)

    def after(self, prefix: str) -> "Texts":
        """Returns a column in which each text has a prefix."""
        import pyarrow as pa
        import pyarrow.compute as pc

        start, nothing = (pa.scalar(text, pa.large_string()) for text in (prefix, ""))
        return Texts(pc.binary_join_element_wise(start, self.array, nothing))

    def replace(self, rows: np.ndarray, texts: Sequence[str]) -> "Texts":
        """Returns a column in which some rows, in ascending order, have other texts."""
        import pyarrow as pa
        import pyarrow.compute as pc

        replaced = np.zeros(len(self), bool)
        replaced[rows] = True
        new = pa.array(texts, pa.large_string())
        return Texts(pc.replace_with_mask(self.array, pa.array(replaced), new))


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """A column of text with few different values.

    Attributes:
        codes: int8 or int32 `[row]`, indices into `names`.
        names: the values, sorted, each of at least one row.
    """

    codes: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Codes":
        """Makes a column of texts."""
        places: dict[str, int] = collections.defaultdict()
        places.default_factory = places.__len__  # type: ignore[attr-defined]
        codes = np.fromiter(map(places.__getitem__, texts), np.int32, len(texts))
        return cls._sorted(codes, list(places))

    @classmethod
    def concatenate(cls, parts: Sequence["Codes"]) -> "Codes":
        """Returns the rows of all parts."""
        places: dict[str, int] = {}
        for name in itertools.chain.from_iterable(part.names for part in parts):
            places.setdefault(name, len(places))
        new = [np.array([places[name] for name in part.names], np.int32) for part in parts]
        codes = [own[part.codes] for own, part in zip(new, parts, strict=True)]
        return cls._sorted(np.concatenate(codes), list(places))

    @classmethod
    def used(cls, codes: np.ndarray, names: list[str]) -> "Codes":
        """Makes a column of indices into sorted names, and leaves out names without a row."""
        counts = np.bincount(codes, minlength=len(names))
        if counts.all():
            return cls(codes, names)
        places = (np.cumsum(counts > 0) - 1).astype(codes.dtype)
        return cls(places[codes], list(itertools.compress(names, counts.tolist())))

    @classmethod
    def _sorted(cls, codes: np.ndarray, names: list[str]) -> "Codes":
        order = sorted(range(len(names)), key=names.__getitem__)
        places = np.empty(len(names), np.int8 if len(names) < 2**7 else np.int32)
        places[order] = np.arange(len(names))
        return cls(places[codes], [names[place] for place in order])

    @property
    def empty(self) -> np.ndarray:
        """Bool `[row]`: whether the text is empty."""
        return (self.codes == 0) & (self.names[:1] == [""])

    def at(self, rows: np.ndarray) -> list[str]:
        """Returns the texts of some rows."""
        return list(map(self.names.__getitem__, self.codes[rows].tolist()))

    def take(self, rows: np.ndarray) -> "Codes":
        """Returns a column of some rows."""
        return self.used(self.codes[rows], self.names)


def chosen(count: int, index: int | slice) -> np.ndarray:
    """Returns the rows from 0 to `count` that an index denotes, int64 `[row]`."""
    if isinstance(index, slice):
        return np.arange(*index.indices(count))
    return np.array([range(count)[index]])


def chunks(count: int) -> Iterator[np.ndarray]:
    """Yields the rows from 0 to `count`, some at a time."""
    for start in range(0, count, CHUNK):
        yield np.arange(start, min(start + CHUNK, count))


def batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yields lists of up to `CHUNK` items."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, CHUNK)):
        yield batch


def hashes(count: int, names: Callable[[np.ndarray], Iterable[str]]) -> np.ndarray:
    """Returns Python's hashes of names, int64 `[row]`, which are only valid in this process.

    Args:
        count: number of rows.
        names: returns the names of given rows.
    """
    found = np.empty(count, np.int64)
    for rows in chunks(count):
        found[rows] = np.fromiter(map(hash, names(rows)), np.int64, len(rows))
    return found


def repeated(values: np.ndarray) -> np.ndarray:
    """Returns the rows whose values are there more than once, ascending."""
    ordered = np.sort(values)
    several = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.flatnonzero(np.isin(values, several)) if several.size else several


def repeats(
    count: int,
    names: Callable[[np.ndarray], Iterable[str]],
    ranks: Callable[[np.ndarray], Iterable[Any]] | None = None,
) -> dict[int, int]:
    """Finds the rows that have the name of another one.

    Args:
        count: number of rows.
        names: returns the names of given rows.
        ranks: returns their ranks; of several rows of one name, the lowest counts, then the first.

    Returns:
        For each row that does not count, in ascending order, the one of its name that does.
    """
    rows = repeated(hashes(count, names))
    if not rows.size:
        return {}
    # Two names may have the same hash, so these rows are compared by name.
    groups: dict[str, list[tuple[Any, int]]] = collections.defaultdict(list)
    own = ranks(rows) if ranks else itertools.repeat(0)
    for name, rank, row in zip(names(rows), own, rows.tolist(), strict=False):
        groups[name].append((rank, row))
    firsts = {row: min(group)[1] for group in groups.values() for _, row in group}
    return {row: firsts[row] for row in rows.tolist() if firsts[row] != row}


def without(count: int, dropped: Iterable[int]) -> np.ndarray:
    """Returns bool `[row]`, false for the given rows."""
    kept = np.ones(count, bool)
    kept[list(dropped)] = False
    return kept


def release() -> None:
    """Returns the memory of deleted columns to the system, as far as its libraries can."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    # In the GNU C library.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
