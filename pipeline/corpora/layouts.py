"""Finds the speakers' folders of a corpus by the paths of its files.

Other folders are refused, since a dataset made of them would be nonsense: the parts of a set of
mixtures (`mix_clean`, `s1`, `s2`, `noise`), kinds of recordings (`clean`, `noisy`, `music`), splits
and formats beside folders of another kind, and folders that hold the same recordings twice, for
example clean and noisy.
"""

import collections
import dataclasses
import io
import itertools
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pipeline import columns, errors
from pipeline.audio import folders
from pipeline.corpora import manifest, utterance_table
from pipeline.io import storage

_SUBSET = re.compile(r"(train|dev|valid|validation|test|eval)([-_].*)?", re.IGNORECASE)
# Folders of one format, which contain the speakers' folders: VCTK's wav48_silence_trimmed.
_FORMAT = re.compile(
    r"(wave?s?|flac|aac|m4a|mp3|ogg|opus|audio|clips)\d*k?(hz)?(_silence_trimmed)?", re.IGNORECASE
)
_VOXCELEB = re.compile(r"(?:(?P<above>.*)/)?(?P<speaker>id\d{5})/[^/]{11}/[^/]+")
# VoxCeleb's `dev` is its training set.
_VOXCELEB_PART = re.compile(r"(?:vox[12]_)?(dev|test)(?:[-_].*)?", re.IGNORECASE)
_VOXCELEB_SPLITS = {"dev": "train", "test": "test"}
_MIXTURES = re.compile(r"mix([-_].*)?|mixtures?", re.IGNORECASE)
_VOICE = re.compile(r"s\d", re.IGNORECASE)
_KIND = re.compile(
    r"(clean|nois[ey]|noises|music|babble|reverb|reverberant|rirs?|mix|mixed|mixtures?|speech)"
    r"([-_].*)?",
    re.IGNORECASE,
)
_MICROPHONE = re.compile(r"(?P<name>.*[-_]mic)(?P<number>\d+)")

# How many names, folders and seconds are compared to see if two folders hold the same recordings.
_NAMES, _FOLDERS, _SECONDS = 4, 8, 10
# Over seconds, speech of two people has a correlation of 0.1 at most; with noise 10 dB above the
# voice, or a second voice 9 dB above it, 0.3 is left.
_SAME = 0.3


@dataclasses.dataclass(frozen=True)
class Levels:
    """The levels of folders in a corpus's paths, counted from 0.

    Attributes:
        speaker: level of the speakers' folders.
        subset: level of the splits' folders, or None if there are none.
    """

    speaker: int
    subset: int | None = None


def levels(files: Iterable[str]) -> Levels:
    """Finds the level of the speakers' folders.

    Above them there may be subsets, a folder of one format (VCTK's `wav48_silence_trimmed`), and
    one that contains everything (`LibriSpeech`, if there are only subsets in it).

    Args:
        files: paths of recordings relative to the corpus's folder.
    """
    folders = {tuple(path.split("/")[:-1]) for path in files}
    subset = None
    for level in itertools.count():
        here = {parts[level] for parts in folders if len(parts) > level}
        below = {parts[level + 1] for parts in folders if len(parts) > level + 1}
        alone = len(here) == 1
        if subset is None and here and all(map(_SUBSET.fullmatch, here)):
            subset = level
        elif not (
            (alone and all(map(_FORMAT.fullmatch, here)))
            or (alone and subset is None and below and all(map(_SUBSET.fullmatch, below)))
        ):
            return Levels(level, subset)
    raise AssertionError("unreachable")


def split_of(subset: str) -> str:
    """Returns the split that a subset's folder is named after; empty if it is not a subset."""
    match = _SUBSET.fullmatch(subset)
    return manifest.SPLIT_NAMES[match[1].lower()] if match else ""


def voxceleb(path: str) -> tuple[str, str] | None:
    """Returns speaker and split of one of VoxCeleb's recordings; None for other paths.

    They are in `idNNNNN/VIDEO/`, inside folders such as `vox1_dev_wav/wav`. A video is not a
    speaker.
    """
    match = _VOXCELEB.fullmatch(path)
    if match is None:
        return None
    for part in reversed((match["above"] or "").split("/")):
        subset = _VOXCELEB_PART.fullmatch(part)
        if subset:
            return match["speaker"], _VOXCELEB_SPLITS[subset[1].lower()]
    return match["speaker"], ""


def of_further_microphones(files: columns.Texts) -> dict[int, int]:
    """Finds recordings made with several microphones at once (VCTK: `_mic1`, `_mic2`).

    Args:
        files: paths of recordings.

    Returns:
        The rows of all but the first microphone, and for each the row of the first.
    """

    def split(path: str) -> tuple[str, int]:
        stem = folders.stem(path)
        match = _MICROPHONE.fullmatch(stem)
        return (match["name"], int(match["number"])) if match else (stem, 0)

    def part(rows: np.ndarray, place: int) -> Iterator[Any]:
        return (split(path)[place] for path in files.at(rows))

    return columns.repeats(len(files), lambda rows: part(rows, 0), lambda rows: part(rows, 1))


def refuse_one_of_voxceleb(folder: str) -> None:
    """Refuses the folder of one of VoxCeleb's speakers, whose videos would count as speakers.

    Raises:
        UserError: the message says which folder to name.
    """
    name = posixpath.basename(folder.rstrip("/"))
    if re.fullmatch(r"id\d{5}", name):
        raise errors.UserError(
            f"{folder}: this is one of VoxCeleb's speakers; name the folder above, which holds all"
        )


@dataclasses.dataclass(frozen=True)
class MixtureSet:
    """A folder with mixtures and, under the same names, their voices (LibriMix, WSJ0-2mix).

    Attributes:
        above: the folder, relative to the one that was listed; may be empty.
        mixed: names of its folders of mixtures, sorted: `mix`, or `mix_both` and `mix_clean`.
        voices: names of its folders of voices, sorted: `s1`, `s2` and so on.
    """

    above: str
    mixed: tuple[str, ...]
    voices: tuple[str, ...]


def is_of_mixtures(name: str) -> bool:
    """Returns whether a folder is named like one of mixtures: `mix`, `mix_clean`, `mix_both`."""
    return _MIXTURES.fullmatch(name) is not None


def mixture_sets(files: Iterable[str]) -> list[MixtureSet]:
    """Returns the sets of mixtures among files, sorted.

    Args:
        files: paths of recordings, relative to one folder.
    """
    parts: dict[str, set[str]] = collections.defaultdict(set)
    for path in files:
        above, _, name = posixpath.dirname(path).rpartition("/")
        parts[above].add(name)
    found = []
    for above, names in sorted(parts.items()):
        voices = tuple(sorted(filter(_VOICE.fullmatch, names)))
        mixed = tuple(sorted(filter(_MIXTURES.fullmatch, names)))
        if mixed and len(voices) > 1:
            found.append(MixtureSet(above, mixed, voices))
    return found


def refuse_mixtures(folder: str, files: Iterable[str]) -> None:
    """Refuses a set of mixtures and their voices, such as LibriMix and WSJ0-2mix.

    Args:
        folder: the corpus's folder.
        files: paths of recordings in it.

    Raises:
        UserError: the message says what to do with it.
    """
    for found in mixture_sets(files):
        where = storage.join(folder, found.above) if found.above else folder
        raise errors.UserError(
            f"{where}: holds mixtures and their voices ({', '.join(found.mixed + found.voices)}), "
            "not speakers' folders; name the corpus of clean recordings that they were made of; "
            f"python -m export.evaluate --data_dir={where} measures a model on them"
        )


def refuse_kinds(folder: str, names: Iterable[str]) -> None:
    """Refuses folders that are named after a split, a format or their content, not a speaker.

    One other folder beside a corpus's subsets would otherwise make each subset a speaker.

    Args:
        folder: the corpus's folder.
        names: names of the folders that would be speakers.

    Raises:
        UserError: the message names one, and says what to do.
    """
    for name in sorted(names):
        if any(pattern.fullmatch(name) for pattern in (_KIND, _SUBSET, _FORMAT)):
            raise errors.UserError(
                f"{folder}: its folder {name} would be a speaker's, but is named after a split, a "
                "format or a kind of recording; name folders that hold clean recordings alone, "
                "sorted by speaker (--input_dir may be repeated), or write a manifest "
                "(path,speaker,split)"
            )


def refuse_twins(folder: str, table: utterance_table.UtteranceTable, level: int) -> None:
    """Refuses folders that hold the same recordings, such as clean and noisy ones.

    Equal names in several folders are not enough: speakers may read the same sentences or number
    theirs. Some of those recordings are therefore compared.

    Args:
        folder: the corpus's folder.
        table: its utterances; an id is the path in it without endings.
        level: level of the speakers' folders in this path.

    Raises:
        UserError: the message names two folders, and says what to do.
    """

    def names(rows: np.ndarray) -> list[str]:
        return [name.split("/", level + 1)[-1] for name in table.ids.at(rows)]

    hashes = columns.hashes(len(table), names)
    rows = columns.repeated(hashes)
    if not rows.size:
        return
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    starts = np.flatnonzero(np.append(True, hashes[rows[1:]] != hashes[rows[:-1]]))
    speakers = table.speakers.codes[rows]
    differ = np.minimum.reduceat(speakers, starts) != np.maximum.reduceat(speakers, starts)
    shared = sorted(names(rows[starts[differ]]))
    found = []
    chosen = [shared[len(shared) * n // _NAMES] for n in range(min(_NAMES, len(shared)))]
    for name in dict.fromkeys(chosen):
        group = rows[hashes[rows] == hash(name)]
        own = dict(zip(table.speakers.at(group), table.paths(group), strict=True))
        pair = _same_pair(sorted(own.items())[:_FOLDERS])
        if pair:
            found.append((name, *pair))
    if found and 2 * len(found) >= len(chosen):
        name, first, second = found[0]
        raise errors.UserError(
            f"{folder}: its folders {first} and {second} hold the same recordings ({name}), so "
            "they are not two speakers'; name a folder that holds clean recordings alone, sorted "
            "by speaker, or write a manifest (path,speaker)"
        )


def _same_pair(candidates: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Reads recordings and returns the owners of two that differ only by added noise or voices."""
    heads = [(owner, head) for owner, path in candidates for head in _head(path)]
    for (first, (length, one)), (second, (other, two)) in itertools.combinations(heads, 2):
        size = min(len(one), len(two))
        if abs(length - other) > 0.01 * length or not size:
            continue
        one, two = one[:size] - one[:size].mean(), two[:size] - two[:size].mean()
        scale = np.linalg.norm(one) * np.linalg.norm(two)
        if scale and abs(np.dot(one, two)) > _SAME * scale:
            return first, second
    return None


def _head(path: str) -> Iterator[tuple[float, np.ndarray]]:
    """Yields length in seconds and the first seconds `[sample]`; nothing if it cannot be read."""
    # Importing soundfile takes a quarter of the time limit for a command's --help.
    from pipeline.audio import decoding

    try:
        remote = storage.is_remote(path)
        source = io.BytesIO(storage.read_bytes(path)) if remote else path
        with decoding.Reader(source, verify=False) as reader:
            if reader.num_samples is not None:
                block = next(reader.blocks(_SECONDS * reader.rate))
                yield reader.num_samples / reader.rate, decoding.mean_channel(block)
    except (errors.UserError, decoding.AudioError, OSError, StopIteration):
        # The inspection reports the error.
        return
