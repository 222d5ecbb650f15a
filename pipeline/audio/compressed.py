"""Decodes what libsndfile cannot, with FFmpeg's libraries through PyAV (the extra `av`).

FFmpeg gets the file as bytes, never by name, and may only use demuxers that read one file: no
network, no playlist, no script that names other files. PyAV is imported when the first such
recording is read.
"""

import types
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import numpy as np

from pipeline.audio import limits

INSTALL = "pip install 'voices-apart[av]' (or pip install av)"
# FFmpeg's demuxers of single files, without its playlists (hls, dash, concat, …), devices,
# pictures and raw samples.
_DEMUXERS = (
    "aa,aac,aax,ac3,act,aiff,amr,amrnb,amrwb,ape,asf,au,avi,bonk,caf,dsf,dss,dts,dtshd,dv,eac3,flac,"
    "flv,gxf,iff,ircam,ivf,loas,matroska,mlp,mmf,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nut,ogg,oma,osq,"
    "qcp,rm,shn,tak,truehd,tta,voc,w64,wav,wsd,wtv,wv,xwma"
)
# The signatures of these may occur in other files by chance. They are tried only if something else
# shows the file's format.
_BY_CHANCE = ("aac", "ac3", "dts", "dv", "eac3", "loas", "mlp", "mp3", "mpeg", "mpegts", "truehd")
# The durations in their headers are exact, not estimates of FFmpeg from the bit rate.
_TIMED = ("aiff", "ape", "asf", "caf", "mov", "mpc8", "tak", "tta", "w64", "wav", "wv")
_LOSSLESS = ("alac", "ape", "flac", "mlp", "shorten", "tak", "truehd", "tta", "wavpack")
# FFmpeg's flags: the caller skips samples itself; the stream is a cover picture.
_SKIP_MANUAL = 1 << 29
_ATTACHED_PICTURE = 0x400
# How much may be missing at the end: FFmpeg rounds times, and encoders add padding.
_SLACK_SECONDS, _SLACK_SHARE = 0.5, 0.02


class Source:
    """The first audio stream of a file.

    Attributes:
        rate: sample rate in Hz.
        num_channels: number of channels, which come in the order of WAVE.
        num_samples: always None, because containers give a rounded length.
        subtype: `PCM_32`, libsndfile's name, for lossless codecs of more than 16 bits; otherwise
            FFmpeg's name of the codec in upper case.
        notes: what a user should know, for example that there are other streams.
    """

    def __init__(self, file: BinaryIO, kind: str, trim: tuple[int, int] | None = None) -> None:
        """Opens the file and decodes its first frame.

        Args:
            file: binary, seekable.
            kind: the name that `recognition` gives it; empty if unknown.
            trim: the number of decoded samples before the recording, and in it; None if FFmpeg
                determines them itself.

        Raises:
            AudioError: it is not a recording, or cannot be decoded.
            MissingDecoderError: PyAV is not installed.
        """
        self._av = _load()
        self._trim = trim
        demuxers = _DEMUXERS.split(",")
        if not kind:
            demuxers = [name for name in demuxers if name not in _BY_CHANCE]
        try:
            file.seek(0)
            self._container = self._av.open(
                file,
                options={"format_whitelist": ",".join(demuxers), "protocol_whitelist": "none"},
                io_open=_refuse,
                metadata_errors="replace",
            )
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise limits.AudioError(f"cannot be decoded: {_plain(error)}") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        streams = self._container.streams
        if not streams.audio:
            what = "video, but no sound" if streams.video else "no sound"
            raise limits.AudioError(f"there is {what} in it")
        self._stream = streams.audio[0]
        if self._stream.codec_context is None:
            raise limits.AudioError("cannot be decoded: its coding is none that FFmpeg knows")
        self.notes = list(_about(streams))
        self.num_samples: int | None = None
        self._decoded = 0
        self._resampler: Any = None
        self._is_fine = False
        self.rate, self.num_channels = 1, 0
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            self._check_length()
            raise limits.AudioError("empty: it has no samples")
        codec = str(self._stream.codec_context.name)
        self.subtype = codec.upper()
        if self._is_fine and codec.startswith((*_LOSSLESS, "pcm_")):
            self.subtype = "PCM_32"

    def _decode(self) -> Iterator[np.ndarray]:
        context = self._stream.codec_context
        skip = _missing_skip(context) if self._trim is None else self._trim[0]
        left = None if self._trim is None else self._trim[1]
        if self._trim is not None:
            context.flags2 |= _SKIP_MANUAL
        packets = self._container.demux(self._stream)
        ended = False
        while not ended:
            try:
                packet = next(packets, None)
                ended = packet is None
                # Conversion may fail, too, for example if the channel layout changes.
                frames = list(self._to_float(packet.decode() if packet is not None else None))
            except (self._av.error.FFmpegError, OSError, ValueError) as error:
                at = f" after {self._decoded / self.rate:.1f} s" if self._decoded else ""
                raise limits.AudioError(f"damaged or cut short{at}: {_plain(error)}") from error
            for samples in frames:
                kept = samples[skip : None if left is None else skip + left]
                skip = max(skip - len(samples), 0)
                left = None if left is None else left - len(kept)
                if len(kept):
                    yield kept

    def _to_float(self, frames: Any) -> Iterator[np.ndarray]:
        """Converts frames to float32 `[sample, channel]`; None flushes what is left at the end.

        PyAV's own conversion to arrays reads beyond the planes of a frame with eight or more
        channels, so FFmpeg interleaves them first.
        """
        for frame in (None,) if frames is None else frames:
            if frame is not None:
                shape = frame.sample_rate, frame.layout.nb_channels
                if self._resampler is None:
                    self.rate, self.num_channels = shape
                    limits.check_rate_and_channels(*shape)
                    self._is_fine = frame.format.bytes > 2
                    self._resampler = self._av.AudioResampler("flt", frame.layout, shape[0])
                if shape != (self.rate, self.num_channels):
                    raise limits.AudioError(
                        "its rate or its number of channels changes after "
                        f"{self._decoded / self.rate:.1f} s; cut it there into two files"
                    )
            if self._resampler is not None:
                for piece in self._resampler.resample(frame):
                    yield piece.to_ndarray().reshape(-1, self.num_channels)

    def blocks(self, num_samples: int) -> Iterator[np.ndarray]:
        """Yields all samples; can be called once.

        Args:
            num_samples: length of each block but the last.

        Yields:
            Float32 `[sample, channel]`, full scale 1.

        Raises:
            AudioError: the file is damaged or cut short, or its rate or number of channels changes
                partway.
        """
        yield from _in_blocks(self._all_samples(), num_samples)

    def _all_samples(self) -> Iterator[np.ndarray]:
        block, self._first = self._first, None
        while block is not None:
            self._decoded += len(block)
            yield block
            block = next(self._frames, None)
        self._check_length()

    def _check_length(self) -> None:
        """Raises AudioError if fewer samples were decoded than the container promises."""
        stream = self._stream
        if self._trim is not None:
            promised = self._trim[1] / self.rate
        elif self._container.format.name.partition(",")[0] in _TIMED and stream.duration:
            promised = float(stream.duration * stream.time_base)
        else:
            return
        done = self._decoded / self.rate
        if done < promised - max(_SLACK_SECONDS, _SLACK_SHARE * promised):
            raise limits.AudioError(
                f"cut short: its header promises {promised:.1f} s, {done:.1f} are there"
            )

    def close(self) -> None:
        """Releases the file without closing it."""
        self._container.close()


def _load() -> types.ModuleType:
    try:
        import av
        import av.error
    except ImportError as error:
        raise limits.MissingDecoderError(
            f"libsndfile cannot decode it, and PyAV, which can, is not installed: {INSTALL}"
        ) from error
    return av


def _refuse(url: str, *_: Any) -> Any:
    raise OSError(f"it names another file ({url!r}), which is not opened")


def _about(streams: Any) -> Iterator[str]:
    if len(streams.audio) > 1:
        yield f"has {len(streams.audio)} audio streams; the first one is taken"
    pictures = [s for s in streams.video if _is_picture(s)]
    if pictures:
        yield "has a cover picture, which is left out"
    if len(streams.video) > len(pictures):
        yield "has video, which is left out"


def _is_picture(stream: Any) -> bool:
    context = stream.codec_context
    attached = bool(stream.disposition.value & _ATTACHED_PICTURE)
    return attached or (context is not None and context.name in ("mjpeg", "png", "bmp", "gif"))


def _in_blocks(pieces: Iterable[np.ndarray], num_samples: int) -> Iterator[np.ndarray]:
    """Yields the same samples, `num_samples` at a time."""
    waiting: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        waiting.append(piece)
        count += len(piece)
        if count >= num_samples:
            joined = np.concatenate(waiting)
            whole = count // num_samples * num_samples
            yield from np.split(joined[:whole], whole // num_samples)
            waiting, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(waiting)


def _missing_skip(context: Any) -> int:
    """Returns how many samples of an Opus encoder's delay FFmpeg would leave in.

    The delay is given at 48,000 Hz (RFC 7845), but FFmpeg's demuxers of Matroska and MP4 count it
    at the rate that the recording had before it was encoded.
    """
    header = context.extradata or b""
    if context.name not in ("opus", "libopus") or header[:8] != b"OpusHead" or len(header) < 12:
        return 0
    return max(int.from_bytes(header[10:12], "little") - int(context.delay), 0)


_PLAINER = {
    "Invalid data found when processing input": "FFmpeg finds no valid data",
    "End of file": "it ends too early",
}


def _plain(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).partition(": '")[0]
    return _PLAINER.get(text, text)
