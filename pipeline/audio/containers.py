"""Checks that a file holds as much audio as its headers promise, before decoding.

libsndfile does not check this: it shortens a cut WAV or SPHERE file to what is there, skips damaged
Ogg pages, and stops where a header says so. In a corpus, each of these is a recording that does not
match its manifest. The containers' own lengths and checksums are therefore compared with the bytes
here. Where a header is known to be wrong, decoders are given the corrected one.

References: NIST SPHERE (`sph2pipe`'s and libsndfile's documentation of the header), Microsoft
Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64), Apple Core
Audio Format Specification 1.0 (CAF), libsndfile's documentation of AU and W64, ID3v2.4.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from pipeline.audio import chunked, flac, foreign, limits, mpeg, ogg, recognition, sphere, views

_Found = tuple["Sequence[Part]", tuple[str, ...]]
LIBSNDFILE, FFMPEG = "libsndfile", "FFmpeg"


@dataclasses.dataclass(frozen=True)
class Part:
    """A recording in a file; most files have one.

    Attributes:
        start: its first byte.
        stop: the byte after its last.
        decoder: `LIBSNDFILE` or `FFMPEG`.
        patches: bytes that decoders read instead of those in the file, by position from `start`.
        num_samples: per channel, if the number in the header must be compared with the number of
            decoded samples; None if only the decoder can tell.
        trim: the number of samples that FFmpeg decodes before the recording, and in it; None if
            FFmpeg determines them itself.
    """

    start: int
    stop: int
    decoder: str
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    num_samples: int | None = None
    trim: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Container:
    """What a file is, and how to read it.

    Attributes:
        kind: the name that `recognition.kind_of` gives it; empty if unknown.
        parts: the recordings in it, in order.
        notes: what a user should know about how it is read.
        head: the first bytes, for messages.
    """

    kind: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    head: bytes = b""


def check(file: BinaryIO) -> Container:
    """Recognises a recording by its first bytes and checks its container.

    Args:
        file: binary, seekable; left at its start.

    Raises:
        AudioError: the file is empty, not audio or cut short, its header is wrong, or a page is
            damaged.
    """
    if not file.seekable():
        raise limits.AudioError("a pipe, and not a file: write it to one first")
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise limits.AudioError("empty: it has no bytes")
    start = _after_tags(file, size)
    inner: BinaryIO = views.View(file, start, size) if start else file  # type: ignore[assignment]
    inner.seek(0)
    head = inner.read(recognition.HEAD_BYTES)
    kind = recognition.kind_of(head)
    if kind is None and (start or mpeg.find(head) is not None):
        # Encoders leave zeros after a tag, and an MP3 may have been cut in the middle of a frame.
        kind = "mp3"
    if kind is None and recognition.is_something_else(head):
        raise limits.AudioError(f"not audio: {recognition.describe(head)}")
    inner.seek(0)
    parts: Sequence[Part] = (Part(0, size - start, FFMPEG),)
    notes: tuple[str, ...] = ()
    if kind in _CHECKERS:
        parts, notes = _CHECKERS[kind](inner, size - start)
    elif kind in _FOREIGN:
        _FOREIGN[kind](inner, size - start)
    file.seek(0)
    if start:
        parts = [
            dataclasses.replace(part, start=part.start + start, stop=part.stop + start)
            for part in parts
        ]
    return Container(kind or "", tuple(parts), notes, head)


def _after_tags(file: BinaryIO, size: int) -> int:
    """Returns where the recording begins, after the ID3v2 tags that any format may start with."""
    start = 0
    while True:
        file.seek(start)
        length = mpeg.id3_bytes(file.read(10))
        if not length:
            return start
        start += length
        if start >= size:
            raise limits.AudioError("cut short within its ID3 tag, or nothing follows it")


def _check_sphere(file: BinaryIO, size: int) -> _Found:
    return [Part(0, size, LIBSNDFILE, sphere.check(file, size))], ()


def _check_flac(file: BinaryIO, size: int) -> _Found:
    header = file.read(flac.HEADER_BYTES)
    promised = flac.num_samples(header)
    patches = flac.without_length(header) if promised and len(header) == flac.HEADER_BYTES else {}
    # The decoder would take whatever follows the last frame for more sound, so tags are left out.
    stop = size - mpeg.trailing_bytes(file, size)
    return [Part(0, stop, LIBSNDFILE, patches, promised)], ()


def _check_ogg(file: BinaryIO, size: int) -> _Found:
    links, plain = ogg.check(file, size)
    if not plain and len(links) > 1:
        raise limits.two_recordings(links[1][0])
    return [Part(first, last, LIBSNDFILE if plain else FFMPEG) for first, last in links], ()


def _check_mp3(file: BinaryIO, size: int) -> _Found:
    start = mpeg.find(file.read(recognition.HEAD_BYTES)) or 0
    frames = mpeg.walk(file, size - mpeg.trailing_bytes(file, size), start)
    notes = [f"begins within a frame: its first {start} bytes are left out"] if start else []
    parts = []
    for part in frames.parts:
        promised = part.promised
        if promised is not None and part.count + 1 < promised:
            raise limits.AudioError(
                f"cut short: its header promises {promised} frames, {part.count} are there"
            )
        if promised is not None and part.count > promised:
            notes.append(f"its header promises {promised} frames, but {part.count} are there")
        decoder = LIBSNDFILE if promised == part.count else FFMPEG
        parts.append(Part(part.start, part.stop, decoder))
    if frames.odd_at is not None:
        # FFmpeg searches for later frames itself; what it does with the rest is not checked here.
        notes.append(f"something other than frames begins at its byte {frames.odd_at}")
        first = frames.parts[-1].start if frames.parts else frames.odd_at
        parts[-1:] = [Part(first, size, FFMPEG)]
    if len(parts) > 1:
        notes.append(f"{len(parts)} recordings in one file, taken as one")
    if frames.rest:
        notes.append(f"its last frame is not whole: {frames.rest} bytes are left out")
    if not parts:
        raise limits.AudioError("cut short: it has no whole frame")
    return parts, tuple(notes)


def _of_chunks(check_: Callable[[BinaryIO, int], chunked.Chunks]) -> Callable[..., _Found]:
    def checker(file: BinaryIO, size: int) -> _Found:
        chunks = check_(file, size)
        decoder = LIBSNDFILE if chunks.plain else FFMPEG
        return [Part(0, size, decoder, chunks.patches, trim=chunks.trim)], chunks.notes

    return checker


_CHECKERS: dict[str, Callable[[BinaryIO, int], _Found]] = {
    "sphere": _check_sphere,
    "riff": _of_chunks(chunked.check_riff),
    "rf64": _of_chunks(chunked.check_riff),
    "aiff": _of_chunks(chunked.check_riff),
    "au": _of_chunks(chunked.check_au),
    "caf": _of_chunks(chunked.check_caf),
    "w64": _of_chunks(chunked.check_w64),
    "flac": _check_flac,
    "ogg": _check_ogg,
    "mp3": _check_mp3,
}
_FOREIGN: dict[str, Callable[[BinaryIO, int], None]] = {
    "mp4": foreign.check_mp4,
    "matroska": foreign.check_matroska,
    "asf": foreign.check_asf,
    "avi": foreign.check_avi,
    "amr": foreign.alone(b"#!AMR"),
    "tta": foreign.alone(b"TTA1\x01\x00"),
    "flv": foreign.check_flv,
    "voc": foreign.check_voc,
    "8svx": foreign.check_8svx,
}
