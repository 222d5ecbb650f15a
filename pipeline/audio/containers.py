"""Whether a file holds as much audio as its headers promise, before anything is decoded.

libsndfile takes what it finds: it shortens a cut WAV or SPHERE file to what is there, skips damaged
Ogg pages, and stops where a header tells it to. In a corpus each of these is a recording that is
not what its manifest says, so the containers' own lengths and checksums are held against the bytes
here. Where a header is known to be wrong, decoders are shown what it should have said.

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
        patches: what decoders are to read at which position, counted from `start`.
        num_samples: per channel, where the header's number must be compared with what is decoded;
            None where the decoder tells, if anything does.
        trim: samples that FFmpeg decodes before the recording, and those of it; None where it
            knows.
    """

    start: int
    stop: int
    decoder: str
    patches: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    num_samples: int | None = None
    trim: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Container:
    """What a file is, and how it is to be read.

    Attributes:
        kind: as `recognition.kind_of` calls it; empty where it is not known.
        parts: follow each other.
        notes: what a person has to know of how it is read.
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
        AudioError: empty, not audio, cut short, a header that lies, or a damaged page.
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
        # Encoders leave zeros behind a tag; who cuts an MP3 does not look for its frames.
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
    """Where the recording begins: after ID3v2 tags, which programs put in front of anything."""
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
    # Whatever follows the last frame is taken for more sound, so that tags are kept out.
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
        # FFmpeg looks for what may come later; what it makes of the rest is its own affair.
        notes.append(f"something else than frames begins at its byte {frames.odd_at}")
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
    "amr": foreign.check_amr,
}
