"""Reads and writes samples through pipes, WAV or raw; a WAV may be of unknown length."""

import fcntl
import io
import os
from collections.abc import Iterator
from typing import BinaryIO, Literal, Protocol

import numpy as np
import soundfile

from pipeline.audio import chunked, decoding, limits, recognition

# FFmpeg's names for raw sample formats, and libsndfile's.
RAW = {"s16le": "PCM_16", "f32le": "FLOAT"}
WAV = "wav"
FORMATS = (WAV, *RAW)

_SAMPLE_BYTES = {
    "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1,
    "ALAW": 1,
}  # fmt: skip
_READ_BYTES = 2**16
# Size limit for what precedes the samples, which may include pictures.
_MAX_HEADER_BYTES = 2**24
# 64-bit lengths from this value on mean that the writer did not know the length.
_UNKNOWN_LONG = 0x7FFFF00000000000


class Source:
    """Reads samples from a pipe, WAV or raw, as they arrive.

    Attributes:
        rate: in Hz.
        num_channels: number of channels in the pipe; `blocks` yields their mean.
        notes: what the user has to know about how the input was read, known at its end.
    """

    def __init__(
        self, file: BinaryIO, kind: str, rate: int | None, num_channels: int | None
    ) -> None:
        """Reads a WAV's header.

        Args:
            file: a binary file with `read1`.
            kind: one of `FORMATS`.
            rate: for raw samples; for a WAV, the expected value in its header, if any.
            num_channels: for raw samples, 1 by default; for a WAV, the expected value in its
                header, if any.

        Raises:
            AudioError: the input is not a WAV, or cannot be read.
        """
        self._file, self._kind = file, kind
        self._left: int | None = None
        self._died = False
        self.notes: list[str] = []
        self._endian = "LITTLE"
        if kind == WAV:
            head = self._read_header()
            self.rate, self.num_channels, self._subtype = head
            if rate is not None and rate != self.rate:
                raise decoding.AudioError(
                    f"standard input has {self.rate} Hz by its header, not the {rate} of --rate"
                )
            if num_channels not in (None, self.num_channels):
                raise decoding.AudioError(
                    f"standard input has {self.num_channels} channels by its header, not the "
                    f"{num_channels} of --channels"
                )
        else:
            assert rate is not None
            self.rate, self.num_channels, self._subtype = rate, num_channels or 1, RAW[kind]
        self._frame_bytes = self.num_channels * _SAMPLE_BYTES[self._subtype]

    def _read_header(self) -> tuple[int, int, str]:
        riff = self._file.read(12)
        if not riff:
            raise decoding.AudioError("standard input is empty")
        if riff[:4] not in (b"RIFF", b"RIFX", b"RF64", b"BW64") or riff[8:] != b"WAVE":
            # What has arrived by now, without waiting for more.
            head = riff + self._file.read1(_READ_BYTES)  # type: ignore[attr-defined]
            other = recognition.kind_of(head)
            what = f"it seems to be {other}" if other else recognition.describe(head)
            raise decoding.AudioError(
                f"standard input is no WAV: {what}; raw samples need --stdin=s16le or f32le, and "
                "perhaps --rate and --channels; a recording in another format is separated as a "
                "file (or as -, without --stream)"
            )
        order: Literal["big", "little"] = "big" if riff[:4] == b"RIFX" else "little"
        self._endian = order.upper()
        chunks, frame_bytes, place, long = b"", 0, 12, 0
        while True:
            name, size = self._file.read(4), self._file.read(4)
            length = int.from_bytes(size, order)
            place += 8
            if len(size) < 4 or (name != b"data" and len(chunks) + length > _MAX_HEADER_BYTES):
                raise decoding.AudioError("standard input is a WAV without samples")
            if name == b"data":
                break
            content = self._file.read(length + length % 2)
            place += len(content)
            if name == b"ds64":
                # In RF64, the length of the samples, which exceeds 32 bits.
                long = int.from_bytes(content[8:16], order)
            if name == b"fmt ":
                frame_bytes = int.from_bytes(content[12:14], order)
                chunks += name + size + content
        # GStreamer writes 0 for an unknown length of the samples, and a total that ends before
        # them. If the total is larger, other chunks follow and there really are no samples.
        empty = place < int.from_bytes(riff[4:8], order) + 8 < chunked.UNKNOWN_LENGTH
        long_form = riff[:4] in (b"RF64", b"BW64")
        if long_form and length >= chunked.UNKNOWN_LENGTH:
            self._left = long if 0 < long < _UNKNOWN_LONG else None
        elif not chunked.is_open(length, empty=empty):
            self._left = length
        # Programs that write to a pipe mark the length as unknown; a recorder that crashed leaves
        # it at 0.
        self._died = self._left is None and not length
        # The reader for files interprets the header, given a file with a single sample.
        one = frame_bytes.to_bytes(4, order) + bytes(frame_bytes)
        body = b"WAVE" + chunks + b"data" + one
        kind = b"RIFX" if order == "big" else b"RIFF"
        size = len(body).to_bytes(4, order)
        try:
            with decoding.Reader(io.BytesIO(kind + size + body)) as reader:
                facts = reader.rate, reader.num_channels, reader.subtype
        except decoding.AudioError as error:
            raise decoding.AudioError(f"standard input: {error}") from error
        if facts[2] not in _SAMPLE_BYTES:
            raise decoding.AudioError(
                f"standard input is a WAV of the coding {facts[2]}; only plain samples can be "
                "read as they come"
            )
        return facts

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the samples, as many at a time as have arrived.

        Yields:
            float32 `[sample]`.

        Raises:
            AudioError: the input ends within a sample, is shorter or longer than its header states,
                or has a sample that is NaN or infinite; all complete samples before that have then
                been yielded.
        """
        rest, num_bytes = b"", 0
        left_open = self._kind == WAV and self._left is None
        while data := self._read():
            num_bytes += len(data)
            data = rest + data
            whole = len(data) // self._frame_bytes * self._frame_bytes
            rest = data[whole:]
            if whole:
                block = self._decode(data[:whole])
                finite = np.isfinite(block).all(axis=1)
                if not finite.all():
                    yield decoding.mean_channel(block[: finite.argmin()])
                    raise decoding.AudioError(
                        "standard input holds samples that are NaN or infinite"
                    )
                yield decoding.mean_channel(block)
        if left_open and (rest or self._died):
            # The same note as for such a file.
            self.notes.append(f"standard input: {chunked.note(num_bytes, self._frame_bytes)}")
        elif rest:
            raise decoding.AudioError(
                f"standard input ended in the middle of a sample: {len(rest)} of "
                f"{self._frame_bytes} bytes"
            )
        if self._left:
            raise decoding.AudioError(
                f"standard input was cut short: its header promises "
                f"{self._left // self._frame_bytes} samples more"
            )
        if self._left == 0:
            self._check_rest()

    def _check_rest(self) -> None:
        """Checks that only chunks follow the samples, and not another recording."""
        rest = self._file.read(_MAX_HEADER_BYTES)
        long = len(rest) > limits.HARMLESS_REST_BYTES
        if rest[8:12] == b"WAVE" or (long and not chunked.is_name(rest[:4])):
            raise decoding.AudioError(
                f"standard input goes on with {len(rest)} bytes behind the samples that its header "
                "promises; separate recordings one by one"
            )

    def _read(self) -> bytes:
        size = _READ_BYTES if self._left is None else min(self._left, _READ_BYTES)
        data: bytes = self._file.read1(size) if size else b""  # type: ignore[attr-defined]
        if self._left is not None:
            self._left -= len(data)
        return data

    def _decode(self, data: bytes) -> np.ndarray:
        with soundfile.SoundFile(
            io.BytesIO(data), "r", self.rate, self.num_channels, self._subtype, self._endian, "RAW"
        ) as sound:
            return sound.read(dtype="float32", always_2d=True)


class Sink(Protocol):
    """An output for voices."""

    def write(self, voices: np.ndarray) -> None:
        """Appends float32 `[source, sample]`."""


class Pipe:
    """Writes voices as the channels of one stream of samples, WAV or raw.

    Attributes:
        clipped: number of samples that exceeded 16 bits.
    """

    def __init__(self, file: BinaryIO, kind: str, rate: int, num_voices: int) -> None:
        """Writes a WAV's header, with an unknown length.

        Args:
            file: a binary file.
            kind: one of `FORMATS`; a WAV has 16 bits.
            rate: in Hz.
            num_voices: number of channels.
        """
        self._file, self._float = file, kind == "f32le"
        self._start = _place(file) if kind == WAV else None
        self._bytes = 0
        self.clipped = 0
        if kind == WAV:
            file.write(_header(rate, num_voices, None))
            file.flush()
        self._rate, self._num_voices = rate, num_voices

    def write(self, voices: np.ndarray) -> None:
        """Appends float32 `[source, sample]` and flushes."""
        values = voices.T.astype("<f4")
        if not self._float:
            codes = np.rint(values * 32768)
            self.clipped += int((np.abs(codes + 0.5) > 32768).sum())
            values = codes.clip(-32768, 32767).astype("<i2")
        data = values.tobytes()
        self._file.write(data)
        self._file.flush()
        self._bytes += len(data)

    def finish(self) -> None:
        """Writes the length into the header, if the output is a file."""
        if self._start is not None:
            self._file.seek(self._start)
            self._file.write(_header(self._rate, self._num_voices, self._bytes))
            self._file.flush()
            self._file.seek(0, os.SEEK_END)


class Files:
    """Writes each voice to its own WAV file, which gets its name once it is complete."""

    def __init__(self, writers: list[decoding.Writer]) -> None:
        """Takes open writers."""
        self._writers = writers

    def write(self, voices: np.ndarray) -> None:
        """Appends float32 `[source, sample]`."""
        for writer, voice in zip(self._writers, voices, strict=True):
            writer.write(voice)


def _header(rate: int, num_channels: int, num_bytes: int | None) -> bytes:
    """Builds the header of a 16-bit WAV; a length of None means unknown."""
    with io.BytesIO() as file:
        with soundfile.SoundFile(file, "w", rate, num_channels, "PCM_16", format="WAV"):
            pass
        head = file.getvalue()
    place = head.index(b"data") + 8
    sizes = (0xFFFFFFFF, 0xFFFFFFFF)
    if num_bytes is not None and num_bytes + place < 2**32:
        sizes = (num_bytes + place - 8, num_bytes)
    riff, data = (size.to_bytes(4, "little") for size in sizes)
    return head[:4] + riff + head[8 : place - 4] + data


def _place(file: BinaryIO) -> int | None:
    """Returns a file's position, or None if it cannot be written again later."""
    try:
        if fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_APPEND or not file.seekable():
            return None
        return file.tell()
    except OSError:
        return None
