"""Reads TIMIT, a manifest or a folder of speakers into a sorted table of utterances.

A folder is of one of four kinds, recognised by the paths of the audio files in it:

1. *TIMIT*: some path contains `TRAIN|TEST/DR?/SPEAKER/NAME.WAV`, in any case and up to three
   folders down (`data/`, `TIMIT_WAV/`, `timit/timit/`). The parent folder is the split, and the
   speaker's first letter the sex. Speakers and ids are in upper case whatever the copy, so all
   copies of TIMIT give the same dataset.
2. *VoxCeleb*: some path contains `idNNNNN/VIDEO/NAME.wav`; `dev` is the split train.
3. *Subsets*: each folder in it is named after a split (`train-clean-100`, `dev-other`, `test`), and
   the speakers' folders are inside these, as in unpacked LibriSpeech and LibriTTS.
4. *Speakers*: `SPEAKER/**/*.wav`; the first folder is the speaker, and no splits are declared.
   VCTK is of this kind: of its two microphones, the first is used.

`pipeline.corpora.layouts` has the details, and refuses folders that do not belong to speakers.

If a recording is present several times with other endings (`SA1.WAV` and `SA1.WAV.wav`, `a.wav`
and `a.flac`), the name with the fewest endings is used, then the first ending in
`pipeline.audio.folders.ENDINGS`. Audio files are recognised by their ending, or else by their first
bytes; other files in a folder are counted. A speaker's name means the same person in all corpora
that are read together.
"""

import collections
import dataclasses
import hashlib
import itertools
import operator
import os
import posixpath
import re
from collections.abc import Iterable, Sequence

from pipeline import errors
from pipeline.audio import folders as audio_folders
from pipeline.corpora import layouts, manifest
from pipeline.io import storage

_TIMIT = re.compile(
    r"(?:[^/]+/){0,3}(?P<split>train|test)/(?P<region>dr\d)/(?P<speaker>[^/]+)/(?P<name>[^/]+)",
    re.IGNORECASE,
)
_TIMIT_REGION = re.compile(r"dr\d/[^/]+/[^/]+", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Utterance:
    """One recording of one speaker.

    Attributes:
        id: unique among the utterances that are read; the table is sorted by it.
        path: where the recording is.
        speaker: name of the speaker.
        sex: `f`, `m`, or empty if unknown.
        split: the declared split, or empty.
    """

    id: str
    path: str
    speaker: str
    sex: str = ""
    split: str = ""


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Rejection:
    """A recording that is left out: where it is (or should be), and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The table of utterances of one or more corpora.

    Attributes:
        kinds: the path of each folder or manifest and its kind: `timit`, `voxceleb`, `subsets`,
            `speakers` or `manifest`.
        utterances: sorted by id.
        rejections: recordings that a listing or a manifest already shows to be unusable; sorted.
        notes: what else a user should know about the corpora.
    """

    kinds: tuple[tuple[str, str], ...]
    utterances: tuple[Utterance, ...]
    rejections: tuple[Rejection, ...]
    notes: tuple[str, ...] = ()


def read(
    folders: Sequence[str] = (), manifests: Sequence[str] = (), *, include_sa: bool = False
) -> Corpus:
    """Reads all corpora of a job into one table.

    If there are several, each id begins with the name of its corpus's folder (with `-2` and so on
    if two have the same name).

    Args:
        folders: folders of TIMIT, of subsets or of speakers.
        manifests: CSV files.
        include_sa: keep TIMIT's SA1 and SA2, which every speaker reads.

    Raises:
        UserError: a corpus cannot be read or holds no audio, a manifest is wrong, or a speaker is
            in two splits or of two sexes.
    """
    parts = [read_folder(folder, include_sa=include_sa) for folder in folders]
    parts += [read_manifest(manifest) for manifest in manifests]
    if not parts:
        raise errors.UserError("no corpus: name a folder or a manifest")
    if len(parts) == 1:
        return parts[0]
    prefixes = _prefixes([*folders, *map(_folder_of, manifests)])
    utterances, twice = _without_repeats(
        dataclasses.replace(u, id=f"{prefix}/{u.id}")
        for prefix, part in zip(prefixes, parts, strict=True)
        for u in part.utterances
    )
    return _corpus(
        [kind for part in parts for kind in part.kinds],
        _consistent(utterances),
        [*twice, *(r for part in parts for r in part.rejections)],
        [note for part in parts for note in part.notes],
    )


def read_folder(folder: str, *, include_sa: bool = False) -> Corpus:
    """Reads a folder of one of the four kinds.

    Args:
        folder: local or with a scheme that Beam knows.
        include_sa: keep TIMIT's SA1 and SA2.

    Raises:
        UserError: the folder does not exist, has no audio in it, is of an unknown kind, or its
            folders do not belong to speakers.
    """
    listing = storage.list_files(folder)
    folder = _absolute(folder)
    files, others = audio_folders.sort(folder, listing.files)
    notes = [audio_folders.left_out(folder, others)] if others else []
    if copies := len(files) - len(_one_of_each(files)):
        notes.append(
            f"{folder}: {copies:,d} recordings are left out that are there with another ending, too"
        )
    rejections = [
        Rejection(storage.join(folder, path), reason)
        for path, reason in listing.problems
        # A broken README.txt is not a recording; a name without an ending may be a speaker.
        if _stem(path) != path or not posixpath.splitext(path)[1] or path in listing.closed
    ]
    if not files:
        raise errors.UserError(
            f"{folder}: no audio in this folder; it should hold TIMIT (TRAIN/DR1/SPEAKER/*.WAV) or "
            "speakers' folders (SPEAKER/*.wav)"
        )
    found = _read_files(folder, files, rejections, include_sa)
    return dataclasses.replace(found, notes=(*notes, *found.notes))


def _read_files(
    folder: str, files: Sequence[str], rejections: list[Rejection], include_sa: bool
) -> Corpus:
    if any(map(_TIMIT.fullmatch, files)):
        return _read_timit(folder, files, rejections, include_sa)
    if any(map(_TIMIT_REGION.match, files)):
        return _read_timit_half(folder, files, rejections, include_sa)
    if any(map(layouts.voxceleb, files)):
        return _read_voxceleb(folder, files, rejections)
    layouts.refuse_one_of_voxceleb(folder)
    layouts.refuse_mixtures(folder, files)
    return _read_speakers(folder, files, rejections)


def read_manifest(path: str) -> Corpus:
    """Reads a CSV manifest.

    The format is described in `pipeline.corpora.manifest`. Paths are relative to the manifest's
    folder. A row is rejected if its file is outside that folder or was named in an earlier row.

    Args:
        path: path of the manifest, local or with a scheme that Beam knows.

    Raises:
        UserError: a column is missing, a row cannot be understood, or a speaker is in two splits or
            of two sexes; the message names the line.
    """
    folder = _absolute(_folder_of(path))
    found: dict[str, int] = {}
    table: list[Utterance] = []
    lines: list[int] = []
    rejections: list[Rejection] = []
    for row in manifest.read_rows(path):
        relative = _inside(folder, row.path)
        if relative is None:
            reason = f"leaves the manifest's folder ({path}, line {row.line})"
            rejections.append(Rejection(row.path, reason))
            continue
        utterance = Utterance(
            relative, storage.join(folder, relative), row.speaker, row.sex, row.split
        )
        place = found.setdefault(relative, len(table))
        if place == len(table):
            table.append(utterance)
            lines.append(row.line)
            continue
        first = table[place]
        if first.speaker != row.speaker:
            raise errors.UserError(
                f"{path}: {row.path} is {first.speaker}'s in line {lines[place]}, "
                f"{row.speaker}'s in line {row.line}"
            )
        reason = f"named twice: line {row.line} of the manifest repeats line {lines[place]}"
        rejections.append(Rejection(utterance.path, reason))
    if not table and not rejections:
        raise errors.UserError(f"{path}: the manifest has no rows")
    try:
        table = _consistent(table, lines)
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}") from error
    found.clear()
    _shorten_ids(table)
    return _corpus([(path, "manifest")], table, rejections)


def assign_splits(
    utterances: Iterable[Utterance], valid_fraction: float, num_sources: int = 2
) -> dict[str, str]:
    """Assigns a split to each speaker.

    A declared split is kept; speakers without one are in train. If no speaker is declared as valid,
    those in train become valid for whom the SHA-256 of the name (its first 8 bytes as a fraction of
    2^64) is below `valid_fraction`. If that leaves either split fewer speakers than a mixture has
    voices, as many as there are voices become valid, those with the lowest hashes; and none if
    there are too few speakers for both splits. A fraction of 0 means no valid split, 1 no train.

    Args:
        utterances: utterances of a corpus, in any order; no speaker in two splits.
        valid_fraction: 0 to 1.
        num_sources: voices in a mixture.

    Returns:
        `train`, `valid` or `test` for each speaker, sorted by speaker.
    """
    splits: dict[str, str] = {}
    for utterance in utterances:
        splits[utterance.speaker] = utterance.split or splits.get(utterance.speaker, "")
    splits = {speaker: splits[speaker] or "train" for speaker in sorted(splits)}
    if "valid" in splits.values() or valid_fraction <= 0:
        return splits
    train = sorted((s for s in splits if splits[s] == "train"), key=_hash_fraction)
    valid = [s for s in train if _hash_fraction(s) < valid_fraction]
    if valid_fraction < 1 and not num_sources <= len(valid) <= len(train) - num_sources:
        valid = train[:num_sources] if len(train) >= 2 * num_sources else []
    return splits | dict.fromkeys(valid, "valid")


def _hash_fraction(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "big") / 2**64


def _read_timit(
    folder: str, files: Sequence[str], rejections: list[Rejection], include_sa: bool
) -> Corpus:
    utterances = []
    for path in _one_of_each(files):
        match = _TIMIT.fullmatch(path)
        if match is None:
            reason = "not where TIMIT has its recordings (TRAIN or TEST/DR?/SPEAKER/)"
            rejections.append(Rejection(storage.join(folder, path), reason))
            continue
        split, region, speaker, name = (_stem(g).upper() for g in match.groups())
        if include_sa or not re.fullmatch(r"SA\d+", name):
            sex = {"F": "f", "M": "m"}.get(speaker[0], "")
            identity = f"{split}/{region}/{speaker}/{name}"
            path = storage.join(folder, path)
            utterances.append(Utterance(identity, path, speaker, sex, split.lower()))
    # If the same disc is in two folders, say data/ and TIMIT_WAV/, the first in order is used.
    unique = {u.id: u for u in sorted(utterances, reverse=True)}
    return _folder_corpus(folder, "timit", unique.values(), rejections)


def _read_timit_half(
    folder: str, files: Sequence[str], rejections: list[Rejection], include_sa: bool
) -> Corpus:
    parent, _, name = folder.rstrip("/").rpartition("/")
    if name.upper() not in ("TRAIN", "TEST"):
        raise errors.UserError(
            f"{folder}: this is a part of TIMIT; name the folder that holds TRAIN and TEST"
        )
    corpus = _read_timit(parent, [f"{name}/{path}" for path in files], rejections, include_sa)
    return dataclasses.replace(corpus, kinds=((folder, "timit"),))


def _read_voxceleb(folder: str, files: Sequence[str], rejections: list[Rejection]) -> Corpus:
    utterances = []
    for path in _one_of_each(files):
        found = layouts.voxceleb(path)
        if found is None:
            reason = "not where VoxCeleb has its recordings (idNNNNN/VIDEO/)"
            rejections.append(Rejection(storage.join(folder, path), reason))
            continue
        speaker, split = found
        utterances.append(Utterance(_stem(path), storage.join(folder, path), speaker, "", split))
    return _folder_corpus(folder, "voxceleb", utterances, rejections)


def _read_speakers(folder: str, files: Sequence[str], rejections: list[Rejection]) -> Corpus:
    at = layouts.levels(files)
    utterances = []
    by_speaker: dict[str, dict[str, str]] = collections.defaultdict(dict)
    paths = {_stem(path): path for path in _one_of_each(files)}
    stems, others = layouts.of_first_microphone(paths)
    for stem in stems:
        path = storage.join(folder, paths[stem])
        parts = stem.split("/")
        if len(parts) <= at.speaker + 1:
            rejections.append(Rejection(path, "in no speaker's folder"))
            continue
        split = ""
        if at.subset is not None:
            split = layouts.split_of(parts[at.subset])
        speaker = manifest.person(parts[at.speaker])
        by_speaker[speaker]["/".join(parts[at.speaker + 1 :])] = path
        utterances.append(Utterance(stem, path, speaker, "", split))
    if not utterances:
        raise errors.UserError(
            f"{folder}: its audio is in no speaker's folder (SPEAKER/*.wav); sort it so, or write "
            "a manifest"
        )
    layouts.refuse_kinds(folder, by_speaker)
    layouts.refuse_twins(folder, by_speaker)
    notes = [f"{folder}: {others:,d} recordings of further microphones are left out"]
    kind = "speakers" if at.subset is None else "subsets"
    return _folder_corpus(folder, kind, utterances, rejections, notes if others else ())


def _folder_corpus(
    folder: str,
    kind: str,
    utterances: Iterable[Utterance],
    rejections: Iterable[Rejection],
    notes: Iterable[str] = (),
) -> Corpus:
    return _corpus([(folder, kind)], _consistent(list(utterances)), rejections, notes)


def _corpus(
    kinds: Iterable[tuple[str, str]],
    utterances: Iterable[Utterance],
    rejections: Iterable[Rejection],
    notes: Iterable[str] = (),
) -> Corpus:
    """Returns a corpus, sorted; ids of utterances are unique, and rejections need not be."""
    table = sorted(utterances, key=operator.attrgetter("id"))
    return Corpus(tuple(kinds), tuple(table), tuple(sorted(set(rejections))), tuple(notes))


def _stem(path: str) -> str:
    """Returns the path without its audio endings; the path itself if it has none."""
    root, extension = posixpath.splitext(path)
    return _stem(root) if extension.lower() in audio_folders.ENDINGS else path


def _one_of_each(files: Iterable[str]) -> list[str]:
    """Returns one path of each recording, by the rule in the module's docstring."""
    chosen: dict[str, tuple[int, int, str]] = {}
    for path in files:
        stem = _stem(path)
        ending = posixpath.splitext(path)[1].lower()
        known = ending in audio_folders.ENDINGS
        last = audio_folders.ENDINGS.index(ending) if known else len(audio_folders.ENDINGS)
        rank = (path[len(stem) :].count("."), last, path)
        chosen[stem] = min(chosen.get(stem, rank), rank)
    return sorted(path for _, _, path in chosen.values())


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] if storage.is_remote(path) else os.path.dirname(path)


def _absolute(folder: str) -> str:
    """Makes a path absolute, since workers may have another working directory."""
    return folder if storage.is_remote(folder) else os.path.abspath(folder)


def _inside(folder: str, name: str) -> str | None:
    """Returns the normalised path relative to the folder; None if it is outside the folder."""
    if storage.is_remote(name) or os.path.isabs(name):
        root = folder.rstrip("/") + "/"
        if not name.startswith(root):
            return None
        name = name[len(root) :]
    if "\0" in name:
        return None
    relative = posixpath.normpath(name.replace(os.sep, "/"))
    return None if relative in (".", "..") or relative.startswith("../") else relative


def _shorten_ids(table: list[Utterance]) -> None:
    """Removes endings from the ids, unless two would become equal."""
    stems = [_stem(u.id) for u in table]
    several: set[str] = set()
    if len(set(stems)) < len(stems):
        several = {stem for stem, count in collections.Counter(stems).items() if count > 1}
    # In place, so that old and new utterances are not all in memory at the same time.
    for place, stem in enumerate(stems):
        if stem not in several:
            u = table[place]
            table[place] = Utterance(stem, u.path, u.speaker, u.sex, u.split)


def _consistent(
    utterances: Sequence[Utterance], lines: Sequence[int] | None = None
) -> list[Utterance]:
    """Fills in each speaker's known split and sex; raises UserError if they contradict."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for index, utterance in enumerate(utterances):
        place = f"line {lines[index]}" if lines else utterance.path
        for field in ("split", "sex"):
            value = getattr(utterance, field)
            if not value:
                continue
            before, where = seen.setdefault((utterance.speaker, field), (value, place))
            if before != value:
                what = "in two splits" if field == "split" else "of two sexes"
                raise errors.UserError(
                    f"speaker {utterance.speaker} is {what}: {before} ({where}) and {value} "
                    f"({place})"
                )

    def filled(utterance: Utterance) -> Utterance:
        split, sex = (seen.get((utterance.speaker, field), ("",))[0] for field in ("split", "sex"))
        if (split, sex) == (utterance.split, utterance.sex):
            return utterance
        return dataclasses.replace(utterance, split=split, sex=sex)

    return list(map(filled, utterances))


def _without_repeats(
    utterances: Iterable[Utterance],
) -> tuple[list[Utterance], list[Rejection]]:
    """Leaves out files that are already in an earlier corpus."""
    kept: dict[str, Utterance] = {}
    twice = []
    for utterance in utterances:
        path = utterance.path
        key = path if storage.is_remote(path) else os.path.abspath(path)
        first = kept.setdefault(key, utterance)
        if first is utterance:
            continue
        if first.speaker != utterance.speaker:
            raise errors.UserError(
                f"{path} is {first.speaker}'s in one corpus and {utterance.speaker}'s in another"
            )
        twice.append(Rejection(path, "in two of the corpora; the first one counts"))
    return list(kept.values()), twice


def _prefixes(folders: Iterable[str]) -> list[str]:
    """Returns a name for each corpus: that of its folder, numbered if it occurs again."""
    names: list[str] = []
    for folder in folders:
        name = posixpath.basename(_absolute(folder).rstrip("/")) or "corpus"
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        names.append(next(n for n in itertools.chain([name], numbered) if n not in names))
    return names
