"""Loads recordings for a worker, at the dataset's rate, and caches them for later mixtures."""

import dataclasses
import hashlib
import io
import threading

import cachetools
import numpy as np

from pipeline import errors
from pipeline.audio import decoding, limits
from pipeline.dataset import inspection_cache
from pipeline.io import storage

# Recordings occur in several mixtures. The size in bytes of a worker's cache of decoded recordings
# (an hour at 8 kHz is 115 MB), and the length of the longest that it keeps.
_KEPT_BYTES = 2**27
_LONGEST_KEPT_SECONDS = 60
_kept: "cachetools.LRUCache[tuple[str, int], _Kept]" = cachetools.LRUCache(
    _KEPT_BYTES, getsizeof=lambda kept: kept.samples.nbytes
)
# The workers of some runners are threads.
_kept_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a shard's plan says about a recording: path, speaker, and SHA-256 of the file."""

    path: str
    speaker: str
    sex: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class _Kept:
    """A decoded recording; if it has a stamp, it is valid while the file at `path` has that, too.

    Those that this process loaded for the same step have none.
    """

    samples: np.ndarray
    path: str = ""
    stamp: tuple[int, int] | None = None

    def is_valid(self, path: str) -> bool:
        if self.stamp is None:
            return True
        return self.path == path and self.stamp == inspection_cache.stamp(path)


def load(recording: Recording, sample_rate: int, num_samples: int) -> np.ndarray:
    """Loads a recording at the dataset's rate, as the mean of its channels, cut at its end.

    Recent recordings are cached in memory, by their SHA-256, until `forget`.

    Args:
        recording: which one.
        sample_rate: sample rate of the dataset in Hz.
        num_samples: maximum length.

    Returns:
        Float32 `[sample]`, full scale 1, read-only: the first `num_samples`, or all if there are
        fewer.

    Raises:
        UserError: it cannot be read, or has changed since the plan was made.
    """
    key = (recording.sha256, sample_rate)
    with _kept_lock:
        kept = _kept.get(key)
    if kept is not None and kept.is_valid(recording.path):
        return kept.samples[:num_samples]
    data = storage.read_bytes(recording.path)
    if hashlib.sha256(data).hexdigest() != recording.sha256:
        raise errors.UserError(
            f"{recording.path}: has changed since it was inspected; run the same command again"
        )
    try:
        # The inspection has already verified FLAC's own checksum.
        with decoding.Reader(io.BytesIO(data), verify=False) as reader:
            longest = _LONGEST_KEPT_SECONDS * reader.rate
            blocks: list[np.ndarray] = []
            done, whole = 0, True
            for block in reader.blocks():
                blocks.append(decoding.mean_channel(block))
                done += len(block)
                # Without resampling, the part that will be cut off need not be decoded.
                cut = reader.rate == sample_rate and done >= num_samples
                if cut and max(done, reader.num_samples or 0) > longest:
                    whole = False
                    break
    except (decoding.AudioError, limits.MissingDecoderError) as error:
        raise errors.UserError(f"{recording.path}: {error}") from error
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    samples = decoding.resample(samples, reader.rate, sample_rate)
    samples.flags.writeable = False
    if whole:
        keep(samples, recording.sha256, sample_rate)
    return samples[:num_samples]


def keep(
    samples: np.ndarray,
    sha256: str,
    sample_rate: int,
    path: str = "",
    stamp: tuple[int, int] | None = None,
) -> None:
    """Caches a whole recording for `load` unless it is long.

    Args:
        samples: float32 `[sample]`; they become read-only.
        sha256: SHA-256 of the file, hexadecimal.
        sample_rate: sample rate of the samples in Hz.
        path: path of the file.
        stamp: the file's `inspection_cache.stamp`; it is read again when that has changed.
    """
    if len(samples) <= _LONGEST_KEPT_SECONDS * sample_rate:
        # Contiguous, since a view would keep all channels in memory.
        samples = np.ascontiguousarray(samples)
        samples.flags.writeable = False
        with _kept_lock:
            _kept[sha256, sample_rate] = _Kept(samples, path, stamp)


def forget() -> None:
    """Empties this process's cache of decoded recordings."""
    with _kept_lock:
        _kept.clear()
