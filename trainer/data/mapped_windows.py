"""Windows of local shards, copied from memory-mapped files straight into batches.

TensorFlow's reader checks the checksums of whole records with slow code in every pass, and copies
the needed arrays six times on their way into a batch. Here each record is checked and parsed once,
on first use. After that the position of each array in the file is known.
"""

import atexit
import math
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO, cast

import numpy as np

from pipeline import schema
from pipeline.dataset import tfrecord
from pipeline.io import open_files, storage
from trainer.data import splits

_FEATURES = {feature.name: feature for feature in schema.MIXTURE_FEATURES}
# Number of records looked up in one call.
CHUNK = 8
# Values kept per record in addition to the positions of its arrays.
_SIZES = ("num_samples", "num_frames")
# At the end of Python, how long there must be no call, and how long to wait for that at most.
_QUIET_SECONDS = 0.5
_LONGEST_SECONDS = 10.0


class _Exit:
    """Stops the reading when Python ends, even if a dataset is still being iterated over.

    TensorFlow's threads call Python to fill their buffers. Once Python is ending, such a call never
    returns, and ending Python waits for it.
    """

    def __init__(self) -> None:
        self._last_call = -math.inf
        self._ending = False
        atexit.register(self._end)

    def check(self) -> None:
        """Notes a call; raises RuntimeError if Python is ending."""
        self._last_call = time.monotonic()
        if self._ending:
            raise RuntimeError("Python is ending")

    def _end(self) -> None:
        self._ending = True
        # The threads fail one after the other, each at its next call.
        limit = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < min(limit, self._last_call + _QUIET_SECONDS):
            time.sleep(_QUIET_SECONDS / 10)


_exit = _Exit()


class MappedShards:
    """The shards of a split.

    Args:
        split: split to read, with whole local shards.
        names: names of the arrays to read.
        frames: number of frames in a window; a window has 64 times as many samples.

    Attributes:
        records: number of records of each non-empty shard, in the order of `split.paths`.

    Raises:
        OSError: there are more shards than this process may have open.
    """

    def __init__(self, split: splits.Split, names: Sequence[str], frames: int) -> None:
        self._names = tuple(names)
        self._frames = frames
        self._num_sources = split.info.num_sources
        found = [shard for shard in split.shards if shard.records]
        self.records = [shard.records for shard in found]
        paths = [storage.join(split.folder, shard.name) for shard in found]
        self._layouts = [_Layout(name, frames, self._num_sources) for name in self._names]
        self._shards = [_Shard(path, self._names) for path in paths]

    def counts(self, shard: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Returns the number of windows of each record of a chunk, int64 `[record]`.

        Args:
            shard: index of the shard, int64.
            chunk: index of the chunk in the shard, in chunks of `CHUNK` records.

        Raises:
            ValueError: a record is damaged; the message names it.
        """
        _exit.check()
        first = int(chunk) * CHUNK
        last = min(first + CHUNK, self.records[int(shard)])
        return -(-self._shards[int(shard)].rows(first, last)[:, 1] // self._frames)

    def batch(self, windows: np.ndarray) -> list[np.ndarray]:
        """Returns the arrays of a batch.

        Args:
            windows: shard, record and window in the record of each, int64 `[batch, 3]`.

        Returns:
            For each name the stored values `[batch, ...]` (bits as 0 and 1), zero-padded at the
            end; then the mask of valid frames, uint8 `[batch, frame]`.
        """
        _exit.check()
        made = [np.zeros((len(windows), *self.shape(name)), dtype(name)) for name in self._names]
        mask = np.zeros((len(windows), self._frames), np.uint8)
        for number, (shard, record, window) in enumerate(windows.tolist()):
            num_samples, num_frames, *places = self._shards[shard].row(record)
            start = window * self._frames
            mask[number, : num_frames - start] = 1
            lengths = {"N": num_samples, "T": num_frames}
            for layout, place, batch in zip(self._layouts, places, made, strict=True):
                layout.cut(self._shards[shard].data, place, lengths, start, batch[number])
        return [*made, mask]

    def shape(self, name: str) -> list[int]:
        """Returns the shape of one window of a feature."""
        lengths = {"N": self._frames * schema.HOP, "T": self._frames}
        sizes = {**_fixed_sizes(self._num_sources), **lengths}
        return [sizes[axis] for axis in _FEATURES[name].axes]


class _Layout:
    """Layout of a feature's array: rows before the time axis, values after it.

    Args:
        name: name of the feature.
        frames: number of frames in a window.
        num_sources: number of voices.
    """

    def __init__(self, name: str, frames: int, num_sources: int) -> None:
        feature, sizes = _FEATURES[name], _fixed_sizes(num_sources)
        place = next(i for i, letter in enumerate(feature.axes) if letter in "TN")
        self._axis = feature.axes[place]
        self._step = schema.HOP if self._axis == "N" else 1
        self._frames = frames
        self._rows = math.prod(sizes[axis] for axis in feature.axes[:place])
        self._width = math.prod(sizes[axis] for axis in feature.axes[place + 1 :])
        assert feature.encoding is not None
        self._bits = feature.encoding.packed
        self._dtype = dtype(name)

    def cut(
        self, data: np.ndarray, place: int, lengths: dict[str, int], start: int, window: np.ndarray
    ) -> None:
        """Copies one window of a feature.

        Args:
            data: bytes of the shard.
            place: offset of the array.
            lengths: samples and frames of the mixture.
            start: first frame of the window.
            window: output, filled from its beginning; the rest is left as it is.
        """
        length, first = lengths[self._axis], start * self._step
        count = max(min(self._frames * self._step, length - first), 0) * self._width
        flat = window.reshape(self._rows, -1)
        for row in range(self._rows):
            begin = (row * length + first) * self._width
            if self._bits:
                held = data[place + begin // 8 : place + (begin + count + 7) // 8]
                flat[row, :count] = np.unpackbits(held)[begin % 8 : begin % 8 + count]
            else:
                size = self._dtype.itemsize
                held = data[place + begin * size : place + (begin + count) * size]
                flat[row, :count] = held.view(self._dtype)


class _Shard:
    """One shard: its bytes, and the positions in the records read so far.

    Args:
        path: path of the file.
        names: names of the arrays to find.
    """

    def __init__(self, path: str, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._lock = threading.Lock()
        self._rows = np.zeros((0, len(_SIZES) + len(names)), np.int64)
        self._known = 0
        # Opened now, so that too many files are an error before the training begins.
        mapped = open_files.map_file(path)
        self.data = np.frombuffer(mapped, np.uint8)
        self._records = tfrecord.read(cast(BinaryIO, mapped))

    def row(self, record: int) -> list[int]:
        """Returns sizes (`num_samples`, `num_frames`) and array positions of a record."""
        if record >= self._known:
            self.rows(record, record + 1)
        return self._rows[record].tolist()

    def rows(self, first: int, last: int) -> np.ndarray:
        """Returns the rows of several records, int64 `[record, column]`."""
        if last > self._known:
            with self._lock:
                while last > self._known:
                    self._read_one()
        return self._rows[first:last]

    def _read_one(self) -> None:
        try:
            offset, record = next(self._records)
            spans = tfrecord.spans(record)
            sizes = [tfrecord.integer(record, spans[name]) for name in _SIZES]
            places = [offset + spans[name][0] for name in self._names]
        except (ValueError, KeyError, IndexError, StopIteration) as error:
            raise ValueError(f"{self._path} is damaged at record {self._known}: {error}") from error
        if self._known == len(self._rows):
            grown = np.zeros((max(64, 2 * len(self._rows)), self._rows.shape[1]), np.int64)
            grown[: self._known] = self._rows
            self._rows = grown
        self._rows[self._known] = sizes + places
        self._known += 1


def _fixed_sizes(num_sources: int) -> dict[str, int]:
    """Lengths of the axes that are the same in every mixture."""
    return {"S": num_sources, "K": schema.num_stored_masks(num_sources), "F": schema.NUM_BINS}


def dtype(name: str) -> np.dtype:
    """Stored dtype of a feature; bits as uint8."""
    encoding = _FEATURES[name].encoding
    assert encoding is not None
    return np.dtype(encoding.dtype).newbyteorder("<")
