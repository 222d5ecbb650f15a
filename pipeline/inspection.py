"""Inspects a recording: returns its facts, or the reason why it is rejected."""

import dataclasses
import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pipeline import errors, features
from pipeline.audio import decoding, limits
from pipeline.corpora import corpus
from pipeline.io import storage

# Below this active level (a mean square below the rounding noise of 16 bits), nothing is audible.
SILENCE_DB = -100.0


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What the plan needs to know about a recording.

    Attributes:
        utterance: the utterance in the corpus.
        num_samples: at the dataset's rate.
        peak: largest absolute sample at the dataset's rate; full scale 1.
        active_level_db: in dB, where 0 dB is a mean square of 1.
        sha256: SHA-256 of the file, hexadecimal.
        file_bytes: size of the file.
        file_rate: sample rate of the file in Hz.
        notes: what a user should know about how it was read.
    """

    utterance: corpus.Utterance
    num_samples: int
    peak: float
    active_level_db: float
    sha256: str
    file_bytes: int
    file_rate: int
    notes: tuple[str, ...] = ()


def inspect(
    utterance: corpus.Utterance,
    rate: int,
    keep: Callable[[np.ndarray, str], None] | None = None,
) -> Facts | corpus.Rejection:
    """Reads a recording once, checks and measures it.

    Short recordings are not rejected here: the plan leaves them out by `num_samples`.

    Args:
        utterance: whose file is read.
        rate: sample rate of the dataset in Hz.
        keep: called with the samples and the SHA-256 of a usable recording.

    Returns:
        Its facts, or why it is rejected: it does not exist, is empty, not audio, cut short or
        damaged, has a wrong header, or holds NaN, only silence, or one value throughout.

    Raises:
        UserError: it may be good, but cannot be read for another reason: a failing disk or store,
            permissions, or a decoder that is not installed.
    """
    notes: list[str] = []
    found = read(utterance.path, rate, notes)
    if isinstance(found, corpus.Rejection):
        return found
    data, samples, level, file_rate = found
    sha256 = hashlib.sha256(data).hexdigest()
    if keep is not None:
        keep(samples, sha256)
    return Facts(
        utterance=utterance,
        num_samples=len(samples),
        peak=float(np.abs(samples).max()),
        active_level_db=level,
        sha256=sha256,
        file_bytes=len(data),
        file_rate=file_rate,
        notes=tuple(notes),
    )


class Recording(NamedTuple):
    """A usable recording.

    Attributes:
        data: the bytes of its file.
        samples: float32 `[sample]`, full scale 1.
        active_level_db: its active level.
        file_rate: sample rate of the file, in Hz.
    """

    data: bytes
    samples: np.ndarray
    active_level_db: float
    file_rate: int


def read(path: str, rate: int, notes: list[str] | None = None) -> Recording | corpus.Rejection:
    """Reads a recording at a sample rate (Hz), or returns why it is rejected.

    `notes` gets notes on how the file was read.

    Raises:
        UserError: as `inspect`.
    """
    try:
        data = storage.read_bytes(path)
        return Recording(data, *decode(data, rate, notes))
    except storage.ReadError as error:
        return rejection(path, error)
    except decoding.AudioError as error:
        return corpus.Rejection(path, str(error))
    except limits.MissingDecoderError as error:
        raise errors.UserError(f"{path}: {error}") from error


def read_speech(path: str, rate: int, least: int = 0) -> np.ndarray:
    """Returns a recording at a sample rate (Hz), float32 `[sample]`.

    Raises:
        UserError: it cannot be read, or its file has fewer than `least` samples a second.
    """
    try:
        samples, file_rate = decoding.decode(storage.read_bytes(path))
    except (decoding.AudioError, limits.MissingDecoderError) as error:
        raise errors.UserError(f"{path}: {error}") from error
    if file_rate < least:
        raise errors.UserError(f"{path} has {file_rate} Hz; {least} are needed")
    return decoding.resample(samples, file_rate, rate)


def rejection(path: str, error: storage.ReadError) -> corpus.Rejection:
    """Returns the rejection of a bad file; raises the error if the file is not the cause."""
    if error.cause is not storage.Cause.FILE:
        raise error
    return corpus.Rejection(path, error.reason)


def decode(data: bytes, rate: int, notes: list[str] | None = None) -> tuple[np.ndarray, float, int]:
    """Decodes a recording and checks that it is not silent.

    Args:
        data: the file's bytes.
        rate: desired rate, Hz.
        notes: a list to which notes on how the file was read are appended.

    Returns:
        float32 `[sample]` at `rate`, its active level in dB, and the file's own rate in Hz.

    Raises:
        AudioError: it cannot be used; the message says why.
    """
    samples, file_rate = decoding.decode(data, notes=notes)
    _check(samples)
    samples = decoding.resample(samples, file_rate, rate)
    if not np.isfinite(np.abs(samples).max(initial=0.0)):
        raise decoding.AudioError("its samples are larger than 32-bit numbers hold")
    level = features.active_level_db(samples)
    if not level >= SILENCE_DB:
        raise decoding.AudioError("silent")
    return samples, level, file_rate


def _check(samples: np.ndarray) -> None:
    low, high = samples.min(), samples.max()
    if low == high:
        value = "silent" if low == 0 else f"the one value {low:.6g} throughout"
        raise decoding.AudioError(value)
