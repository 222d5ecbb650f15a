"""Recordings as a worker needs them: at the dataset's rate, and kept for their next mixture."""

import dataclasses
import hashlib
import io
import threading

import cachetools
import numpy as np

from pipeline import errors
from pipeline.audio import decoding, limits
from pipeline.io import storage

# Recordings are voices of several mixtures; what a worker keeps of them, decoded, in bytes (an hour
# at 8 kHz is 115 MB), and the longest that is kept.
_KEPT_BYTES = 2**27
_LONGEST_KEPT_SECONDS = 60
_kept: cachetools.LRUCache[tuple[str, int], np.ndarray] = cachetools.LRUCache(
    _KEPT_BYTES, getsizeof=lambda samples: samples.nbytes
)
# Some runners' workers are threads.
_kept_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Recording:
    """What writing needs of a recording: where, whose, and the SHA-256 of the file."""

    path: str
    speaker: str
    sex: str
    sha256: str


def load(recording: Recording, sample_rate: int, num_samples: int) -> np.ndarray:
    """A recording at the dataset's rate, the mean of its channels, cut at its end.

    The last ones are kept in memory, by their SHA-256, until `forget`.

    Args:
        recording: which.
        sample_rate: of the dataset, Hz.
        num_samples: that are wanted.

    Returns:
        Float32 `[sample]`, full scale 1, read-only: the first `num_samples`, or all where there are
        fewer.

    Raises:
        UserError: it cannot be read, or is not the one that the plan was made for.
    """
    key = (recording.sha256, sample_rate)
    with _kept_lock:
        kept = _kept.get(key)
    if kept is not None:
        return kept[:num_samples]
    data = storage.read_bytes(recording.path)
    if hashlib.sha256(data).hexdigest() != recording.sha256:
        raise errors.UserError(
            f"{recording.path}: has changed since it was inspected; run the same command again"
        )
    try:
        # The inspection has compared FLAC's own checksum.
        with decoding.Reader(io.BytesIO(data), verify=False) as reader:
            longest = _LONGEST_KEPT_SECONDS * reader.rate
            blocks: list[np.ndarray] = []
            done = 0
            for block in reader.blocks():
                blocks.append(decoding.mean_channel(block))
                done += len(block)
                # Where nothing is resampled, what will be cut off need not be decoded.
                cut = reader.rate == sample_rate and done >= num_samples
                if cut and max(done, reader.num_samples or 0) > longest:
                    break
            short = max(done, reader.num_samples or 0) <= longest
    except (decoding.AudioError, limits.MissingDecoderError) as error:
        raise errors.UserError(f"{recording.path}: {error}") from error
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    samples = decoding.resample(samples, reader.rate, sample_rate)
    samples.flags.writeable = False
    if short:
        with _kept_lock:
            # Contiguous: a view would keep all channels.
            _kept[key] = np.ascontiguousarray(samples)
    return samples[:num_samples]


def forget() -> None:
    """Lets go of the recordings that this process has kept, decoded."""
    with _kept_lock:
        _kept.clear()
