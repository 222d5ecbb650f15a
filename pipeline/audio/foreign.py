"""Checks that containers read by FFmpeg are whole, and that no other recording follows.

References: ISO/IEC 14496-12 (MP4), RFC 9559 (Matroska), RFC 8794 (EBML), Microsoft Advanced Systems
Format 1.20.03 (ASF), RFC 4867 (AMR), Adobe Flash Video File Format 10.1 (FLV), EA IFF 85 (8SVX),
MultimediaWiki (VOC, TTA).
"""

from collections.abc import Callable
from typing import BinaryIO

from pipeline.audio import limits

_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _cut(name: str, promised: int, present: int) -> limits.AudioError:
    return limits.AudioError(
        f"cut short: its part {name} promises {promised} bytes, {present} are there"
    )


def _refuse_rest(file: BinaryIO, size: int, position: int, magic: bytes = b"") -> None:
    """Raises if bytes follow the last part, or another file, which begins with `magic`."""
    file.seek(position)
    if magic and file.read(len(magic)) == magic:
        raise limits.two_recordings(position)
    if size - position > limits.HARMLESS_REST_BYTES:
        raise limits.AudioError(
            f"damaged: {size - position} bytes follow at byte {position} that belong to no part"
        )


def check_mp4(file: BinaryIO, size: int) -> None:
    """Checks that an MP4 (also m4a, 3gp, mov) is complete and has one index."""
    position, index_at, begun_at = 0, None, 0
    while position + 8 <= size:
        file.seek(position)
        length, name = int.from_bytes(file.read(4), "big"), file.read(4)
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        elif length == 0:
            length = size - position
        if length < 8 or not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in name):
            break
        if name == b"moov":
            if index_at is not None:
                raise limits.two_recordings(begun_at or position)
            index_at = position
        if name == b"ftyp":
            begun_at = position
        if position + length > size:
            raise _cut(name.decode("latin-1"), length, size - position)
        position += length
    if index_at is None:
        raise limits.AudioError(
            "cut short: its index (moov), which recorders write last, is missing"
        )
    _refuse_rest(file, size, position)


def check_matroska(file: BinaryIO, size: int) -> None:
    """Checks that a Matroska or WebM file is complete."""
    position = 0
    while position + 12 <= size:
        file.seek(position)
        head = file.read(16)
        id_bytes = 9 - head[0].bit_length()
        length, length_bytes = _ebml_length(head[id_bytes:])
        if length is None:
            # Browsers record without a known length; the segment goes on to the end.
            return
        end = position + id_bytes + length_bytes + length
        if id_bytes > 4 or not length_bytes:
            return
        if end > size:
            raise _cut("Segment", length, size - position)
        position = end


def _ebml_length(head: bytes) -> tuple[int | None, int]:
    """Returns a number of variable length (None if it means unknown) and its size in bytes."""
    count = 9 - head[0].bit_length() if head else 9
    if count > 8 or len(head) < count:
        return 0, 0
    value = int.from_bytes(head[:count], "big") & ((1 << 7 * count) - 1)
    return (None if value == (1 << 7 * count) - 1 else value), count


def check_asf(file: BinaryIO, size: int) -> None:
    """Checks that an ASF file (also WMA, WMV) is complete."""
    position = 0
    while position + 24 <= size:
        file.seek(position)
        name, length = file.read(16), int.from_bytes(file.read(8), "little")
        if position and name == _ASF_HEADER:
            raise limits.two_recordings(position)
        if length < 24:
            # The length of a live stream is not known.
            return
        if position + length > size:
            raise _cut("Data" if name == _ASF_DATA else "Header", length, size - position)
        position += length


def check_avi(file: BinaryIO, size: int) -> None:
    """Checks that an AVI file is complete."""
    position = 0
    while position + 12 <= size:
        file.seek(position)
        name, length, kind = file.read(4), int.from_bytes(file.read(4), "little"), file.read(4)
        if name == b"RIFF" and kind == b"AVI " and position:
            raise limits.two_recordings(position)
        if name == b"RIFF" and length in (0, 0xFFFFFFFF):
            return
        if name not in (b"RIFF", b"JUNK", b"idx1"):
            break
        if position + 8 + length > size:
            raise _cut(name.decode(), length, size - position - 8)
        position += 8 + length + length % 2
    _refuse_rest(file, size, position)


def check_flv(file: BinaryIO, size: int) -> None:
    """Checks that an FLV file is complete, and that no other one follows."""
    file.seek(5)
    position = int.from_bytes(file.read(4), "big") + 4
    while position + 11 <= size:
        file.seek(position)
        head = file.read(4)
        if head[0] & 0x1F not in (8, 9, 18):
            break
        length = 11 + int.from_bytes(head[1:], "big")
        if position + length > size:
            raise _cut("tag", length, size - position)
        position += length + 4
    _refuse_rest(file, size, position, b"FLV\x01")


def check_voc(file: BinaryIO, size: int) -> None:
    """Checks that a Creative Voice File is complete, and that no other one follows."""
    magic = file.read(20)
    position = int.from_bytes(file.read(2), "little")
    while position < size:
        file.seek(position)
        head = file.read(4)
        if not head[0]:
            # The last block, which has no length.
            position += 1
            break
        length = 4 + int.from_bytes(head[1:], "little")
        if position + length > size:
            raise _cut("block", length, size - position)
        position += length
    _refuse_rest(file, size, position, magic)


def check_8svx(file: BinaryIO, size: int) -> None:
    """Checks that an 8SVX file is complete, and that no other one follows."""
    magic, length = file.read(4), int.from_bytes(file.read(4), "big")
    if length in (0, 0xFFFFFFFF):
        return
    if 8 + length > size:
        raise _cut("FORM", length, size - 8)
    _refuse_rest(file, size, 8 + length + length % 2, magic)


def alone(magic: bytes) -> Callable[[BinaryIO, int], None]:
    """Returns a check that no other file, which would begin with `magic`, follows."""

    def check(file: BinaryIO, size: int) -> None:
        file.seek(1)
        place, last = 1, b""
        while block := file.read(2**20):
            found = (last + block).find(magic)
            if found >= 0:
                raise limits.two_recordings(place - len(last) + found)
            place, last = place + len(block), block[1 - len(magic) :]

    return check
