"""Whole mixtures for validation, read directly from the dataset's shards, on every backend.

All records are read once at the start, so that damage is found then and not after an epoch. Only
the positions of the voices' samples are kept. TensorFlow is not needed.
"""

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import schema
from pipeline.dataset import tfrecord
from pipeline.io import open_files, storage
from trainer.data import splits

Batch = dict[str, np.ndarray]

_SIZES = tuple(f for f in schema.mixture_features(()) if f.kind == "int64")


def read(split: splits.Split, skip_corrupt: bool = False) -> list[np.ndarray]:
    """Returns the voices of all mixtures of a split, in the order of shards and records.

    Args:
        split: split of a dataset.
        skip_corrupt: whether to leave out damaged records.

    Returns:
        For each mixture int16 `[source, sample]`, mapped from the shard, or in memory if it is
        remote.

    Raises:
        DamagedShardError: a shard is damaged; with `skip_corrupt`, only if all are.
    """
    split = splits.open_split(split.folder, split.name, split.info, skip_corrupt)
    pieces = split.pieces
    if pieces is None:
        counts = [shard.records for shard in split.shards if shard.records]
        pieces = tuple(splits.Piece(p, 0, n) for p, n in zip(split.paths, counts, strict=True))
    return [sources for piece in pieces for sources in _read_piece(piece, split)]


class Batches(Sequence[Batch]):
    """Batches of mixtures of similar length, always the same.

    Some backends compile for each shape, so there are few: lengths are rounded up to `shortest`
    times 1, 1.5, 2, 3, 4, 6, …, and each length has one batch size. Incomplete batches are filled
    with empty rows.

    Args:
        mixtures: mixtures, int16 `[source, sample]` each.
        shortest: smallest padded length, in samples.
        batch_samples: approximate number of samples of one voice in a batch.

    Returns:
        An item is a dict of `sources`, int16 `[batch, source, sample]`, and `num_samples`, int32
        `[batch]`, 0 for an empty row.
    """

    def __init__(
        self,
        mixtures: Sequence[np.ndarray],
        *,
        shortest: int = 16000,
        batch_samples: int = 16 * 32000,
    ) -> None:
        self._mixtures = mixtures
        steps = [shortest * 2**octave * half // 2 for octave in range(32) for half in (2, 3)]
        by_length: dict[int, list[int]] = {}
        for number, mixture in enumerate(mixtures):
            length = steps[bisect.bisect_left(steps, mixture.shape[1])]
            by_length.setdefault(length, []).append(number)
        self._batches = []
        for length in sorted(by_length):
            numbers, rows = by_length[length], max(batch_samples // length, 1)
            starts = range(0, len(numbers), rows)
            self._batches += [_Plan(length, rows, numbers[i : i + rows]) for i in starts]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: Any) -> Any:
        plan = self._batches[index]
        chosen = [self._mixtures[number] for number in plan.numbers]
        sources = np.zeros((plan.rows, chosen[0].shape[0], plan.length), np.int16)
        num_samples = np.zeros(plan.rows, np.int32)
        for row, mixture in enumerate(chosen):
            num_samples[row] = mixture.shape[1]
            sources[row, :, : mixture.shape[1]] = mixture
        return {"sources": sources, "num_samples": num_samples}


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Plan of a batch: its length in samples, its rows, and the mixtures in it."""

    length: int
    rows: int
    numbers: list[int]


def _read_piece(piece: splits.Piece, split: splits.Split) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    try:
        with splits.open_shard(piece.path) as (file, _):
            shard = None
            if not storage.is_remote(piece.path):
                shard = np.frombuffer(open_files.map_file(piece.path), np.uint8)
            records = tfrecord.read(file, piece.offset)
            while len(found) < piece.records and (record := next(records, None)):
                found.append(_sources(*record, split.info.num_sources, shard))
    except ValueError as error:
        raise splits.DamagedShardError(
            f"{piece.path} is damaged at record {len(found)} of {piece.records} (from 0): {error}; "
            f"{splits.REMEDIES}"
        ) from error
    if len(found) != piece.records:
        raise splits.DamagedShardError(
            f"{piece.path} has {len(found)} records, not {piece.records}; {splits.REMEDIES}"
        )
    return found


def _sources(offset: int, record: bytes, num_sources: int, shard: np.ndarray | None) -> np.ndarray:
    """Returns a record's voices; mapped from `shard`, if given, at the record's byte `offset`."""
    lists = tfrecord.parse(record)
    sizes = schema.decode(_SIZES, lists)
    shape = (sizes["num_sources"], sizes["num_samples"])
    stored = lists.get("sources") or [b""]
    size = 2 * shape[0] * shape[1]
    if shape[0] != num_sources or shape[1] < 1 or len(stored[0]) != size:
        raise ValueError(f"its voices are not {num_sources} of {shape[1]} samples")
    if shard is None:
        return np.frombuffer(stored[0], "<i2").reshape(shape)
    start = offset + tfrecord.bytes_offset(record, "sources")
    return np.frombuffer(shard[start : start + size], "<i2").reshape(shape)
