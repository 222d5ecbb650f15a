"""Checks that all pages of an Ogg file are whole, and finds the recordings in it.

RFC 3533 lets logical streams follow each other ("chained"); libsndfile reads only the first.
"""

import zlib
from typing import BinaryIO

from pipeline.audio import limits

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
# What libsndfile decodes, by the first bytes of the first packet of a stream.
_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC")


def check(file: BinaryIO, size: int) -> tuple[list[tuple[int, int]], bool]:
    """Checks each page of a file.

    Args:
        file: at its start.
        size: file size in bytes.

    Returns:
        Where each recording in it begins and ends, in bytes; and whether libsndfile decodes them,
        which is so if each has one stream of Vorbis, Opus or FLAC.

    Raises:
        AudioError: the file is cut short, or a page is damaged.
    """
    starts: list[int] = []
    open_streams: set[bytes] = set()
    plain = beginning = True
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(27)
        table = file.read(head[26]) if len(head) == 27 else b""
        body_bytes = sum(table)
        if len(head) < 27 or len(table) < head[26] or position + 27 + len(table) > size:
            raise limits.AudioError("cut short: its last page is not whole")
        if head[:4] != b"OggS":
            raise limits.AudioError(f"damaged at byte {position}: an Ogg page should begin there")
        body = file.read(body_bytes)
        if len(body) < body_bytes:
            raise limits.AudioError("cut short: its last page is not whole")
        blank = head[:22] + bytes(4) + head[26:]
        if crc(blank + table + body) != int.from_bytes(head[22:26], "little"):
            raise limits.AudioError(
                f"damaged: the checksum of the page at byte {position} is wrong"
            )
        first, last, serial = head[5] & 2, head[5] & 4, head[14:18]
        if first:
            if not (beginning and starts):
                if open_streams:
                    raise limits.AudioError(
                        f"cut short: the page that ends an Ogg stream is missing before byte "
                        f"{position}, where another begins"
                    )
                starts.append(position)
            else:
                plain = False
            plain &= body.startswith(_CODECS)
            open_streams.add(serial)
        elif serial not in open_streams:
            raise limits.AudioError(f"damaged: the page at byte {position} belongs to no stream")
        beginning = bool(first)
        if last:
            open_streams.discard(serial)
        position += 27 + len(table) + body_bytes
    if open_streams or not starts:
        raise limits.AudioError("cut short: the page that ends an Ogg stream is missing")
    return list(zip(starts, [*starts[1:], size], strict=True)), plain


def crc(page: bytes) -> int:
    """Returns Ogg's CRC-32: zlib's polynomial, but highest bit first and without inversion."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
