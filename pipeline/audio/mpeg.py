"""Counts the frames of MPEG audio (MP1, MP2, MP3) and of AAC in ADTS.

libsndfile takes an MP3's length from its Xing header and guesses it if there is none; here, the
frames are counted. References: ISO/IEC 11172-3 and 13818-3 (frame headers), 13818-7 (ADTS), Gabriel
Bouvigne, "MP3 Info Tag revision 1" (Xing, Info).
"""

import dataclasses
from typing import BinaryIO

_BLOCK_BYTES = 2**20
_RATES = ((11025, 12000, 8000), (), (22050, 24000, 16000), (44100, 48000, 32000))
_KBITS_1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_KBITS_2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)


@dataclasses.dataclass(frozen=True)
class Part:
    """Frames of one recording in a file that may hold several.

    Attributes:
        start: its first byte.
        stop: the byte after its last whole frame.
        count: number of whole frames, except one that holds a Xing header instead of sound.
        promised: number of frames according to the Xing header; None if there is none.
    """

    start: int
    stop: int
    count: int
    promised: int | None


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames found in an MP3.

    Attributes:
        parts: the recordings in it, in order; each begins with a Xing header, after a tag, or
            where the rate changes.
        odd_at: the byte at which something other than frames and tags begins; or None.
        rest: number of bytes of an incomplete last frame.
    """

    parts: tuple[Part, ...]
    odd_at: int | None
    rest: int


def frame_bytes(head: bytes) -> int | None:
    """Returns the length of the frame that begins with four bytes; None if no frame does.

    A free-format frame does not give its length; None is returned for it.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[version][rate_index]
    bits = (_KBITS_1 if version == 3 else _KBITS_2)[layer - 1][index - 1] * 1000
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def adts_bytes(head: bytes) -> int | None:
    """Returns the length of the ADTS frame that begins with seven bytes; None if no frame does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return None
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length >= 7 else None


def kind_of(head: bytes) -> str | None:
    """Returns `mp3` (any layer) or `adts` if consecutive frames begin at the first byte, or None.

    Args:
        head: at least one frame, and the start of the next unless the file ends there.
    """
    for kind, measure in (("mp3", frame_bytes), ("adts", adts_bytes)):
        length = measure(head)
        if length is not None:
            following = head[length : length + 7]
            if not following or measure(following.ljust(7, b"\0")) is not None:
                return kind
            if following.startswith((b"TAG", b"APETAGEX"[: len(following)])):
                return kind
    return None


def xing_frames(frame: bytes) -> int | None:
    """Returns the frame count in a frame's Xing header: -1 if it has none, None without header."""
    version, mono = frame[1] >> 3 & 3, frame[3] >> 6 == 3
    # The Xing header follows the frame header and the side information.
    place = 4 + {(3, True): 17, (3, False): 32, (2, False): 17, (0, False): 17}.get(
        (version, mono), 9
    )
    for at in (place, place + 2):
        if frame[at : at + 4] in (b"Xing", b"Info"):
            flags = int.from_bytes(frame[at + 4 : at + 8], "big")
            return int.from_bytes(frame[at + 8 : at + 12], "big") if flags & 1 else -1
    return None


def find(head: bytes) -> int | None:
    """Returns where the first of two consecutive frames of the same kind begins; or None."""
    for start in range(len(head) - 8):
        length = frame_bytes(head[start : start + 4])
        if length is not None:
            following = head[start + length : start + length + 4]
            if frame_bytes(following) and _fixed(following) == _fixed(head[start : start + 4]):
                return start
    return None


def _fixed(head: bytes) -> tuple[int, int, bool]:
    """Returns what is constant in a recording; bit rate, padding and stereo mode may change."""
    return head[1] & 0xFE, head[2] & 0x0C, head[3] >> 6 == 3


def walk(file: BinaryIO, size: int, start: int = 0) -> Frames:
    """Counts the frames of an MP3 in bounded memory.

    Args:
        file: binary, seekable.
        size: file size in bytes.
        start: where the first frame begins.
    """
    parts: list[Part] = []
    place = begin = start
    count = 0
    promised: int | None = None
    kind: tuple[int, int, bool] | None = None
    base, data = 0, b""

    def finish() -> None:
        if place > begin:
            parts.append(Part(begin, place, count, promised))

    while place < size:
        if place + 4096 > base + len(data) and base + len(data) < size:
            file.seek(place)
            base, data = place, file.read(_BLOCK_BYTES)
        head = data[place - base : place - base + 4]
        length = frame_bytes(head)
        if length is None:
            tag = _tag_bytes(file, place)
            finish()
            if not tag:
                return Frames(tuple(parts), place, 0)
            place = begin = place + tag
            count, promised, kind = 0, None, None
            continue
        if place + length > size:
            finish()
            return Frames(tuple(parts), None, size - place)
        header = xing_frames(data[place - base : place - base + 64])
        if (header is not None and place > begin) or kind not in (None, _fixed(head)):
            finish()
            begin, count, promised = place, 0, None
        kind = _fixed(head)
        if header is None:
            count += 1
        else:
            promised = None if header < 0 else header
        place += length
    finish()
    return Frames(tuple(parts), None, 0)


def id3_bytes(head: bytes) -> int:
    """Returns the length of an ID3v2 tag from its first ten bytes; 0 if there is none."""
    if not head.startswith(b"ID3") or len(head) < 10 or any(byte > 127 for byte in head[6:10]):
        return 0
    length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    # A footer repeats the ten bytes of the header.
    return 10 + length + 10 * (head[5] >> 4 & 1)


def _tag_bytes(file: BinaryIO, place: int) -> int:
    """Returns the length of a tag between frames; 0 if there is none."""
    file.seek(place)
    head = file.read(2**17)
    if head.startswith(b"TAG"):
        return 128
    if head.startswith(b"APETAGEX"):
        header = bool(head[23] & 0x20) if len(head) > 23 else False
        return int.from_bytes(head[12:16], "little") + 32 * header or 32
    if head.startswith(b"LYRICSBEGIN"):
        end = head.find(b"LYRICS200")
        return end + 9 if end >= 0 else 0
    return id3_bytes(head)


def trailing_bytes(file: BinaryIO, size: int) -> int:
    """Returns the length of tags (ID3v1, APE) and zeros at the end of a file."""
    file.seek(max(size - 2**16, 0))
    tail = file.read()
    rest = tail
    while True:
        before = len(rest)
        if rest[-128:].startswith(b"TAG"):
            rest = rest[:-128]
        elif rest[-32:].startswith(b"APETAGEX"):
            # The length includes the footer, but not a header of the same size.
            length = int.from_bytes(rest[-20:-16], "little") + 32 * (rest[-9] >> 7)
            rest = rest[: -max(length, 32)]
        elif rest.endswith(bytes(64)):
            rest = rest.rstrip(b"\0")
        if len(rest) == before:
            return len(tail) - len(rest)
