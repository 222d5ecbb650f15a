"""Finds the recordings in a folder: by their endings, or else by their first bytes."""

import collections
import os
import posixpath
from collections.abc import Sequence

from pipeline.audio import recognition
from pipeline.io import storage

# Accepted without opening them; whether they really are audio is found out when they are read.
ENDINGS = (
    ".wav", ".sph", ".flac", ".wv1", ".wv2", ".nist", ".aif", ".aiff", ".au", ".caf", ".w64",
    ".ogg", ".oga", ".opus", ".mp3", ".wave", ".bwf", ".rf64", ".aifc", ".snd", ".m4a", ".m4b",
    ".mp4", ".aac", ".3gp", ".3g2", ".amr", ".awb", ".webm", ".weba", ".mka", ".mkv", ".mov",
    ".wma", ".mp2", ".mpga", ".spx", ".wv", ".ape", ".tta", ".ac3", ".avi",
)  # fmt: skip
# Never opened: corpora have several such files beside each recording.
_NO_AUDIO = {
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".pdf", ".png", ".jpg",
    ".phn", ".wrd", ".lab", ".textgrid", ".trn", ".rttm", ".ctm", ".eaf", ".stm", ".npy", ".npz",
    ".pt", ".py", ".sh", ".zip", ".gz", ".tar", ".tgz", ".log", ".yaml", ".yml", ".tfrecord",
}  # fmt: skip
_KNOWN = {ending[1:] for ending in ENDINGS}


def ending(path: str) -> str:
    """Returns the ending of a file's name in lower case, with its dot; may be empty."""
    return posixpath.splitext(path)[1].lower()


def stem(path: str) -> str:
    """Returns the path without its endings of audio; the path itself if it has none."""
    root, _, own = path.rpartition(".")
    # A name does not begin with its ending.
    if own.lower() not in _KNOWN or not root.rpartition("/")[2].strip("."):
        return path
    return stem(root)


def sort(folder: str, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates recordings from other files.

    In a local folder, files with an unknown ending are opened and judged by their first bytes.

    Args:
        folder: local or with a scheme.
        files: paths relative to it.

    Returns:
        The recordings and the others, each in the order of `files`.
    """
    recordings: list[str] = []
    others: list[str] = []
    for path in files:
        own = ending(path)
        sounds = own[1:] in _KNOWN
        if not sounds and own not in _NO_AUDIO and not storage.is_remote(folder):
            sounds = _sounds(storage.join(folder, path))
        (recordings if sounds else others).append(path)
    return recordings, others


def _sounds(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(recognition.HEAD_BYTES)
    except OSError:
        # The error is reported when the file is read.
        return True
    return recognition.kind_of(head) is not None


def left_out(folder: str, others: collections.Counter[str]) -> str:
    """Returns one line about the number of files of each ending that are not audio."""
    common = others.most_common(4)
    kinds = [f"{number:,d} {own or 'without an ending'}" for own, number in common]
    if len(others) > 4:
        kinds.append("…")
    count = sum(others.values())
    what = "file is" if count == 1 else "files are"
    known = "has an ending of audio" if storage.is_remote(folder) else "is audio"
    return (
        f"{os.fspath(folder)}: {count:,d} {what} left out, since none {known} ({', '.join(kinds)})"
    )
