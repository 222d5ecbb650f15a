"""Which files of a folder are recordings: by their endings, else by what they begin with."""

import collections
import os
import posixpath
from collections.abc import Sequence

from pipeline.audio import recognition
from pipeline.io import storage

# Taken as they are: what is in them, or that it is no audio after all, is found when they are read.
ENDINGS = (
    ".wav", ".sph", ".flac", ".wv1", ".wv2", ".nist", ".aif", ".aiff", ".au", ".caf", ".w64",
    ".ogg", ".oga", ".opus", ".mp3", ".wave", ".bwf", ".rf64", ".aifc", ".snd", ".m4a", ".m4b",
    ".mp4", ".aac", ".3gp", ".3g2", ".amr", ".awb", ".webm", ".weba", ".mka", ".mkv", ".mov",
    ".wma", ".mp2", ".mpga", ".spx", ".wv", ".ape", ".tta", ".ac3", ".avi",
)  # fmt: skip
# Not opened: corpora have several such files beside each recording.
_NO_AUDIO = (
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".md", ".pdf", ".png", ".jpg",
    ".phn", ".wrd", ".lab", ".textgrid", ".trn", ".rttm", ".ctm", ".eaf", ".stm", ".npy", ".npz",
    ".pt", ".py", ".sh", ".zip", ".gz", ".tar", ".tgz", ".log", ".yaml", ".yml", ".tfrecord",
)  # fmt: skip


def sort(folder: str, files: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tells recordings from other files.

    Of a local folder, what has no ending that is known is opened and judged by its first bytes.

    Args:
        folder: local or with a scheme.
        files: their paths relative to it.

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
        # Whoever reads it says why that cannot be done.
        return True
    return recognition.kind_of(head) is not None


def left_out(folder: str, others: Sequence[str]) -> str:
    """One line that counts what is no audio, by endings; empty where there is nothing of that."""
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
