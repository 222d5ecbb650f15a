"""The clean utterances that dynamic mixing draws from, mapped from the dataset's files.

Nothing is parsed or copied when a run starts: `utterances/index.csv` says where in its shard each
utterance's samples lie. TensorFlow is not needed.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Sequence

import numpy as np

from pipeline import errors, schema, storage

_COLUMNS = ("shard", "offset", "num_samples", "speaker_id", "active_level_db")


@dataclasses.dataclass(frozen=True)
class Utterances:
    """Utterances by speaker.

    Attributes:
        samples: of each utterance, int16 `[sample]`.
        levels_db: active level of each, float64 `[utterance]`.
        by_speaker: for each speaker the numbers of their utterances.
    """

    samples: tuple[np.ndarray, ...]
    levels_db: np.ndarray
    by_speaker: tuple[np.ndarray, ...]

    @classmethod
    def of(
        cls, samples: Sequence[np.ndarray], levels_db: Sequence[float], speakers: Sequence[str]
    ) -> "Utterances":
        """Puts utterances together.

        Args:
            samples: of each, int16 `[sample]`.
            levels_db: active level of each.
            speakers: who speaks in each.
        """
        names = np.asarray(speakers)
        by_speaker = tuple(np.flatnonzero(names == name) for name in sorted(set(speakers)))
        return cls(tuple(samples), np.asarray(levels_db, np.float64), by_speaker)

    @property
    def num_samples(self) -> int:
        """Of all utterances together."""
        return sum(map(len, self.samples))


def read(folder: str) -> Utterances:
    """The utterances of a dataset.

    Args:
        folder: of the dataset; where it is remote the shards are read into memory.

    Raises:
        UserError: the dataset has none, or they do not fit their index.
    """
    place = storage.join(folder, schema.UTTERANCES_FOLDER)
    path = storage.join(place, schema.UTTERANCES_INDEX_FILE)
    try:
        text = storage.read_bytes(path).decode("utf-8")
    except (errors.UserError, OSError) as error:
        raise errors.UserError(
            f"{folder} has no clean utterances to mix ({error}); make it anew with "
            "pipeline.preprocess --utterances, or train with --mixing=static"
        ) from error
    try:
        rows = [[row[name] for name in _COLUMNS] for row in csv.DictReader(io.StringIO(text))]
        places = [(shard, int(offset), int(count)) for shard, offset, count, _, _ in rows]
        levels = [float(row[-1]) for row in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise errors.UserError(f"{path} is damaged: {error}") from error
    shards = {name: _open(storage.join(place, name)) for name in {shard for shard, _, _ in places}}
    samples = []
    for shard, offset, count in places:
        data = shards[shard][offset : offset + 2 * count]
        if offset < 0 or len(data) != 2 * count:
            raise errors.UserError(
                f"{storage.join(place, shard)} is shorter than {path} says; make the dataset anew "
                "(pipeline.preprocess --overwrite)"
            )
        samples.append(np.frombuffer(data, "<i2"))  # A view: nothing is read yet.
    return Utterances.of(samples, levels, [row[3] for row in rows])


def _open(path: str) -> np.ndarray:
    if storage.is_remote(path):
        return np.frombuffer(storage.read_bytes(path), np.uint8)
    try:
        if not os.path.getsize(path):
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise errors.UserError(f"{path}: {error.strerror or error}") from error
