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
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pipeline import columns, errors
from pipeline.audio import folders as audio_folders
from pipeline.corpora import layouts, manifest, utterance_table
from pipeline.io import storage

_TIMIT = re.compile(
    r"(?:[^/]+/){0,3}(?P<split>train|test)/(?P<region>dr\d)/(?P<speaker>[^/]+)/(?P<name>[^/]+)",
    re.IGNORECASE,
)
_TIMIT_REGION = re.compile(r"dr\d/[^/]+/[^/]+", re.IGNORECASE)


Utterance = utterance_table.Utterance


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
    utterances: utterance_table.UtteranceTable
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
    corpora = [read_folder(folder, include_sa=include_sa) for folder in folders]
    corpora += [read_manifest(manifest) for manifest in manifests]
    if not corpora:
        raise errors.UserError("no corpus: name a folder or a manifest")
    if len(corpora) == 1:
        return corpora[0]
    prefixes = _prefixes([*folders, *map(_folder_of, manifests)])
    parts = []
    for prefix, part in zip(prefixes, corpora, strict=True):
        found = part.utterances
        parts.append(found.columns | {"ids": found.ids.after(f"{prefix}/")})
    utterances, twice = _without_repeats(utterance_table.UtteranceTable.concatenate(parts))
    return _corpus(
        [kind for part in corpora for kind in part.kinds],
        utterance_table.consistent(utterances),
        [*twice, *(r for part in corpora for r in part.rejections)],
        [note for part in corpora for note in part.notes],
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
    others: collections.Counter[str] = collections.Counter()
    firsts: dict[str, str] = {}

    def recordings(paths: Iterable[str]) -> Iterator[str]:
        for part in columns.batches(paths):
            audio, rest = audio_folders.sort(folder, part)
            for path in rest:
                ending = audio_folders.ending(path)
                others[ending] += 1
                firsts[ending] = min(firsts.get(ending, path), path)
            yield from audio

    listing = storage.list_files(
        folder, lambda paths: columns.Texts.of(recordings(paths)).in_order()
    )
    storage.require_open(folder, listing)
    folder = _absolute(folder)
    assert isinstance(listing.files, columns.Texts)
    files = _one_of_each(listing.files)
    # Endings as frequent as each other are in the order of the paths.
    others = collections.Counter(
        {own: others[own] for own in sorted(others, key=firsts.__getitem__)}
    )
    notes = [audio_folders.left_out(folder, others)] if others else []
    if copies := len(listing.files) - len(files):
        notes.append(
            f"{folder}: {copies:,d} recordings are left out that are there with another ending, too"
        )
    rejections = [
        Rejection(storage.join(folder, path), reason)
        for path, reason in listing.problems
        # A broken README.txt is not a recording; a name without an ending may be a speaker.
        if audio_folders.stem(path) != path or not posixpath.splitext(path)[1]
    ]
    if not files:
        raise errors.UserError(
            f"{folder}: no audio in this folder; it should hold TIMIT (TRAIN/DR1/SPEAKER/*.WAV) or "
            "speakers' folders (SPEAKER/*.wav)"
        )
    found = _read_files(folder, files, rejections, include_sa)
    return dataclasses.replace(found, notes=(*notes, *found.notes))


def _read_files(
    folder: str, files: columns.Texts, rejections: list[Rejection], include_sa: bool
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
    root = storage.join(folder, "")
    lines: list[np.ndarray] = []
    rejections: list[Rejection] = []

    def parts() -> Iterator[list[list[str]]]:
        for rows in manifest.read_rows(path):
            # Empty for those outside.
            names = [_inside(folder, name) for name in rows.paths]
            for place in [place for place, name in enumerate(names) if not name]:
                reason = f"leaves the manifest's folder ({path}, line {rows.lines[place]})"
                rejections.append(Rejection(rows.paths[place], reason))
            cells = (rows.lines.tolist(), names, rows.speakers, rows.sexes, rows.splits)
            inside = [list(itertools.compress(column, names)) for column in cells]
            lines.append(np.array(inside[0]))
            yield [
                list(map(audio_folders.stem, inside[1])),
                [root + name for name in inside[1]],
                *inside[2:],
            ]

    table = utterance_table.UtteranceTable.of_parts(parts())
    if not len(table) and not rejections:
        raise errors.UserError(f"{path}: the manifest has no rows")
    numbers = np.concatenate(lines)
    twice = columns.repeats(len(table), table.paths)
    for row, first in twice.items():
        here, (one, other) = numbers[row], table.utterances(np.array([first, row]))
        if one.speaker != other.speaker:
            raise errors.UserError(
                f"{path}: {one.path.removeprefix(root)} is {one.speaker}'s in line "
                f"{numbers[first]}, {other.speaker}'s in line {here}"
            )
        reason = f"named twice: line {here} of the manifest repeats line {numbers[first]}"
        rejections.append(Rejection(other.path, reason))
    kept = columns.without(len(table), twice)
    table, numbers = table.where(kept), numbers[kept]
    try:
        table = utterance_table.consistent(table, lambda row: f"line {numbers[row]}")
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}") from error
    # Endings stay where ids would become equal without them.
    equal = columns.repeated(columns.hashes(len(table), table.ids.at))
    count = collections.Counter(table.ids.at(equal))
    equal = equal[[count[name] > 1 for name in table.ids.at(equal)]]
    whole = [name.removeprefix(root) for name in table.paths(equal)]
    table = dataclasses.replace(table, ids=table.ids.replace(equal, whole))
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
    table = utterance_table.UtteranceTable.of(utterances)
    declared = utterance_table.known(table.speakers, table.splits)
    splits = {
        name: "train" if split < 0 else table.splits.names[split]
        for name, split in zip(table.speakers.names, declared.tolist(), strict=True)
    }
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
    folder: str, files: Iterable[str], rejections: list[Rejection], include_sa: bool
) -> Corpus:
    root = storage.join(folder, "")

    def utterances() -> Iterator[Utterance]:
        for path in files:
            match = _TIMIT.fullmatch(path)
            if match is None:
                reason = "not where TIMIT has its recordings (TRAIN or TEST/DR?/SPEAKER/)"
                rejections.append(Rejection(root + path, reason))
                continue
            split, region, speaker, name = (audio_folders.stem(g).upper() for g in match.groups())
            if include_sa or not re.fullmatch(r"SA\d+", name):
                sex = {"F": "f", "M": "m"}.get(speaker[0], "")
                identity = f"{split}/{region}/{speaker}/{name}"
                yield Utterance(identity, root + path, speaker, sex, split.lower())

    table = utterance_table.UtteranceTable.of(utterances())
    # If the same disc is in two folders, say data/ and TIMIT_WAV/, the first in order is used.
    copies = columns.repeats(len(table), table.ids.at, table.paths)
    table = table.where(columns.without(len(table), copies))
    return _folder_corpus(folder, "timit", table, rejections)


def _read_timit_half(
    folder: str, files: columns.Texts, rejections: list[Rejection], include_sa: bool
) -> Corpus:
    parent, _, name = folder.rstrip("/").rpartition("/")
    if name.upper() not in ("TRAIN", "TEST"):
        raise errors.UserError(
            f"{folder}: this is a part of TIMIT; name the folder that holds TRAIN and TEST"
        )
    whole = (f"{name}/{path}" for path in files)
    corpus = _read_timit(parent, whole, rejections, include_sa)
    return dataclasses.replace(corpus, kinds=((folder, "timit"),))


def _read_voxceleb(folder: str, files: columns.Texts, rejections: list[Rejection]) -> Corpus:
    root = storage.join(folder, "")

    def utterances() -> Iterator[Utterance]:
        for path in files:
            found = layouts.voxceleb(path)
            if found is None:
                reason = "not where VoxCeleb has its recordings (idNNNNN/VIDEO/)"
                rejections.append(Rejection(root + path, reason))
                continue
            speaker, split = found
            yield Utterance(audio_folders.stem(path), root + path, speaker, "", split)

    table = utterance_table.UtteranceTable.of(utterances())
    return _folder_corpus(folder, "voxceleb", table, rejections)


def _read_speakers(folder: str, files: columns.Texts, rejections: list[Rejection]) -> Corpus:
    root = storage.join(folder, "")
    at = layouts.levels(files)
    others = layouts.of_further_microphones(files)

    def utterances() -> Iterator[Utterance]:
        for row, path in enumerate(files):
            if row in others:
                continue
            stem = audio_folders.stem(path)
            parts = stem.split("/")
            if len(parts) <= at.speaker + 1:
                rejections.append(Rejection(root + path, "in no speaker's folder"))
                continue
            split = layouts.split_of(parts[at.subset]) if at.subset is not None else ""
            yield Utterance(stem, root + path, manifest.person(parts[at.speaker]), "", split)

    table = utterance_table.UtteranceTable.of(utterances())
    if not len(table):
        raise errors.UserError(
            f"{folder}: its audio is in no speaker's folder (SPEAKER/*.wav); sort it so, or write "
            "a manifest"
        )
    layouts.refuse_kinds(folder, table.speakers.names)
    layouts.refuse_twins(folder, table, at.speaker)
    notes = [f"{folder}: {len(others):,d} recordings of further microphones are left out"]
    kind = "speakers" if at.subset is None else "subsets"
    return _folder_corpus(folder, kind, table, rejections, notes if others else ())


def _folder_corpus(
    folder: str,
    kind: str,
    utterances: utterance_table.UtteranceTable,
    rejections: Iterable[Rejection],
    notes: Iterable[str] = (),
) -> Corpus:
    return _corpus([(folder, kind)], utterance_table.consistent(utterances), rejections, notes)


def _corpus(
    kinds: Iterable[tuple[str, str]],
    utterances: utterance_table.UtteranceTable,
    rejections: Iterable[Rejection],
    notes: Iterable[str] = (),
) -> Corpus:
    """Returns a corpus, sorted; ids of utterances are unique, and rejections need not be."""
    rows = utterances.ids.order()
    if rows is not None:
        utterances = utterances.take(rows)
    columns.release()
    return Corpus(tuple(kinds), utterances, tuple(sorted(set(rejections))), tuple(notes))


def _one_of_each(files: columns.Texts) -> columns.Texts:
    """Returns one path of each recording, by the rule in the module's docstring."""

    def rank(path: str) -> tuple[int, int, str]:
        ending = audio_folders.ending(path)
        endings = audio_folders.ENDINGS
        last = endings.index(ending) if ending in endings else len(endings)
        return path[len(audio_folders.stem(path)) :].count("."), last, path

    copies = columns.repeats(
        len(files),
        lambda rows: map(audio_folders.stem, files.at(rows)),
        lambda rows: map(rank, files.at(rows)),
    )
    kept = columns.without(len(files), copies)
    return files.take(np.flatnonzero(kept)) if copies else files


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0] if storage.is_remote(path) else os.path.dirname(path)


def _absolute(folder: str) -> str:
    """Makes a path absolute, since workers may have another working directory."""
    return folder if storage.is_remote(folder) else os.path.abspath(folder)


def _inside(folder: str, name: str) -> str:
    """Returns the normalised path relative to the folder; empty if it is outside the folder.

    Backslashes separate folders, as in tables from Windows, if the path has no slash.
    """
    if "/" not in name:
        name = name.replace("\\", "/")
    if storage.is_remote(name) or os.path.isabs(name):
        root = folder.rstrip("/") + "/"
        if not name.startswith(root):
            return ""
        name = name[len(root) :]
    if "\0" in name:
        return ""
    relative = posixpath.normpath(name)
    return "" if relative in (".", "..") or relative.startswith("../") else relative


def _without_repeats(
    table: utterance_table.UtteranceTable,
) -> tuple[utterance_table.UtteranceTable, list[Rejection]]:
    """Leaves out files that are already in an earlier corpus."""
    repeats = columns.repeats(len(table), table.paths)
    twice = []
    for row, first in repeats.items():
        one, other = table.utterances(np.array([first, row]))
        if one.speaker != other.speaker:
            raise errors.UserError(
                f"{one.path} is {one.speaker}'s in one corpus and {other.speaker}'s in another"
            )
        twice.append(Rejection(other.path, "in two of the corpora; the first one counts"))
    return table.where(columns.without(len(table), repeats)), twice


def _prefixes(folders: Iterable[str]) -> list[str]:
    """Returns a name for each corpus: that of its folder, numbered if it occurs again."""
    names: list[str] = []
    for folder in folders:
        name = posixpath.basename(_absolute(folder).rstrip("/")) or "corpus"
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        names.append(next(n for n in itertools.chain([name], numbered) if n not in names))
    return names
