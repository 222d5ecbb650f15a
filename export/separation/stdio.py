"""Separates standard input to standard output, for `export.separate --stream`.

Samples are read as they arrive, and voices are written as soon as they are available.
"""

import contextlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np
from absl import flags

from export.separation import loading, long_audio, stream, wav_stream
from pipeline import cli, errors, schema
from pipeline.audio import decoding, limits

# A level this far from that in training is reported.
_FAR_DB = 6.0

# Values of --channels for files.
_CHANNELS = ("auto", "mix", "separate")
# Flags that apply only to files or only to streams.
_OF_FILES = ("plot", "activity", "json", "chunk_seconds", "overlap_seconds", "gate", "track")
_OF_STREAMS = ("gain_db", "stdin", "stdout", "rate", "block_ms")


def define_flags() -> None:
    """Defines the flags of `export.separate --stream`."""
    flags.DEFINE_bool("stream", False, "separate standard input to standard output as it arrives")
    flags.DEFINE_float(
        "gain_db", 0.0, "--stream: gain applied to the mixture before the model",
        lower_bound=-120.0, upper_bound=120.0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "stdin", wav_stream.WAV, wav_stream.FORMATS,
        "--stream: input format; a WAV may be of unknown length, raw samples may need --rate",
    )  # fmt: skip
    flags.DEFINE_enum(
        "stdout", wav_stream.WAV, wav_stream.FORMATS,
        "--stream: output format, one channel per voice; wav has 16 bits, like s16le",
    )  # fmt: skip
    flags.DEFINE_integer(
        "rate", None, "--stream: rate of raw samples, in Hz (default: the model's)",
        lower_bound=limits.MIN_RATE, upper_bound=limits.MAX_RATE,
    )  # fmt: skip
    flags.DEFINE_string(
        "channels", "auto", "mix: the model separates; separate: there is one speaker on each of "
        "two channels; auto: detect which. --stream: number of channels of raw samples (default: "
        "1); for a WAV, the expected value in its header",
    )  # fmt: skip
    flags.DEFINE_float(
        "block_ms", 16.0, "--stream: duration of the model's blocks, rounded to a multiple of its "
        "hop; longer blocks need less computation and add to the delay",
        lower_bound=0, upper_bound=10000,
    )  # fmt: skip


def check_flags(arguments: list[str]) -> None:
    """Raises `flags.Error` if flags for streams and for files are mixed."""
    options = flags.FLAGS
    for name in _OF_FILES if options.stream else _OF_STREAMS:
        if options[name].present:
            raise flags.Error(f"--{name} is {'not ' * options.stream}for --stream")
    if not options.stream:
        if options.channels not in _CHANNELS:
            raise flags.Error(
                f"--channels={options.channels}: it is one of {', '.join(_CHANNELS)}; a number is "
                "for --stream"
            )
        return
    _num_channels()
    if arguments:
        raise flags.Error(f"--stream reads standard input, not {arguments[0]}")
    if options["stdout"].present and options["output_dir"].present:
        raise flags.Error("--stdout and --output_dir are two ways out; choose one")


def _num_channels() -> int | None:
    """Returns the value of --channels for a stream."""
    options = flags.FLAGS
    if not options["channels"].present:
        return None
    text = options.channels
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= limits.MAX_CHANNELS):
        raise flags.Error(
            f"--channels={text}: with --stream it is a number from 1 to {limits.MAX_CHANNELS}"
        )
    return int(text)


def run_flags(model: str) -> int:
    """Calls `run` with the values of the flags; returns the exit code."""
    options = flags.FLAGS
    return run(
        model,
        gain_db=options.gain_db,
        kind=options.stdin,
        rate=options.rate,
        num_channels=_num_channels(),
        block_seconds=options.block_ms / 1000,
        band=options.band,
        output=options.stdout,
        output_dir=pathlib.Path(options.output_dir) if options["output_dir"].present else None,
    )


class Level:
    """Measures a stream's active level (`pipeline.features.active_level_db`), to 0.1 dB."""

    _LOWEST_DB, _STEPS = -150.0, 10

    def __init__(self) -> None:
        """Starts without any samples."""
        self._waiting = np.zeros(0, np.float32)
        self._energies = np.zeros(3000)
        self._counts = np.zeros(3000, np.int64)
        self._num_samples, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, samples: np.ndarray) -> None:
        """Adds samples, `[sample]`."""
        self._num_samples += len(samples)
        self._sum += float(samples.sum(dtype=np.float64))
        self._squares += float(np.square(samples, dtype=np.float64).sum())
        samples = np.concatenate([self._waiting, samples])
        length = schema.FRAME_LENGTH
        whole = len(samples) // length * length
        self._waiting = samples[whole:].copy()
        powers = np.square(samples[:whole], dtype=np.float64).reshape(-1, length).mean(axis=1)
        levels = 10 * np.log10(np.maximum(powers, 1e-300))
        bins = ((levels - self._LOWEST_DB) * self._STEPS).clip(0, 2999).astype(int)
        np.add.at(self._energies, bins, powers)
        np.add.at(self._counts, bins, 1)

    def active_db(self) -> float | None:
        """The active level in dB; None if there was no signal."""
        heard = np.flatnonzero(self._energies)
        if not len(heard):
            return None
        lowest = max(0, heard[-1] - round(schema.ACTIVITY_RANGE_DB * self._STEPS))
        mean = self._energies[lowest:].sum() / self._counts[lowest:].sum()
        return float(10 * np.log10(mean))

    def offset(self) -> float | None:
        """The samples' constant offset (`long_audio.find_offset`), or None."""
        mean = self._sum / max(self._num_samples, 1)
        variance = self._squares / max(self._num_samples, 1) - mean**2
        return mean if mean**2 > long_audio.OFFSET_SHARE**2 * max(variance, 0.0) else None


class _Interrupt:
    """Makes Ctrl-C or SIGTERM end the input, so that the samples read so far are still separated.

    Within the `with` block, the first of these signals is remembered in `number`, and a second one
    ends the program.
    """

    class _EndError(BaseException):
        pass

    def __init__(self) -> None:
        self.number: int | None = None
        self._waiting = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__()
        if self._waiting:
            raise self._EndError

    def until(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks until a signal arrives."""
        try:
            while self.number is None:
                self._waiting = True
                block = next(blocks, None)
                self._waiting = False
                if block is None:
                    return
                yield block
        except self._EndError:
            return
        finally:
            self._waiting = False


def run(
    model: str,
    *,
    gain_db: float,
    kind: str,
    rate: int | None,
    num_channels: int | None,
    block_seconds: float,
    band: str,
    output: str,
    output_dir: pathlib.Path | None,
) -> int:
    """Separates standard input.

    Args:
        model: path of a model.
        gain_db: see `stream.Stream`.
        kind: the input's format, one of `FORMATS`.
        rate: the input's rate; for raw samples the model's by default.
        num_channels: for raw samples; for a WAV, the expected value in its header, if any.
        block_seconds: see `stream.Stream`.
        band: see `stream.Stream`.
        output: the format of standard output, one of `FORMATS`.
        output_dir: write files `voice1.wav`, … there instead.

    Returns:
        The exit code.

    Raises:
        UserError: the input is not audio or ends within a sample, or the model is not suitable.
    """
    # Streams closed before the program starts are None; `pipeline.cli` then replaces `sys.stdout`.
    if sys.__stdin__ is None or (output_dir is None and sys.__stdout__ is None):
        raise errors.UserError("--stream needs standard input, and standard output or --output_dir")
    if sys.stdin.isatty():
        raise errors.UserError("--stream reads samples from standard input: arecord … | …")
    if output_dir is None and sys.stdout.isatty():
        raise errors.UserError(
            "--stream writes samples to standard output; send it to a program or a file "
            "(… | aplay), or name an --output_dir"
        )
    loaded = loading.load(model)
    loaded.initial_state()
    if kind != wav_stream.WAV and rate is None:
        rate = loaded.sample_rate
    source = wav_stream.Source(sys.stdin.buffer, kind, rate, num_channels)
    follower = stream.Stream(
        loaded, gain_db=gain_db, rate=source.rate, block_seconds=block_seconds, band=band
    )
    print(describe(follower), file=sys.stderr, flush=True)
    level = Level()
    try:
        # A signal while the files are completed must not remove them either.
        with _Interrupt() as interrupt, contextlib.ExitStack() as stack:
            sink: wav_stream.Sink
            out: wav_stream.Pipe | None = None
            if output_dir is None:
                sink = out = wav_stream.Pipe(
                    sys.stdout.buffer, output, source.rate, loaded.num_sources
                )
            else:
                output_dir.mkdir(parents=True, exist_ok=True)
                names = [output_dir / f"voice{i + 1}.wav" for i in range(loaded.num_sources)]
                writers = [decoding.Writer(name, source.rate, 1, "FLOAT") for name in names]
                sink = wav_stream.Files([stack.enter_context(writer) for writer in writers])
            problem = _separate(follower, interrupt.until(source.blocks()), sink, level)
            if out is not None:
                out.finish()
    except BrokenPipeError:
        # The reader has closed the pipe; discard what Python still has in its buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if output_dir is not None:
        print(*names, sep="\n")
    notes = _notes(follower, gain_db, level, out.clipped if out else 0)
    for note in (*source.notes, *notes):
        print(f"note: {note}", file=sys.stderr, flush=True)
    if problem is not None:
        cli.report(problem)
        return 1
    return 128 + interrupt.number if interrupt.number else 0


def describe(follower: stream.Stream) -> str:
    """Returns one line: what separates, and by how much it lags behind."""
    model = follower.model
    assert model.info.stream is not None
    delay, rate = model.info.stream.delay, model.sample_rate
    parts = [
        f"{model.name}: {model.num_sources} voices",
        f"{delay} samples ({1000 * delay / rate:g} ms) behind",
        f"in blocks of {follower.block} ({1000 * follower.block / rate:g} ms)",
    ]
    if follower.rate != rate:
        parts.append(f"resampled from {follower.rate} Hz to {rate} and back")
    return ", ".join(parts)


def _separate(
    follower: stream.Stream, blocks: Iterator[np.ndarray], sink: wav_stream.Sink, level: Level
) -> errors.UserError | None:
    """Separates until the end of the input or an error of input, model or output; returns it."""
    problems: list[errors.UserError] = []

    def heard() -> Iterator[np.ndarray]:
        try:
            for block in blocks:
                level.add(block)
                yield follower.feed(block)
        except decoding.AudioError as error:
            problems.append(error)
        yield follower.finish()

    # Each kind of error is handled in its own place: only an error of the input lets the model
    # finish, and a failed output is not written again.
    try:
        for voices in heard():
            if voices.shape[1]:
                sink.write(voices)
    except errors.UserError as error:
        problems.append(error)
    return problems[0] if problems else None


def _notes(follower: stream.Stream, gain_db: float, level: Level, clipped: int) -> Iterator[str]:
    active_db = level.active_db()
    trained = follower.model.info.constants.get("active_level_db")
    if active_db is not None and trained is not None:
        best = trained - active_db
        if abs(best - gain_db) > _FAR_DB:
            yield (
                f"the speech was at {active_db:.0f} dB, and the model was trained at "
                f"{trained:.0f}: --gain_db={best:.0f} would fit"
            )
    offset = level.offset()
    if offset is not None and active_db is not None:
        yield (
            f"the input has a constant offset of {offset:.3g}, which no model has learnt with; "
            "take it out before (ffmpeg … -af highpass=f=20)"
        )
    if clipped:
        yield f"{clipped} samples were beyond what 16 bits hold, and cut off; --stdout=f32le is not"
