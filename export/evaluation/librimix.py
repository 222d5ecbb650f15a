"""Reads external test sets: folders of mixtures and their voices, laid out as in LibriMix.

    FOLDER/mix_clean/A.wav    FOLDER/s1/A.wav    FOLDER/s2/A.wav    (FOLDER/noise/A.wav)

Folders named `mix`, `mix_both` and `s3` (WSJ0-2mix, WHAM!, Libri3Mix) are read as well. The path
may be FOLDER, a folder above FOLDERs named after splits, or, where there are several folders of
mixtures, one of them.

The mixture is read from its own file. Voices whose level in the mixture differs from that in their
own files are scaled to match; the remainder of the mixture is noise.
"""

import dataclasses
import hashlib
import os
import posixpath
import re
from collections.abc import Iterator, Sequence

import numpy as np
from absl import logging

from export.evaluation.dataset_mixtures import Mixture
from pipeline import errors, features, schema
from pipeline.audio import decoding, folders
from pipeline.corpora import layouts
from pipeline.dataset import dataset
from pipeline.io import atomic, storage

# Power of a mixture's residual without its voices and noise; 16-bit rounding is below -60.
_UNEXPLAINED_DB = -30.0
_NOISE = "noise"
# LibriMix's file names consist of LibriSpeech utterance names, which begin with the speaker.
_LIBRISPEECH = re.compile(r"\d+-\d+-\d+(_\d+-\d+-\d+)+")
# Abbreviations used by WSJ0-2mix and WHAM!.
_SPLITS = {"tr": "train", "cv": "valid", "tt": "test"}


@dataclasses.dataclass(frozen=True)
class Set:
    """One set of mixtures.

    Attributes:
        folder: the folder that holds it.
        mixed: name of the folder of mixtures in use.
        files: for each mixture, its paths within the folder by part (`mix_clean`, `s1`, …), ordered
            so that the first ones are always a fair sample.
    """

    folder: str
    mixed: str
    files: dict[str, dict[str, str]]

    @property
    def voices(self) -> list[str]:
        """Names of the voices' folders."""
        parts = next(iter(self.files.values()))
        return sorted(part for part in parts if part not in (self.mixed, _NOISE))


class Info(dataset.DatasetInfo, frozen=True):
    """Describes a set of mixtures as a dataset; `plan_digest` covers names, sizes and rate."""

    set: Set | None = None


def find(folder: str) -> tuple[str, Sequence[layouts.MixtureSet]]:
    """Finds the sets of mixtures in a folder, or beside it if it is itself a folder of mixtures.

    Returns:
        The folder that their paths are relative to, and the sets; no sets if the folder is a
        dataset or something else.
    """
    if atomic.exists(storage.join(folder, schema.INFO_FILE)):
        return folder, ()
    try:
        found = layouts.mixture_sets(_recordings(folder))
        above, _, name = folder.rstrip("/").rpartition("/")
        if found or not above or not layouts.is_of_mixtures(name):
            return folder, found
        beside = layouts.mixture_sets(_recordings(above))
    except storage.ReadError as error:
        if error.cause is not storage.Cause.FILE:
            raise
        return folder, ()
    found = [one for one in beside if not one.above]
    return above, [dataclasses.replace(one, mixed=(name,)) for one in found]


def read_info(folder: str, split: str, rate: int | None = None) -> Info | None:
    """Describes a folder of mixtures in the form in which the evaluator reads a dataset.

    Args:
        folder: the set's folder, or a folder above sets named after splits.
        split: the split to read; ignored for a single set.
        rate: rate in Hz to which recordings are resampled; None for that of the first one.

    Returns:
        The info, or None if the folder holds no set of mixtures.

    Raises:
        UserError: there is no such split, the choice of set is ambiguous, or a voice is missing.
    """
    root, found = find(folder)
    if not found:
        return None
    by_split: dict[str, list[layouts.MixtureSet]] = {}
    for one in found:
        by_split.setdefault(_split_of(one.above), []).append(one)
    if len(found) == 1 and (not found[0].above or "" in by_split):
        by_split = {split: list(found)}
    chosen = by_split.get(split) or by_split.get("")
    if chosen is None:
        there = ", ".join(by_split)
        raise errors.UserError(f"{folder} has no mixtures in split {split}; it has {there}")
    if len(chosen) > 1:
        where = ", ".join(one.above for one in chosen)
        raise errors.UserError(f"{folder} holds several sets of mixtures ({where}); name one")
    return _info(_open(root, chosen[0]), split, rate)


def read(info: Info, limit: int | None = None) -> Iterator[Mixture]:
    """Yields the mixtures of a set, with one in memory at a time.

    At the end, a warning tells how many mixtures contain something other than the voices.

    Args:
        info: the result of `read_info`.
        limit: maximum number of mixtures; None for all.

    Raises:
        UserError: a recording cannot be read.
    """
    assert info.set is not None
    other, moved = [], []
    names = list(info.set.files)[:limit]
    for name in names:
        mixture, unexplained, gains = _read_one(info.set, name, info.sample_rate)
        if unexplained > _UNEXPLAINED_DB:
            other.append(f"{name}: {unexplained:.0f} dB")
        elif gains is not None:
            levels = ", ".join(f"{20 * np.log10(gain):+.1f} dB" for gain in gains)
            moved.append(f"{name}: {levels}")
        yield mixture
    where = f"{info.set.folder}: in {{}} of {len(names)} mixtures of {info.set.mixed}"
    if other:
        logging.warning(
            "%s there is something else than the voices and noise (%s of the mixture); it counts "
            "as noise", where.format(len(other)), other[0],
        )  # fmt: skip
    if moved:
        logging.warning(
            "%s the voices have another level than in their own files (%s); they are brought to it",
            where.format(len(moved)), moved[0],
        )  # fmt: skip


def _recordings(folder: str) -> list[str]:
    return folders.sort(folder, storage.list_files(folder).files)[0]


def _split_of(above: str) -> str:
    for part in reversed(above.split("/")):
        split = _SPLITS.get(part.lower()) or layouts.split_of(part)
        if split:
            return split
    return ""


def _open(root: str, found: layouts.MixtureSet) -> Set:
    folder = storage.join(root, found.above) if found.above else root
    whole = [name for name in found.mixed if name != "mix_single"] or list(found.mixed)
    mixed = "mix_clean" if "mix_clean" in whole else whole[0]
    if len(whole) > 1:
        print(f"{folder}: {mixed} is taken of {', '.join(whole)}; name another's folder to take it")
    parts: dict[str, dict[str, str]] = {part: {} for part in (mixed, *found.voices, _NOISE)}
    for path in _recordings(folder):
        part, _, name = path.partition("/")
        if part in parts:
            parts[part][posixpath.splitext(name)[0]] = path
    for part, own in parts.items():
        missing = sorted(parts[mixed].keys() - own.keys()) if part != _NOISE else []
        if missing:
            more = f" (and {len(missing) - 1:,d} more)" if missing[1:] else ""
            raise errors.UserError(f"{folder}: {part} lacks {missing[0]}{more}, which {mixed} has")
        further = len(own.keys() - parts[mixed].keys())
        if further:
            print(f"{folder}: {further:,d} recordings of {part} are in no mixture of {mixed}")
    names = sorted(parts[mixed], key=lambda name: hashlib.sha256(name.encode()).digest())
    files = {n: {part: own[n] for part, own in parts.items() if n in own} for n in names}
    return Set(folder, mixed, files)


def _info(one: Set, split: str, rate: int | None) -> Info:
    first = next(iter(one.files.values()))[one.mixed]
    rate = rate or _decode(storage.join(one.folder, first))[1]
    digest = hashlib.sha256(f"{one.mixed}\0{rate}\n".encode())
    for name, paths in one.files.items():
        sizes = [_size(storage.join(one.folder, path)) for path in paths.values()]
        digest.update(f"{name}\0{sizes}\n".encode())
    return Info(
        schema_version=schema.SCHEMA_VERSION,
        config={"sample_rate": rate, "num_sources": len(one.voices), "masks": []},
        splits={split: dataset.SplitInfo(len(one.files), 0, 0.0, 0, ())},
        mean=None,
        deviation=None,
        active_level_db=None,
        plan_digest=digest.hexdigest(),
        versions={},
        created="",
        set=one,
    )


def _size(path: str) -> int | None:
    return None if storage.is_remote(path) else os.path.getsize(path)


def _decode(path: str) -> tuple[np.ndarray, int]:
    try:
        return decoding.decode(storage.read_bytes(path))
    except decoding.AudioError as error:
        raise errors.UserError(f"{path}: {error}") from error


def _read_one(one: Set, name: str, rate: int) -> tuple[Mixture, float, np.ndarray | None]:
    """Returns a mixture, its residual relative to it in dB, and the gains if they are not 1."""
    signals = {
        part: decoding.resample(*_decode(storage.join(one.folder, path)), rate)
        for part, path in one.files[name].items()
    }
    whole = signals.pop(one.mixed).astype(np.float64)
    parts = np.zeros((len(signals), len(whole)))
    names = [*one.voices, *([_NOISE] if _NOISE in signals else [])]
    for row, part in zip(parts, names, strict=True):
        # One part may be padded to the longest voice and another not.
        samples = signals[part][: len(whole)]
        row[: len(samples)] = samples
    voices = parts[: len(one.voices)]
    unexplained, gains = _compare(whole, voices, parts)
    if gains is not None:
        voices = voices * gains[:, np.newaxis]
    peak = max(np.abs(whole).max(initial=0), np.abs(voices).max(initial=0))
    # Floating-point recordings may exceed the 16-bit range.
    scale = schema.FULL_SCALE * (0.98 / peak if peak > 0.99 else 1.0)
    sources = np.rint(voices * scale).astype(np.int16)
    noise = np.rint(whole * scale).astype(np.int32) - sources.sum(axis=0, dtype=np.int32)
    # Each voice is rounded separately.
    clean = np.abs(noise).max(initial=0) <= len(sources)
    speakers = _speakers(name, one.voices)
    waveform = (whole * (scale / schema.FULL_SCALE)).astype(np.float32)
    mixture = Mixture(
        id=name,
        speakers=speakers,
        sexes=("",) * len(speakers),
        rate=rate,
        sources=sources,
        log_magnitude=features.log_magnitude(features.stft(waveform)),
        utterances=tuple(f"{part}/{name}" for part in one.voices),
        noise=None if clean else noise,
    )
    return mixture, unexplained, gains


def _compare(
    whole: np.ndarray, voices: np.ndarray, parts: np.ndarray
) -> tuple[float, np.ndarray | None]:
    """Returns a mixture's residual without its parts, in dB, and the voices' gains if not 1.

    Args:
        whole: float64 `[sample]`.
        voices: float64 `[source, sample]`.
        parts: the voices, and the noise if there is any, float64 `[part, sample]`.
    """
    power = float(whole @ whole)

    def left(estimate: np.ndarray) -> float:
        rest = whole - estimate
        return 10 * np.log10(max(float(rest @ rest), 1e-12 * power) / power) if power else -120.0

    plain = min(left(voices.sum(axis=0)), left(parts.sum(axis=0)))
    if plain <= _UNEXPLAINED_DB:
        return plain, None
    gains = np.linalg.lstsq(parts.T, whole, rcond=None)[0]
    fitted = left(gains @ parts)
    gains = gains[: len(voices)]
    if fitted <= _UNEXPLAINED_DB and (gains > 0).all():
        return fitted, gains
    return plain, None


def _speakers(name: str, voices: Sequence[str]) -> tuple[str, ...]:
    stem = posixpath.basename(name)
    if _LIBRISPEECH.fullmatch(stem) and stem.count("_") == len(voices) - 1:
        return tuple(utterance.split("-")[0] for utterance in stem.split("_"))
    return tuple(f"{part}/{name}" for part in voices)
