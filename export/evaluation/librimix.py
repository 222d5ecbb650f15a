"""Other projects' test sets: folders of mixtures and of their voices, as LibriMix has them.

    FOLDER/mix_clean/A.wav    FOLDER/s1/A.wav    FOLDER/s2/A.wav    (FOLDER/noise/A.wav)

`mix`, `mix_both` and `s3` likewise (WSJ0-2mix, WHAM!, Libri3Mix). FOLDER, or folders below that are
named after splits, may be given, or one of the folders of mixtures where there are several.

The mixture is the file of the mixture. Voices that have another level there than in their own files
are brought to it; what then is neither of the voices is noise.
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

# Power of what is left of a mixture without its voices and noise; 16 bits' rounding is below -60.
_UNEXPLAINED_DB = -30.0
_NOISE = "noise"
# LibriMix's file names: the utterances of LibriSpeech, which begin with the speaker.
_LIBRISPEECH = re.compile(r"\d+-\d+-\d+(_\d+-\d+-\d+)+")
# WSJ0-2mix and WHAM! abbreviate.
_SPLITS = {"tr": "train", "cv": "valid", "tt": "test"}


@dataclasses.dataclass(frozen=True)
class Set:
    """One set of mixtures.

    Attributes:
        folder: that holds it.
        mixed: name of the folder of mixtures that is taken.
        files: of each mixture the paths within the folder by part (`mix_clean`, `s1`, …), in an
            order of which any beginning is a fair sample.
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
    """A set of mixtures told in a dataset's terms; `plan_digest` is of names, sizes and rate."""

    set: Set | None = None


def find(folder: str) -> tuple[str, Sequence[layouts.MixtureSet]]:
    """The sets of mixtures in a folder, or beside it where it is a folder of mixtures itself.

    Returns:
        The folder that their paths are relative to, and the sets; none where it is a dataset or
        something else.
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
    """What the evaluator asks of a dataset, for a folder of mixtures.

    Args:
        folder: of the set, or above sets that are named after splits.
        split: which of these; of a single set any.
        rate: in Hz, to which recordings are resampled; None for that of the first.

    Returns:
        None where the folder holds no set of mixtures.

    Raises:
        UserError: it has no such split, several sets could be meant, or a voice is missing.
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
    """The mixtures of a set, one in memory at a time.

    When all have been read, a warning says in how many something else was found than the voices.

    Args:
        info: of `read_info`.
        limit: how many at most; None for all.

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
    """A mixture, what is neither voice nor noise in dB of it, and gains where they are not 1."""
    signals = {
        part: decoding.resample(*_decode(storage.join(one.folder, path)), rate)
        for part, path in one.files[name].items()
    }
    whole = signals.pop(one.mixed).astype(np.float64)
    parts = np.zeros((len(signals), len(whole)))
    names = [*one.voices, *([_NOISE] if _NOISE in signals else [])]
    for row, part in zip(parts, names, strict=True):
        # Padded to the longest voice in one part, and not in the other.
        samples = signals[part][: len(whole)]
        row[: len(samples)] = samples
    voices = parts[: len(one.voices)]
    unexplained, gains = _compare(whole, voices, parts)
    if gains is not None:
        voices = voices * gains[:, np.newaxis]
    peak = max(np.abs(whole).max(initial=0), np.abs(voices).max(initial=0))
    # Recordings of floating-point numbers may exceed what 16 bits hold.
    scale = schema.FULL_SCALE * (0.98 / peak if peak > 0.99 else 1.0)
    sources = np.rint(voices * scale).astype(np.int16)
    noise = np.rint(whole * scale).astype(np.int32) - sources.sum(axis=0, dtype=np.int32)
    # Each voice is rounded by itself.
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
    """How far a mixture is from the sum of its parts, in dB of it, and the voices' gains if not 1.

    Args:
        whole: float64 `[sample]`.
        voices: float64 `[source, sample]`.
        parts: the voices, and noise where there is any, float64 `[part, sample]`.
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
