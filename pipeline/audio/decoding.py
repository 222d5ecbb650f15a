"""Reads and writes audio: WAV, FLAC, OGG, MP3, SPHERE, m4a, WebM and many more.

Formats are recognised by a file's first bytes, never by its name. Samples are float32, full scale
1, with the axes `[sample]` or `[sample, channel]`. Recordings of several hours are read and written
in blocks (`Reader`, `resample_blocks`, `Writer`).
"""

import contextlib
import io
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from pipeline.audio import compressed, containers, flac, limits, recognition, views
from pipeline.io import atomic

# Limits for one recording: a header can promise more than any machine can hold.
MAX_SECONDS = 24 * 3600
MAX_DECODED_BYTES = 2**31
_MAX_WAV_BYTES = 2**32 - 2**16
_BLOCK = 2**18
_QUALITY = "HQ"
SUBTYPES = ("PCM_16", "FLOAT")
# For each number of channels, the index in Vorbis' order of each channel in WAVE's order
# (Vorbis I, 4.3.9; Opus: RFC 7845). libsndfile does not reorder them.
_WAVE_FROM_VORBIS = {
    3: [0, 2, 1],
    5: [0, 2, 1, 3, 4],
    6: [0, 2, 1, 5, 3, 4],
    7: [0, 2, 1, 6, 5, 3, 4],
    8: [0, 2, 1, 7, 5, 6, 3, 4],
}

AudioError = limits.AudioError


class _ForwardFile(soundfile.SoundFile):
    """A sound file without seeking after each read, which fails for a FLAC of unknown length."""

    def seekable(self) -> bool:
        return False


class Reader:
    """A recording, read block by block in bounded memory.

    libsndfile decodes it if it can do so correctly; otherwise FFmpeg's libraries do (`compressed`).

    Attributes:
        rate: sample rate in Hz.
        num_channels: number of channels.
        num_samples: per channel according to the header, or None if it does not say.
        subtype: libsndfile's name of the sample format (`PCM_16`, `FLOAT`, `VORBIS`, …), or
            FFmpeg's name of the codec.
        notes: what a user should know about how it was read, for example an unknown length.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO, verify: bool = True) -> None:
        """Opens the recording and checks what its headers promise.

        Args:
            source: path of a local file, or a binary seekable file.
            verify: compare decoded samples with the checksum in FLAC files.

        Raises:
            AudioError: it is not a readable recording; the message names the file if it has a path.
            MissingDecoderError: its decoder is not installed; the message names the file, too.
            OSError: the file cannot be opened.
        """
        self._name = ""
        if isinstance(source, str | os.PathLike):
            self._name = f"{os.fspath(source)}: "
            self._file: BinaryIO = open(source, "rb")  # noqa: SIM115 (closed by close)
            self._owned = True
        else:
            self._file, self._owned = source, False
        self._part: _Plain | compressed.Source | None = None
        try:
            with self._named("cannot be decoded"):
                self._open(verify)
        except BaseException:
            self.close()
            raise

    def _open(self, verify: bool) -> None:
        self._container = containers.check(self._file)
        self.notes = list(self._container.notes)
        self._checksum = None
        if self._container.kind == "flac" and verify:
            checksum = flac.Checksum(self._container.head)
            self._checksum = checksum if checksum.known else None
        part = self._part = self._open_part(0)
        self.rate, self.num_channels, self.subtype = part.rate, part.num_channels, part.subtype
        self.notes += part.notes
        one = len(self._container.parts) == 1
        self.num_samples = part.num_samples if one else None
        if self.num_samples is not None:
            self._check_length(self.num_samples)

    def _open_part(self, index: int) -> "_Plain | compressed.Source":
        part, kind = self._container.parts[index], self._container.kind
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        file = self._file
        if part.patches or (part.start, part.stop) != (0, size):
            file = views.View(  # type: ignore[assignment]
                self._file, part.start, part.stop, part.patches
            )
        if part.decoder == containers.LIBSNDFILE:
            try:
                return _Plain(file, part.num_samples, kind == "ogg")
            except soundfile.LibsndfileError as error:
                # libsndfile reads the container, but cannot decode the coding. Every page of an Ogg
                # file has already been checked.
                if "unsupported" not in str(error) and kind != "ogg":
                    raise
        try:
            return compressed.Source(file, kind, part.trim)
        except (AudioError, limits.MissingDecoderError):
            if kind:
                raise
            # Decoding was only an attempt, since nothing shows that the file is audio.
            reason = recognition.describe(self._container.head)
            raise AudioError(f"not audio: {reason}") from None

    def _check_length(self, num_samples: int) -> None:
        if num_samples > MAX_SECONDS * self.rate:
            raise AudioError(
                f"its header promises {num_samples / self.rate / 3600:.0f} hours, over the limit "
                f"of {MAX_SECONDS // 3600}"
            )

    @contextlib.contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """Adds the name of the file to errors."""
        try:
            yield
        except (AudioError, limits.MissingDecoderError) as error:
            raise type(error)(f"{self._name}{error}") from error
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{self._name}{what}: {_plain(error)}") from error

    def blocks(self, num_samples: int = _BLOCK) -> Iterator[np.ndarray]:
        """Yields the recording from its first sample to its last.

        Args:
            num_samples: length of each block but the last.

        Yields:
            Float32 `[sample, channel]`.

        Raises:
            AudioError: it cannot be decoded, is not as long as its header promises, or holds NaN or
                infinite samples. The blocks before the error are then not the whole recording.
        """
        done = 0
        with self._named("cut short or damaged"):
            for block in self._decoded(num_samples):
                if not np.isfinite(block).all():
                    raise AudioError("holds samples that are NaN or infinite")
                done += len(block)
                self._check_length(done)
                if self._checksum is not None:
                    self._checksum.update(block)
                yield block
            if self._checksum is not None:
                self._checksum.check()

    def _decoded(self, num_samples: int) -> Iterator[np.ndarray]:
        for index, place in enumerate(self._container.parts):
            part = self._part
            assert part is not None, "the reader is closed"
            if index:
                part.close()
                part = self._part = self._open_part(index)
            if (part.rate, part.num_channels) != (self.rate, self.num_channels):
                raise limits.two_recordings(place.start)
            yield from part.blocks(num_samples)

    def close(self) -> None:
        """Closes the file if the reader opened it."""
        if self._part is not None:
            self._part.close()
            self._part = None
        if self._owned:
            self._file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Plain:
    """A file decoded by libsndfile, with the attributes and methods of `compressed.Source`."""

    def __init__(self, file: BinaryIO, promised: int | None, ogg: bool) -> None:
        """Opens the file.

        Args:
            file: binary, seekable.
            promised: number of samples in a header that libsndfile does not see.
            ogg: whether more than two channels come in the order of Vorbis, not of WAVE.
        """
        self._sound = _ForwardFile(file)
        self.rate, self.num_channels = int(self._sound.samplerate), int(self._sound.channels)
        self.subtype = str(self._sound.subtype)
        limits.check_rate_and_channels(self.rate, self.num_channels)
        frames = int(self._sound.frames)
        # A FLAC encoder that writes into a pipe cannot fill in the number.
        self._hidden = promised is not None
        self.num_samples = promised or (None if frames >= 2**62 else frames)
        self.notes: list[str] = []
        self._order = _WAVE_FROM_VORBIS.get(self.num_channels) if ogg else None

    def blocks(self, num_samples: int) -> Iterator[np.ndarray]:
        """Yields float32 `[sample, channel]`, `num_samples` at a time; can be called once."""
        done, promised = 0, self.num_samples
        while promised is None or done < promised:
            size = num_samples if promised is None else min(num_samples, promised - done)
            block = self._sound.read(size, dtype="float32", always_2d=True)
            if not len(block):
                break
            done += len(block)
            yield block if self._order is None else block[:, self._order]
        if promised is not None and done < promised:
            raise AudioError(f"cut short: its header promises {promised} samples, {done} are there")
        if self._hidden and self._goes_on():
            raise AudioError(f"its header promises {promised} samples, but more follow")

    def _goes_on(self) -> bool:
        """Returns whether anything follows the last sample that the header promises."""
        try:
            return len(self._sound.read(1)) > 0
        except soundfile.LibsndfileError:
            # Something follows that is not a frame, or not a complete one.
            return True

    def close(self) -> None:
        """Releases the file without closing it."""
        self._sound.close()


def decode_channels(
    data: bytes, *, verify: bool = True, notes: list[str] | None = None
) -> tuple[np.ndarray, int]:
    """Decodes a whole file.

    Args:
        data: the file's bytes.
        verify: compare with the checksum in FLAC files.
        notes: a list to which notes on how the file was read are appended.

    Returns:
        Float32 `[sample, channel]`, full scale 1, and the rate in Hz.

    Raises:
        AudioError: the bytes are not a recording, or it is incomplete or too long.
    """
    return _decode(data, verify, notes, lambda block: block)


def decode(
    data: bytes, *, verify: bool = True, notes: list[str] | None = None
) -> tuple[np.ndarray, int]:
    """Decodes a whole file and averages its channels.

    Args:
        data: the file's bytes.
        verify: compare with the checksum in FLAC files.
        notes: a list to which notes on how the file was read are appended.

    Returns:
        Float32 `[sample]`, full scale 1, and the rate in Hz.

    Raises:
        AudioError: the bytes are not a recording, or it is incomplete or too long.
    """
    return _decode(data, verify, notes, mean_channel)


def mean_channel(block: np.ndarray) -> np.ndarray:
    """Averages the channels of float32 `[sample, channel]`; returns float32 `[sample]`."""
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def _decode(
    data: bytes, verify: bool, notes: list[str] | None, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, int]:
    """Decodes a file and applies `change` to each block, so not all channels must fit in memory."""
    with Reader(io.BytesIO(data), verify) as reader:
        blocks: list[np.ndarray] = []
        done = num_bytes = 0
        for block in reader.blocks():
            blocks.append(change(block))
            done += len(block)
            num_bytes += blocks[-1].nbytes
            if num_bytes / done * max(done, reader.num_samples or 0) > MAX_DECODED_BYTES:
                most = MAX_DECODED_BYTES / (num_bytes / done) / reader.rate / 60
                raise AudioError(f"longer than {most:.0f} minutes; cut it into pieces")
        if not blocks:
            raise AudioError("empty: it has no samples")
        if notes is not None:
            notes.extend(reader.notes)
        return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), reader.rate


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resamples a whole recording (soxr, quality HQ).

    Args:
        samples: float32 `[sample]` or `[sample, channel]`.
        from_rate: its rate in Hz.
        to_rate: the desired rate in Hz.

    Returns:
        Float32 with the same axes; `samples` itself if the rates are equal.
    """
    if from_rate == to_rate:
        return samples
    return soxr.resample(samples, from_rate, to_rate, quality=_QUALITY)


def resample_blocks(
    blocks: Iterable[np.ndarray], from_rate: int, to_rate: int
) -> Iterator[np.ndarray]:
    """Resamples the blocks of one recording without seams between them.

    Args:
        blocks: float32 `[sample, channel]`, in order.
        from_rate: their rate in Hz.
        to_rate: the desired rate in Hz.

    Yields:
        Float32 `[sample, channel]`; concatenated, the result of `resample` up to rounding.
    """
    stream = None
    for block in blocks:
        if from_rate == to_rate:
            yield block
            continue
        if stream is None:
            num_channels = block.shape[1]
            stream = soxr.ResampleStream(
                from_rate, to_rate, num_channels, dtype="float32", quality=_QUALITY
            )
        out = stream.resample_chunk(block)
        if len(out):
            yield out
    if stream is not None:
        rest = stream.resample_chunk(np.zeros((0, num_channels), np.float32), last=True)
        if len(rest):
            yield rest


class Writer:
    """Writes a WAV file block by block.

    The file has a temporary name in the same folder and is renamed when the `with` block ends. If
    the block ends with an exception, the file is removed.

        with audio.Writer("voice1.wav", 8000) as writer:
            for block in blocks:
                writer.write(block)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: int,
        num_channels: int = 1,
        subtype: str = "PCM_16",
        num_samples: int | None = None,
    ) -> None:
        """Prepares the file; nothing is on disk before `__enter__`.

        Args:
            path: local path.
            rate: sample rate in Hz.
            num_channels: number of channels.
            subtype: `PCM_16` or `FLOAT`.
            num_samples: per channel, if known. More than 4 GB are written as RF64. A file of
                unknown length also becomes a WAV in the end if it is short enough.
        """
        if subtype not in SUBTYPES:
            raise ValueError(f"subtype is one of {SUBTYPES}, not {subtype!r}")
        self._path = os.fspath(path)
        self._rate, self._num_channels, self._subtype = rate, num_channels, subtype
        width = 2 if subtype == "PCM_16" else 4
        self._sample_bytes = num_channels * width
        small = num_samples is not None and num_samples * self._sample_bytes <= _MAX_WAV_BYTES
        self._format = "WAV" if small else "RF64"
        self._bytes = 0

    def __enter__(self) -> "Writer":
        with contextlib.ExitStack() as stack:
            self._temporary = stack.enter_context(atomic.replacing(self._path))
            # A missing or read-only folder then gives Python's own clear error.
            self._temporary.touch(exist_ok=False)
            self._sound = soundfile.SoundFile(
                self._temporary, "w", self._rate, self._num_channels, self._subtype,
                format=self._format,
            )  # fmt: skip
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def write(self, samples: np.ndarray) -> None:
        """Appends samples.

        Args:
            samples: float32 `[sample]` or `[sample, channel]`, or int16 for `PCM_16`.

        Raises:
            ValueError: samples exceed full scale, which 16 bits cannot hold; nothing is ever
                clipped or rescaled silently.
            AudioError: the disk cannot hold them. The samples written before are complete, and the
                file is renamed unless the `with` block ends with an exception.
        """
        if self._subtype == "PCM_16" and samples.dtype != np.int16:
            if samples.size and not np.abs(samples).max() <= 1:
                raise ValueError("samples exceed full scale; 16 bits cannot hold them")
            samples = np.rint(samples * np.float32(32768)).clip(-32768, 32767).astype(np.int16)
        self._bytes += len(samples) * self._sample_bytes
        if self._format == "WAV" and self._bytes > _MAX_WAV_BYTES:
            raise AudioError(f"{self._path}: longer than the 4 GB that a WAV file can hold")
        try:
            self._sound.write(samples)
        except (AssertionError, soundfile.LibsndfileError) as error:
            # soundfile asserts that everything was written.
            self._bytes -= len(samples) * self._sample_bytes
            raise self._incomplete() from error

    def _incomplete(self) -> AudioError:
        return AudioError(
            f"{self._path}: cannot be written whole; is the disk full? Free some space, then try "
            "again"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _finish(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sound.close()
        if kind is None:
            if os.path.getsize(self._temporary) < self._bytes:
                raise self._incomplete()
            _remove_time(self._temporary)
            if self._format == "RF64":
                _as_wav(self._temporary)


def write_wav(
    path: str | os.PathLike[str], samples: np.ndarray, rate: int, subtype: str = "PCM_16"
) -> None:
    """Writes a whole WAV file under a temporary name and renames it.

    Args:
        path: local path.
        samples: float32 (or int16 for `PCM_16`) `[sample]` or `[sample, channel]`.
        rate: sample rate in Hz.
        subtype: `PCM_16` or `FLOAT`.

    Raises:
        ValueError: samples exceed full scale in 16 bits.
        AudioError: the disk cannot hold them.
    """
    num_channels = 1 if samples.ndim == 1 else samples.shape[1]
    with Writer(path, rate, num_channels, subtype, len(samples)) as writer:
        writer.write(samples)


def _remove_time(path: pathlib.Path) -> None:
    """Blanks the time in libsndfile's PEAK chunk, so that equal samples give equal files."""
    with open(path, "r+b") as file:
        place = file.read(256).partition(b"data")[0].find(b"PEAK")
        if place >= 0:
            file.seek(place + 12)  # after the chunk's name, length and version
            file.write(bytes(4))


def _as_wav(path: pathlib.Path) -> None:
    """Changes the header of an RF64 file to that of a WAV in place, if the file is short enough."""
    size = os.path.getsize(path)
    if size > _MAX_WAV_BYTES:
        return
    with open(path, "r+b") as file:
        head = file.read(256)
        place = head.index(b"data") + 4
        ds64 = head.index(b"ds64")
        # The chunk's name and length come first, then the lengths of the file and of the samples.
        num_bytes = head[ds64 + 16 : ds64 + 20]
        file.seek(0)
        file.write(b"RIFF" + (size - 8).to_bytes(4, "little"))
        file.seek(ds64)
        file.write(b"JUNK")
        file.seek(place)
        file.write(num_bytes)


# libsndfile's messages for an MP3 without a whole frame and for a header without a rate.
_PLAINER = {
    "File does not exist or is not a regular file (possibly a pipe?)": "it has no whole frame",
    "Internal error : SF_INFO struct incomplete": "its header lacks rate, channels or coding",
}


def _plain(error: soundfile.LibsndfileError) -> str:
    text = re.sub(r"^Error( in \S+ file\.| :) ", "", str(error.error_string).strip().rstrip("."))
    return _PLAINER.get(text, text)
