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
_NO_AUDIO = (
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".pdf", ".png", ".jpg",
    ".phn", ".wrd", ".lab", ".textgrid", ".trn", ".rttm", ".ctm", ".eaf", ".stm", ".npy", ".npz",
    ".pt", ".py", ".sh", ".zip", ".gz", ".tar", ".tgz", ".log", ".yaml", ".yml", ".tfrecord",
)  # fmt: skip


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
        ending = posixpath.splitext(path)[1].lower()
        sounds = ending in ENDINGS
        if not sounds and ending not in _NO_AUDIO and not storage.is_remote(folder):
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


def left_out(folder: str, others: Sequence[str]) -> str:
    """Returns one line that counts the non-audio files by ending; empty if there are none."""
    if not others:
        return ""
    count = collections.Counter(
        posixpath.splitext(path)[1].lower() or "without an ending" for path in others
    )
    kinds = [f"{number:,d} {ending}" for ending, number in count.most_common(4)]
    if len(count) > 4:
        kinds.append("…")
    what = "file is" if len(others) == 1 else "files are"
    known = "has an ending of audio" if storage.is_remote(folder) else "is audio"
    return (
        f"{os.fspath(folder)}: {len(others):,d} {what} left out, since none {known} "
        f"({', '.join(kinds)})"
    )
