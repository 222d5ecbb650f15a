"""Checks that RIFF, RF64, AIFF, AU, W64 and CAF files are as long as their chunks say.

If a recorder crashes, or a program writes into a pipe, the length in the header is never filled
in: it stays 0 or the largest number. Everything that follows is then read as samples, with a note.
"""

import dataclasses
from collections.abc import Mapping
from typing import BinaryIO, Literal

from pipeline.audio import limits

_Order = Literal["big", "little"]
_NO_SAMPLES = "cut short before its first sample, or without any"
# A 32-bit length from here on means that the writer did not know it; below, the same in 64 bits.
UNKNOWN_LENGTH = 0x7FFFF000
_UNKNOWN_LONG = 2**63 - 2**32
# Codings in `fmt ` that libsndfile reads, and those that only FFmpeg reads: ADPCM of several
# kinds, G.723.1, G.726, TrueSpeech, MPEG, AC-3, DTS, WMA, AAC, ATRAC, Vorbis, Opus, FLAC.
_CODINGS = (1, 2, 3, 6, 7, 0x11, 0x31, 0x38, 0xFFFE)
_FFMPEG_CODINGS = (
    0x14, 0x17, 0x20, 0x22, 0x40, 0x42, 0x45, 0x50, 0x55, 0x61, 0x62, 0x64, 0x69, 0x83, 0xFF,
    0x130, 0x160, 0x161, 0x162, 0x163, 0x200, 0x270, 0x1600, 0x1602, 0x1610, 0x2000, 0x2001,
    0x566F, 0x674F, 0x6750, 0x6751, 0x704F, 0xA106, 0xA123, 0xF1AC,
)  # fmt: skip
_AU_SAMPLE_BYTES = {2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8}
_CAF_CODINGS = (b"lpcm", b"ulaw", b"alaw", b"alac")
_AIFC_CODINGS = (
    b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64",
    b"ulaw", b"ULAW", b"alaw", b"ALAW", b"ima4", b"DWVW", b"GSM ",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Chunks:
    """What the chunks of a file say.

    Attributes:
        plain: whether libsndfile reads this coding.
        patches: bytes to read instead of those in the file, by position.
        notes: assumptions that were made.
        trim: for codings in packets, the number of samples before the recording and in it.
    """

    plain: bool = True
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trim: tuple[int, int] | None = None


def is_open(length: int, *, empty: bool = False) -> bool:
    """Returns whether a 32-bit length was never filled in.

    Args:
        length: number of bytes of samples in the header.
        empty: whether the header says elsewhere that 0 means no samples.
    """
    return length >= UNKNOWN_LENGTH or (length == 0 and not empty)


def note(present: int, frame_bytes: int) -> str:
    """Returns the note for a file without a length, of which everything is read.

    Args:
        present: number of bytes after the header.
        frame_bytes: bytes per sample of all channels; 1 if unknown.
    """
    text = f"its header leaves the length open; all {present} bytes that follow are taken"
    rest = present % frame_bytes
    return text + (f" but the last {rest}, which are no whole sample" if rest else "")


def check_riff(file: BinaryIO, size: int) -> Chunks:
    """Checks RIFF, RIFX and RF64; also AIFF, which has the same chunks under other names."""
    head = file.read(12)
    order: _Order = "big" if head[:4] in (b"RIFX", b"FORM") else "little"
    aiff = head[:4] == b"FORM"
    # BW64 is the broadcasters' name for RF64.
    patches: dict[int, bytes] = {0: b"RF64"} if head[:4] == b"BW64" else {}
    whole = int.from_bytes(head[4:8], order)
    data_bytes_64 = ds64_at = None
    frame_bytes, plain = 1, True
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), order)
        position += 8
        if name == b"ds64":
            data_bytes_64, ds64_at = int.from_bytes(file.read(16)[8:], "little"), position + 8
        if name == b"fmt " and length >= 16:
            frame_bytes, plain = _check_fmt(file.read(min(length, 40)), order)
        if name == b"COMM" and aiff:
            frame_bytes, plain = _check_comm(file.read(min(length, 22)), head[8:])
        if name == (b"SSND" if aiff else b"data"):
            break
        position += length + length % 2
    else:
        raise limits.AudioError(_NO_SAMPLES)
    present = size - position
    if length == 0xFFFFFFFF and data_bytes_64 is not None and ds64_at is not None:
        length = data_bytes_64
        left_open, at, field = length == 0 and present > 0, ds64_at, 8
    else:
        # In a WAVE without samples, the length of the whole file shows whether chunks follow them.
        # The length in an AIFF includes eight bytes before the samples.
        empty = not present or (not aiff and position < whole + 8 < UNKNOWN_LENGTH)
        left_open = is_open(length, empty=empty) and (length == 0 or length > present)
        at, field = position - 4, 4
    if left_open:
        if not present:
            raise limits.AudioError(_NO_SAMPLES)
        # A length beyond 32 bits stays unknown, and libsndfile reads up to the end.
        known = min(present, 0xFFFFFFFF) if field == 4 else present
        patches[at] = known.to_bytes(field, order)
        # In AIFF, eight more bytes precede the samples.
        return Chunks(plain, patches, (note(present - 8 * aiff, frame_bytes),))
    _check_rest(file, order, position, length, size)
    return Chunks(plain, patches)


def _check_fmt(fields: bytes, order: _Order) -> tuple[int, bool]:
    """Returns the bytes per sample of all channels, and whether libsndfile reads the coding."""
    if len(fields) < 16:
        raise limits.AudioError(_NO_SAMPLES)
    coding, channels, rate, _, frame_bytes, bits = (
        int.from_bytes(fields[start:stop], order)
        for start, stop in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16))
    )
    limits.check_rate_and_channels(rate, channels)
    # Linear samples occupy whole bytes; libsndfile would read any others as if they were narrower.
    if coding in (1, 3, 0xFFFE) and frame_bytes != channels * ((bits + 7) // 8):
        raise limits.AudioError(
            f"its header contradicts itself: {channels} channel(s) of {bits} bits in {frame_bytes} "
            "bytes"
        )
    if coding == 0xFFFE and len(fields) >= 26:
        coding = int.from_bytes(fields[24:26], order)
    plain = coding in _CODINGS
    if not plain and coding not in _FFMPEG_CODINGS:
        raise limits.AudioError(f"cannot be decoded: a WAVE of the unknown coding {coding:#06x}")
    return max(frame_bytes, 1), plain


def _check_comm(fields: bytes, kind: bytes) -> tuple[int, bool]:
    channels, bits = int.from_bytes(fields[:2], "big"), int.from_bytes(fields[6:8], "big")
    coding = fields[18:22] if kind == b"AIFC" else b"NONE"
    return max(channels * ((bits + 7) // 8), 1), coding in _AIFC_CODINGS


def check_au(file: BinaryIO, size: int) -> Chunks:
    """Checks AU, also known as SND."""
    fields = file.read(24)
    if len(fields) < 12:
        raise limits.AudioError("cut short within its header")
    start, length = int.from_bytes(fields[4:8], "big"), int.from_bytes(fields[8:12], "big")
    present = size - start
    if length == 0xFFFFFFFF or (length == 0 and present > limits.HARMLESS_REST_BYTES):
        coding, channels = (int.from_bytes(fields[at : at + 4], "big") for at in (12, 20))
        frame_bytes = max(_AU_SAMPLE_BYTES.get(coding, 1) * channels, 1)
        patches = {} if length else {8: b"\xff\xff\xff\xff"}
        return Chunks(patches=patches, notes=(note(present, frame_bytes),))
    limits.compare(length, present, limits.HARMLESS_REST_BYTES)
    return Chunks()


def check_w64(file: BinaryIO, size: int) -> Chunks:
    """Checks Sony's Wave64: 64-bit lengths, which include the 24-byte header of each chunk."""
    position, frame_bytes, plain = 40, 1, True
    while position + 24 <= size:
        file.seek(position)
        name, length = file.read(16)[:4], int.from_bytes(file.read(8), "little") - 24
        position += 24
        left_open = name == b"data" and (length == -24 or length >= _UNKNOWN_LONG)
        if length < 0 and not left_open:
            raise limits.AudioError("its header is damaged: a part of it has a negative length")
        if name == b"fmt " and length >= 16:
            frame_bytes, plain = _check_fmt(file.read(min(length, 40)), "little")
        if name == b"data":
            present = size - position
            if left_open and present:
                patch = {position - 8: (present + 24).to_bytes(8, "little")}
                return Chunks(plain, patch, (note(present, frame_bytes),))
            _check_w64_rest(file, position, length, size)
            return Chunks(plain)
        position += length + -length % 8
    raise limits.AudioError(_NO_SAMPLES)


def _check_w64_rest(file: BinaryIO, position: int, length: int, size: int) -> None:
    if length > size - position:
        limits.compare(length, size - position, 1)
    rest = position + length + -length % 8
    while rest + 24 <= size:
        file.seek(rest)
        name, bytes_ = file.read(16), int.from_bytes(file.read(8), "little")
        if name.startswith(b"riff\x2e\x91\xcf\x11"):
            raise limits.two_recordings(rest)
        if bytes_ < 24 or rest + bytes_ > size:
            break
        rest += bytes_ + -bytes_ % 8
    if size - rest > limits.HARMLESS_REST_BYTES:
        limits.compare(length, size - position, 1)


def check_caf(file: BinaryIO, size: int) -> Chunks:
    """Checks Apple's CAF: 64-bit lengths; -1 means that samples go on to the end of the file."""
    position, frame_bytes, plain = 8, 1, True
    data_at = data_bytes = 0
    trim = None
    while position + 12 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(8), "big", signed=True)
        present = size - position - 12
        if data_at and name == b"caff":
            raise limits.two_recordings(position)
        if data_at and (not is_name(name) or not 0 <= length <= present):
            break
        position += 12
        if name == b"desc":
            fields = file.read(32)
            plain = fields[8:12] in _CAF_CODINGS
            frame_bytes = int.from_bytes(fields[16:20], "big") or 1
        if name == b"pakt":
            fields = file.read(24)
            trim = int.from_bytes(fields[16:20], "big"), int.from_bytes(fields[8:16], "big")
        if name == b"data":
            if length in (-1, 0) and present > 4:
                patch = {position - 8: present.to_bytes(8, "big")}
                # The first four bytes are the edit count.
                return Chunks(plain, patch, (note(present - 4, frame_bytes),), trim)
            data_at, data_bytes = position, length
            if length > present:
                limits.compare(length, present, 1)
        if length < 0:
            raise limits.AudioError("its header is damaged: a part of it has a negative length")
        position += length
    if not data_at:
        raise limits.AudioError(_NO_SAMPLES)
    if size - position > limits.HARMLESS_REST_BYTES:
        limits.compare(data_bytes, size - data_at, 1)
    return Chunks(plain, trim=trim)


def _check_rest(file: BinaryIO, order: _Order, position: int, length: int, size: int) -> None:
    present = size - position
    if length > present:
        limits.compare(length, present, 1)
    rest = position + length + length % 2
    while rest + 8 <= size:
        file.seek(rest)
        name, bytes_ = file.read(4), int.from_bytes(file.read(4), order)
        if name in (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM"):
            raise limits.two_recordings(rest)
        if not is_name(name) or rest + 8 + bytes_ > size:
            break
        rest += 8 + bytes_ + bytes_ % 2
    if size - rest > limits.HARMLESS_REST_BYTES:
        limits.compare(length, present, 1)


def is_name(name: bytes) -> bool:
    """Returns whether four bytes can be the name of a chunk."""
    return name.isascii() and name.decode().isprintable()
