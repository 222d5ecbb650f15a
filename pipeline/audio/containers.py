"""Whether a file holds as much audio as its headers promise, before anything is decoded.

libsndfile takes what it finds: it shortens a cut WAV or SPHERE file to what is there, skips damaged
Ogg pages, and stops where a FLAC header tells it to. In a corpus each of these is a recording that
is not what its manifest says, so the containers' own lengths and checksums are held against the
bytes here. Decoding stays with libsndfile.

References: NIST SPHERE (`sph2pipe`'s and libsndfile's documentation of the header), Microsoft
Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64), RFC 3533 (Ogg), RFC 9639 (FLAC),
Apple Core Audio Format Specification 1.0 (CAF), libsndfile's documentation of AU and W64.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Callable
from typing import BinaryIO, Literal

import numpy as np

from pipeline import errors

_Order = Literal["big", "little"]
_NO_SAMPLES = "cut short before its first sample, or without any"
_SPHERE_CODINGS = ("pcm", "linear", "ulaw", "mu-law", "pculaw", "alaw", "a-law", "pcalaw")


class AudioError(errors.UserError):
    """Bytes are not a recording that can be used; the message says why."""


def check(file: BinaryIO) -> str:
    """Recognises a recording by its first bytes and checks its container.

    Args:
        file: binary, seekable; left at its start.

    Returns:
        `sphere`, `riff`, `rf64`, `flac`, `ogg`, or another format that libsndfile reads.

    Raises:
        AudioError: empty, not audio, cut short, a header that lies, or a damaged page.
    """
    if not file.seekable():
        raise AudioError("a pipe, and not a file: write it to one first")
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    if not size:
        raise AudioError("empty: it has no bytes")
    for pattern, kind, checker in _FORMATS:
        if pattern.match(head):
            file.seek(0)
            if checker is not None:
                checker(file, size)
            file.seek(0)
            return kind
    if not any(head):
        raise AudioError("not audio: it begins with zeros")
    raise AudioError(
        f"not audio that is known here (WAV, FLAC, OGG, SPHERE, …): it begins with {head[:8]!r}"
    )


class FlacChecksum:
    """The MD5 that a FLAC file's header promises for its samples, against those decoded."""

    def __init__(self, file: BinaryIO) -> None:
        """Reads the header and leaves the file at its start."""
        file.seek(0)
        head = file.read(42)
        file.seek(0)
        fields = int.from_bytes(head[18:26], "big")
        self._bits = (fields >> 36 & 31) + 1
        self._promised = head[26:42]
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def known(self) -> bool:
        """Whether there is a checksum, of a width that decodes to whole bytes."""
        return any(self._promised) and self._bits in (8, 16, 24)

    def update(self, samples: np.ndarray) -> None:
        """Takes the next decoded samples, float32 `[sample, channel]`."""
        # Exact in float32: at most 24 bits, scaled by a power of two.
        values = samples * np.float32(2 ** (self._bits - 1))
        if self._bits == 24:
            whole = values.astype("<i4")[..., np.newaxis]
            self._md5.update(whole.view(np.uint8)[..., :3].tobytes())
        else:
            self._md5.update(values.astype(f"<i{self._bits // 8}").tobytes())

    def check(self) -> None:
        """Call when all samples have been decoded.

        Raises:
            AudioError: they are not those that were encoded.
        """
        if self._md5.digest() != self._promised:
            raise AudioError("damaged or cut: the samples do not fit the checksum in its header")


def _check_sphere(file: BinaryIO, size: int) -> None:
    match = re.fullmatch(rb"NIST_1A\n\s*(\d+)\s*\n", file.read(16))
    if match is None:
        raise AudioError("its SPHERE header is damaged")
    header_bytes = int(match[1])
    header, end, _ = file.read(max(min(header_bytes, size) - 16, 0)).partition(b"end_head")
    if not end:
        raise AudioError("cut short within its SPHERE header")
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n"):
        words = line.split(maxsplit=2)
        if len(words) > 1:
            # libsndfile takes the first of two.
            fields.setdefault(words[0], words[2].strip() if len(words) > 2 else "")
    coding = fields.get("sample_coding", "pcm").lower()
    if "shorten" in coding or "wavpack" in coding or "shortpack" in coding:
        packer = coding.partition("embedded-")[2] or coding
        raise AudioError(f"compressed with {_short(packer)}; convert it with sph2pipe first")
    if coding not in _SPHERE_CODINGS:
        raise AudioError(f"its SPHERE header names a coding {_short(coding)} that is not known")
    count = _sphere_number(fields, "sample_count")
    channels = _sphere_number(fields, "channel_count", "1")
    width = _sphere_number(fields, "sample_n_bytes", "1" if "law" in coding else "2")
    check_rate_and_channels(_sphere_number(fields, "sample_rate"), channels)
    if width not in (1, 2, 3, 4):
        raise AudioError(f"its SPHERE header promises samples of {width} bytes")
    order = fields.get("sample_byte_format")
    digits = "0123"[:width]
    if width > 1 and order is not None and order not in (digits, digits[::-1]):
        raise AudioError(f"its SPHERE header names an order of bytes {_short(order)}, not {digits}")
    _compare(count * channels * width, size - header_bytes, channels * width)


def _sphere_number(fields: dict[str, str], name: str, default: str | None = None) -> int:
    text = fields.get(name, default)
    if text is None:
        raise AudioError(f"its SPHERE header is damaged: it has no {name}")
    # Rates may be written as reals, counts as 1.2e5 hardly; 18 digits are more than a disk holds.
    match = re.fullmatch(r"(-?[0-9]{1,18})(\.[0-9]*)?", text)
    if match is None:
        raise AudioError(f"its SPHERE header is damaged: {name} is {_short(text)}")
    return int(match[1])


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _check_riff(file: BinaryIO, size: int) -> None:
    """RIFF, RIFX and RF64; also AIFF, which has the same chunks under other names."""
    head = file.read(12)
    order: _Order = "big" if head[:4] in (b"RIFX", b"FORM") else "little"
    samples_chunk = b"SSND" if head[:4] == b"FORM" else b"data"
    if head[8:] not in (b"WAVE", b"AIFF", b"AIFC"):
        raise AudioError("a RIFF file, but not a WAVE")
    data_bytes_64 = None
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(4), order)
        position += 8
        if name == b"ds64":
            data_bytes_64 = int.from_bytes(file.read(16)[8:], "little")
        if name == b"fmt " and length >= 16:
            _check_fmt(file.read(16), order)
        if name == samples_chunk:
            if length == 0xFFFFFFFF and data_bytes_64 is not None:
                length = data_bytes_64
            # Programs that write into a pipe cannot know the length: all that follows is audio.
            elif length >= 0x7FFFF000 and length > size - position:
                return
            _check_riff_data(file, order, position, length, size)
            return
        position += length + length % 2
    raise AudioError(_NO_SAMPLES)


def _check_fmt(fields: bytes, order: _Order) -> None:
    if len(fields) < 16:
        raise AudioError(_NO_SAMPLES)
    coding, channels, rate, _, frame_bytes, bits = (
        int.from_bytes(fields[start:stop], order)
        for start, stop in ((0, 2), (2, 4), (4, 8), (8, 12), (12, 14), (14, 16))
    )
    check_rate_and_channels(rate, channels)
    # Linear samples lie in whole bytes; libsndfile would read others as if they were narrower.
    if coding in (1, 3, 0xFFFE) and frame_bytes != channels * ((bits + 7) // 8):
        raise AudioError(
            f"its header contradicts itself: {channels} channel(s) of {bits} bits in {frame_bytes} "
            "bytes"
        )


def _check_au(file: BinaryIO, size: int) -> None:
    fields = file.read(12)
    if len(fields) < 12:
        raise AudioError("cut short within its header")
    start, length = int.from_bytes(fields[4:8], "big"), int.from_bytes(fields[8:], "big")
    # All ones: the length was not known.
    if length != 0xFFFFFFFF:
        _compare(length, size - start, _HARMLESS_REST_BYTES)


def _check_w64(file: BinaryIO, size: int) -> None:
    position = 40
    while position + 24 <= size:
        file.seek(position)
        name, length = file.read(16)[:4], int.from_bytes(file.read(8), "little") - 24
        position += 24
        if length < 0:
            raise AudioError("its header is damaged: a part of it has a negative length")
        if name == b"data":
            _compare(length, min(length, size - position), 1)
            return
        position += length + -length % 8
    raise AudioError(_NO_SAMPLES)


def _check_caf(file: BinaryIO, size: int) -> None:
    position = 8
    while position + 12 <= size:
        file.seek(position)
        name, length = file.read(4), int.from_bytes(file.read(8), "big", signed=True)
        position += 12
        # -1: as far as the file goes.
        if name == b"data" and length == -1:
            return
        if length < 0:
            raise AudioError("its header is damaged: a part of it has a negative length")
        if name == b"data":
            _compare(length, min(length, size - position), 1)
            return
        position += length
    raise AudioError(_NO_SAMPLES)


def _check_riff_data(file: BinaryIO, order: _Order, position: int, length: int, size: int) -> None:
    present = size - position
    if length > present:
        _compare(length, present, 1)
    rest = position + length + length % 2
    while rest + 8 <= size:
        file.seek(rest)
        name, bytes_ = file.read(4), int.from_bytes(file.read(4), order)
        if not (name.isascii() and name.decode().isprintable()) or rest + 8 + bytes_ > size:
            break
        rest += 8 + bytes_ + bytes_ % 2
    # Taggers leave some bytes behind that are no chunk; audio that no header names is more.
    if size - rest > _HARMLESS_REST_BYTES:
        _compare(length, present, 1)


def _check_ogg(file: BinaryIO, size: int) -> None:
    position, last = 0, False
    while position < size:
        file.seek(position)
        head = file.read(27)
        table = file.read(head[26]) if len(head) == 27 else b""
        body_bytes = sum(table)
        if len(head) < 27 or len(table) < head[26] or position + 27 + len(table) > size:
            raise AudioError("cut short: its last page is not whole")
        if head[:4] != b"OggS":
            raise AudioError(f"damaged at byte {position}: an Ogg page should begin there")
        body = file.read(body_bytes)
        if len(body) < body_bytes:
            raise AudioError("cut short: its last page is not whole")
        blank = head[:22] + bytes(4) + head[26:]
        if _ogg_crc(blank + table + body) != int.from_bytes(head[22:26], "little"):
            raise AudioError(f"damaged: the checksum of the page at byte {position} is wrong")
        last = bool(head[5] & 4)
        position += 27 + len(table) + body_bytes
    if not last:
        raise AudioError("cut short: the page that ends an Ogg stream is missing")


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Ogg's CRC-32 by zlib's: the same polynomial, but highest bit first and without inversion."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def check_rate_and_channels(rate: int, channels: int) -> None:
    """Raises AudioError where a header promises what no recording of a voice has."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"its header promises {rate} samples a second")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"its header promises {channels} channels")


def _compare(promised: int, present: int, unit: int) -> None:
    if present < promised:
        raise AudioError(
            f"cut short: its header promises {promised} bytes of samples, {max(present, 0)} follow"
        )
    if present >= promised + unit:
        raise AudioError(
            f"its header promises {promised} bytes of samples, but {present} follow it"
        )


MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
_HARMLESS_REST_BYTES = 4096

_Checker = Callable[[BinaryIO, int], None]
_FORMATS: tuple[tuple[re.Pattern[bytes], str, _Checker | None], ...] = (
    (re.compile(rb"NIST_1A"), "sphere", _check_sphere),
    (re.compile(rb"RIFF|RIFX"), "riff", _check_riff),
    (re.compile(rb"RF64"), "rf64", _check_riff),
    (re.compile(rb"fLaC"), "flac", None),
    (re.compile(rb"OggS"), "ogg", _check_ogg),
    (re.compile(rb"FORM....AIF[FC]", re.DOTALL), "aiff", _check_riff),
    (re.compile(rb"\.snd"), "au", _check_au),
    (re.compile(rb"caff"), "caf", _check_caf),
    (re.compile(rb"riff\x2e\x91\xcf\x11"), "w64", _check_w64),
    (re.compile(rb"ID3|\xff[\xe2-\xfb]"), "mp3", None),
)
