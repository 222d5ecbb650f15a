"""The clean utterances for dynamic mixing, memory-mapped from the dataset's files.

Nothing is parsed or copied when a run starts: `utterances/index.csv` gives the position of each
utterance in its shard. TensorFlow is not needed.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np

from pipeline import errors, schema
from pipeline.dataset import dataset
from pipeline.io import open_files, storage
from trainer.data import splits

_COLUMNS = ("shard", "offset", "num_samples", "speaker_id", "active_level_db")
_BLOCK = 2**26
_REMEDY = "make the dataset anew (pipeline.preprocess --overwrite)"


@dataclasses.dataclass(frozen=True)
class Utterances:
    """Utterances by speaker.

    Attributes:
        samples: samples of each utterance, int16 `[sample]`.
        levels_db: active level of each utterance, float64 `[utterance]`.
        by_speaker: for each speaker the indices of their utterances.
    """

    samples: tuple[np.ndarray, ...]
    levels_db: np.ndarray
    by_speaker: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, samples: Sequence[np.ndarray], levels_db: Sequence[float], speakers: Sequence[str]
    ) -> "Utterances":
        """Groups utterances by speaker.

        Args:
            samples: samples of each utterance, int16 `[sample]`.
            levels_db: active level of each utterance.
            speakers: speaker of each utterance.
        """
        names, owners = np.unique(np.asarray(speakers, np.str_), return_inverse=True)
        # A stable sort keeps the order of each speaker's utterances.
        order = np.argsort(owners, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(owners, minlength=len(names)))[:-1])
        by_speaker = tuple(parts[: len(names)])
        return cls(tuple(samples), np.asarray(levels_db, np.float64), by_speaker)

    @property
    def num_samples(self) -> int:
        """Number of samples of all utterances together."""
        return sum(map(len, self.samples))


def read(folder: str, info: dataset.DatasetInfo) -> Utterances:
    """Reads the utterances of a dataset.

    Args:
        folder: folder of the dataset; shards of a remote one are read into memory.
        info: info of the dataset.

    Raises:
        UserError: the dataset has no utterances, or they do not match their index.
        OSError: a shard cannot be read, or there are more than this process may have open.
    """
    if info.utterances is None:
        raise errors.UserError(
            f"{folder} has no clean utterances to mix; make it anew with pipeline.preprocess "
            "--utterances, name recordings by --utterances_manifest, or train with --mixing=static"
        )
    place = storage.join(folder, schema.UTTERANCES_FOLDER)
    path = storage.join(place, schema.UTTERANCES_INDEX_FILE)
    try:
        rows = _read_index(path)
        if len(rows) != info.utterances.utterances:
            raise ValueError(f"{len(rows)} rows, not {info.utterances.utterances}")
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise errors.UserError(f"{path} is damaged: {error}; {_REMEDY}") from error
    shards = {name: _open(storage.join(place, name)) for name in sorted({row[0] for row in rows})}
    samples = []
    for shard, offset, count, _, _ in rows:
        data = shards[shard][offset : offset + 2 * count]
        if len(data) != 2 * count:
            raise errors.UserError(
                f"{storage.join(place, shard)} is shorter than {path} says; {_REMEDY}"
            )
        samples.append(np.frombuffer(data, "<i2"))  # A view: no samples are read yet.
    return Utterances.of(samples, [row[4] for row in rows], [row[3] for row in rows])


def _read_index(path: str) -> list[tuple[str, int, int, str, float]]:
    """Reads the columns `_COLUMNS`; raises ValueError or similar if they are malformed."""
    text = storage.read_bytes(path).decode("utf-8")
    rows = []
    for row in csv.DictReader(io.StringIO(text, newline="")):
        shard, offset, count, speaker, level = (row[name] for name in _COLUMNS)
        schema.ShardName.parse(shard)
        if min(int(offset), int(count) - 1) < 0 or not math.isfinite(float(level)):
            raise ValueError(f"invalid offset {offset}, length {count} or level {level}")
        rows.append((shard, int(offset), int(count), speaker, float(level)))
    return rows


def _open(path: str) -> np.ndarray:
    if storage.is_remote(path):
        return _fetch(path)
    try:
        return np.frombuffer(open_files.map_file(path), np.uint8)
    except (FileNotFoundError, ValueError) as error:
        raise errors.UserError(f"{path} is missing or empty; {_REMEDY}") from error


def _fetch(path: str) -> np.ndarray:
    """Reads a shard of any size from an object store, in pieces."""
    with splits.open_shard(path) as (file, size):
        data = np.empty(size, np.uint8)
        place = 0
        while block := file.read(min(_BLOCK, size - place)):
            data[place : place + len(block)] = np.frombuffer(block, np.uint8)
            place += len(block)
    return data[:place]
