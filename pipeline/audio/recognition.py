"""Recognises files by their first bytes, never by name, and describes those that are not audio."""

import re

from pipeline.audio import mpeg

# Number of bytes at the start of a file that are inspected.
HEAD_BYTES = 4096

# Formats that libsndfile reads, then those that only FFmpeg reads.
_KINDS: tuple[tuple[str, bytes], ...] = (
    ("sphere", rb"NIST_1A"),
    ("riff", rb"(RIFF|RIFX)....WAVE"),
    ("rf64", rb"(RF64|BW64)....WAVE"),
    ("flac", rb"fLaC"),
    ("ogg", rb"OggS"),
    ("aiff", rb"FORM....AIF[FC]"),
    ("au", rb"\.snd"),
    ("caf", rb"caff"),
    ("w64", rb"riff\x2e\x91\xcf\x11"),
    ("mp4", rb"....(ftyp|moov|wide|pnot|mdat.{8}\x00\x00\x00.(moov|mdat))"),
    ("matroska", rb"\x1aE\xdf\xa3"),
    ("asf", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    ("avi", rb"RIFF....AVI "),
    ("amr", rb"#!AMR"),
    ("flv", rb"FLV\x01"),
    ("wavpack", rb"wvpk"),
    ("ape", rb"MAC [\x00-\xff]{2}"),
    ("tta", rb"TTA1"),
    ("musepack", rb"MPCK|MP\+"),
    ("shorten", rb"ajkg"),
    ("tak", rb"tBaK"),
    ("dsf", rb"DSD \x1c"),
    ("voc", rb"Creative Voice File\x1a"),
    ("realmedia", rb"\.RMF\x00"),
    ("dss", rb"[\x02\x03](dss|ds2)"),
    ("qcp", rb"RIFF....QLCM"),
    ("mpeg-ps", rb"\x00\x00\x01\xba"),
    ("mpeg-ts", rb"(G.{187}){3}G|(.{4}G.{187}){3}.{4}G"),
    ("mxf", rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02"),
    ("8svx", rb"FORM....8SVX"),
    ("oma", rb"ea3\x03|EA3\x01"),
    ("ircam", rb"\x64\xa3[\x01-\x04]\x00|\x00[\x01-\x04]\xa3\x64"),
    ("ac3", rb"\x0b\x77..[\x00-\xbf][\x00-\x87]"),
    ("dts", rb"\x7f\xfe\x80\x01"),
    ("id3", rb"ID3[\x02-\x04]"),
)
_PATTERNS = tuple((kind, re.compile(pattern, re.DOTALL)) for kind, pattern in _KINDS)

_OTHERS: tuple[tuple[str, bytes], ...] = (
    ("a PDF document", rb"%PDF"),
    ("a JPEG picture", rb"\xff\xd8\xff"),
    ("a PNG picture", rb"\x89PNG"),
    ("a GIF picture", rb"GIF8"),
    ("a WebP picture", rb"RIFF....WEBP"),
    ("a TIFF picture", rb"II\*\x00|MM\x00\*"),
    ("a MIDI file: notes, not sound", rb"MThd|RIFF....RMID"),
    ("a RIFF file, but not a WAVE", rb"RIFF|RIFX"),
    ("a playlist, which names recordings and holds none", rb"#EXTM3U|\[playlist\]|ffconcat"),
    ("a Git LFS pointer in place of the file: run git lfs pull", rb"version https://git-lfs"),
    ("a ZIP archive (or a document in one)", rb"PK\x03\x04|PK\x05\x06"),
    ("a gzip archive", rb"\x1f\x8b"),
    ("a bzip2 archive", rb"BZh[1-9]"),
    ("an xz archive", rb"\xfd7zXZ"),
    ("a Zstandard archive", rb"\x28\xb5\x2f\xfd"),
    ("a 7-Zip archive", rb"7z\xbc\xaf"),
    ("a RAR archive", rb"Rar!"),
    ("a tar archive", rb".{257}ustar"),
    ("a NumPy array", rb"\x93NUMPY"),
    ("an HDF5 file", rb"\x89HDF"),
    ("a MATLAB file", rb"MATLAB 5\.0"),
    ("a program", rb"\x7fELF|MZ|#!/"),
    ("an SQLite database", rb"SQLite format"),
    ("an HTML page", rb"\s*<(!doctype html|html)"),
    ("an XML document", rb"\s*<\?xml"),
)
_OTHER_PATTERNS = tuple(
    (words, re.compile(pattern, re.DOTALL | re.IGNORECASE)) for words, pattern in _OTHERS
)


def kind_of(head: bytes) -> str | None:
    """Returns the container or coding of a file.

    Args:
        head: its first `HEAD_BYTES`, or the whole file if it is shorter.

    Returns:
        For example `riff`, `mp4`, `mp3`, `adts`, or `id3` for a tag before something else; None
        if the format is unknown.
    """
    for kind, pattern in _PATTERNS:
        if pattern.match(head):
            return kind
    return mpeg.kind_of(head)


def is_something_else(head: bytes) -> bool:
    """Returns whether bytes are certainly not audio: zeros, text, or another kind of file."""
    others = any(pattern.match(head) for _, pattern in _OTHER_PATTERNS)
    return others or not any(head) or _text(head) is not None


def describe(head: bytes) -> str:
    """Describes what bytes that are not audio seem to be."""
    if not any(head):
        return "it begins with zeros"
    for words, pattern in _OTHER_PATTERNS:
        if pattern.match(head):
            return f"it seems to be {words}"
    start = _text(head)
    if start is not None:
        return f"it seems to be text, which begins with {start!r}"
    return (
        "it begins as no format that is known here does; samples without a header need one "
        "(ffmpeg -f s16le -ar RATE -ac CHANNELS -i FILE FILE.wav)"
    )


def _text(head: bytes) -> str | None:
    """Returns the first words of a text; None if it is not text."""
    for coding in ("utf-8-sig", *(("utf-16",) if head[:2] in (b"\xff\xfe", b"\xfe\xff") else ())):
        # The last character may be incomplete.
        for size in range(len(head), max(len(head) - 4, 0), -1):
            try:
                text = head[:size].decode(coding)
            except UnicodeDecodeError:
                continue
            if all(c.isprintable() or c in "\t\n\r\f" for c in text):
                return " ".join(text.split())[:20]
    return None
