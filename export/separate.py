"""Separates the voices in recordings.

    python -m export.separate mixture.wav --output_dir=out
    python -m export.separate mixture.wav --model=exported/lstm --output_dir=out
    python -m export.separate meetings/ call.flac --model=runs/lstm --output_dir=out --plot

writes out/mixture_voice1.wav, out/mixture_voice2.wav, …: WAV files at the recording's own rate and
level, with the same number of samples and channels, never rescaled. They have 16 bits if the
recording has no more and no sample exceeds full scale, and are float otherwise. For a folder, all
audio files in it and its subfolders are separated, with the same subfolders in --output_dir.

The model processes frequencies up to half its rate (4 kHz at 8,000 Hz). Higher frequencies are
divided between the voices according to the model's result below, so that the voices add up to the
whole recording; --band=model omits them. Where one person speaks alone, the recording goes to that
person's voice in full, and the other voice is silent; --nogate keeps the model's output. A person
who speaks again after a pause is recognised and stays in the same file; --notrack keeps the model's
order. See docs/conversations.md.

The channels of a recording are separated individually, and their voices are ordered like those of
the mean of all channels. If two channels have one speaker each, as in many calls, the voices are
the channels with crosstalk removed; --channels=mix or separate overrides the decision.

A recording longer than --chunk_seconds is separated in overlapping pieces, in constant memory.
--band=model --nogate --channels=mix gives the output of version 0.1, bit for bit.

With --activity, mixture_voices.rttm (NIST's RTTM, one line per turn) and mixture_voices.json tell
who speaks when. With --json, only the same object is printed, one line per recording; its fields
are in `export.separation.summary`. `-` is a recording on standard input.

Reads WAV, FLAC, OGG, MP3, AIFF, SPHERE and the other formats of libsndfile; with PyAV (the extra
`av`, which `make install` includes) also m4a, mp4, 3gp, WebM, WMA, AMR and the other formats of
FFmpeg. In a folder, files are recognised by their content. If a recording cannot be separated, the
others still are; the exit code is then 1. A constant offset is removed before the model and divided
equally between the voices.

    arecord -f S16_LE -r 8000 | python -m export.separate --stream --model=exported/lstm | aplay

separates standard input as it arrives, in constant memory, with a causal model. In the output,
voice 1 is the left channel and voice 2 the right; with --output_dir each is a file. Several
channels are mixed into one. Rates other than the model's are resampled, and the output is resampled
back. The level of the stream is not known in advance: --gain_db, a fixed gain, brings the speech to
the level at which the model was trained, and a note at the end says which gain would have been
right. Voices lag behind by 192 samples (24 ms, 3 frames) with lstm, 256 (32 ms) with tcn, 20
(2.5 ms, one hop) with conv_tasnet, plus the time to fill a block (--block_ms). See
docs/streaming.md.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from export import pretrained
from export.conversations import conversation
from export.outlets import formats
from export.separation import activity as turns
from export.separation import (
    jobs,
    loading,
    long_audio,
    plots,
    rttm,
    stdio,
    summary,
)
from pipeline import cli, errors
from pipeline.audio import decoding, limits
from pipeline.io import atomic

# Encodings with more than 16 bits per sample.
_FINE_SUBTYPES = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")
# Block size, in samples, for recordings in memory.
_BLOCK = 2**18


@dataclasses.dataclass(frozen=True)
class Separated:
    """The result of a job.

    Attributes:
        files: all files that were written.
        seconds: the recording's duration.
        notes: what the user has to know about the recording and the result.
        rate: the recording's rate in Hz.
        num_channels: the recording's number of channels.
        activity: who speaks when.
        summary: the machine-readable summary (`export.separation.summary`).
        mode: `mix`, or `separate` if there is one speaker per channel.
    """

    files: tuple[pathlib.Path, ...]
    seconds: float
    notes: tuple[str, ...]
    rate: int
    num_channels: int
    activity: turns.Activity
    summary: dict[str, Any]
    mode: str

    @property
    def note(self) -> str:
        """All notes on one line."""
        return "; ".join(self.notes)


def separate(
    samples: np.ndarray,
    rate: int,
    model: loading.LoadedModel | str | os.PathLike[str] = "",
    *,
    chunk_seconds: float = long_audio.CHUNK_SECONDS,
    overlap_seconds: float = long_audio.OVERLAP_SECONDS,
    band: str = "full",
    gate: bool = True,
    track: bool | None = None,
    channels: str = "auto",
) -> np.ndarray:
    """Separates the voices in a recording.

    Args:
        samples: `[sample]` or `[sample, channel]`, float with full scale 1, or int16 or int32.
        rate: in Hz.
        model: a model, or the path or name of one (`export.separation.loading.load`; load it once
            for many calls); by default the one shipped with the package.
        chunk_seconds: longer recordings are separated in pieces of this length.
        overlap_seconds: minimum overlap of two pieces.
        band: `full`, or `model` for the model's frequency range only.
        gate: silence the other voice where one person speaks alone.
        track: keep each person in the same voice after a pause; None means yes, except with
            `band="model"` and without `gate`.
        channels: `auto`, `mix`, or `separate` for one speaker on each of two channels.

    Returns:
        float32 `[source, sample]` or `[source, sample, channel]` at `rate` and at the recording's
        level. The voices add up to the recording; with `band="model"`, without the frequencies
        above half the model's rate. Each has an equal share of a constant offset.

    Raises:
        ValueError: the samples' shape or type is not supported, or an option is unknown.
        UserError: samples are NaN or infinite, the rate is impossible, or there is no such model.
    """
    samples = np.asarray(samples)
    if samples.dtype in (np.int16, np.int32):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            "samples are [sample] or [sample, channel] of float, int16 or int32, not "
            f"{samples.dtype} of shape {samples.shape}"
        )
    columns = np.atleast_2d(samples.T).T.astype(np.float32)
    limits.check_rate_and_channels(rate, columns.shape[1])
    if not np.isfinite(columns).all():
        raise errors.UserError("the recording holds samples that are NaN or infinite")
    if not isinstance(model, loading.LoadedModel):
        model = loading.load(pretrained.quickest(os.fspath(model)))
    options = conversation.Options(band, gate, track, channels, chunk_seconds, overlap_seconds)
    blocks = [columns[i : i + _BLOCK] for i in range(0, len(columns), _BLOCK)]
    offset, _ = long_audio.find_offset(blocks, rate)
    talk = conversation.Conversation(lambda: blocks, rate, model, options, offset=offset)
    pieces = talk.pieces()
    empty = np.zeros((model.num_sources, 0, columns.shape[1]), np.float32)
    voices = np.concatenate([empty, *pieces], axis=1)
    return voices[..., 0] if samples.ndim == 1 else voices


def separate_file(
    job: jobs.Job,
    model: loading.LoadedModel,
    *,
    chunk_seconds: float = long_audio.CHUNK_SECONDS,
    overlap_seconds: float = long_audio.OVERLAP_SECONDS,
    band: str = "full",
    gate: bool = True,
    track: bool | None = None,
    channels: str = "auto",
    plot: bool = False,
    activity: bool = False,
    label: str = "",
    progress: Callable[[str, float], None] | None = None,
) -> Separated:
    """Separates a file; the outputs get their names once all of them are complete.

    Args:
        job: the input and output paths.
        model: the model that separates.
        chunk_seconds: longer recordings are separated in pieces of this length.
        overlap_seconds: minimum overlap of two pieces.
        band: `full` or `model`, as for `separate`.
        gate: silence the other voice where one person speaks alone.
        track: keep each person in the same voice after a pause; None means yes, except with
            `band="model"` and without `gate`.
        channels: `auto`, `mix` or `separate`.
        plot: also draw a picture.
        activity: also write who speaks when.
        label: name of the progress bar shown on a terminal.
        progress: called with the stage, `separating` or `writing`, and the number of seconds of the
            recording that have passed it; an exception stops the separation, which then leaves no
            files.

    Raises:
        UserError: the recording cannot be read, or the outputs cannot be written.
        OSError: the same, for errors of the file system.
    """
    tally = long_audio.Tally(model.num_sources)
    names = [job.voice(i) for i in range(model.num_sources)]
    beginning = plots.Beginning(model.sample_rate)
    options = conversation.Options(band, gate, track, channels, chunk_seconds, overlap_seconds)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(decoding.Reader(job.source))
        told = stack.enter_context(_progress(reader, label, progress))
        blocks, read_notes = _blocks(job.source, reader, stack)
        offset, _ = long_audio.find_offset(blocks(), reader.rate)
        talk = conversation.Conversation(
            blocks, reader.rate, model, options, offset=offset,
            listeners=(tally, beginning) if plot else (tally,), progress=told,
        )  # fmt: skip
        meter = turns.Meter(model.num_sources, reader.rate)
        job.stem.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".voices-", dir=job.stem.parent) as folder:
            drafts = [pathlib.Path(folder) / f"{i}.wav" for i in range(model.num_sources)]
            num_samples, peak = _write(drafts, _metered(talk.pieces(), meter, offset), reader)
            if not num_samples:
                raise decoding.AudioError(f"{job.source}: empty: it has no samples")
            if peak <= 1 and reader.subtype not in _FINE_SUBTYPES:
                drafts = [_in_16_bits(draft) for draft in drafts]
            note = tally.note(by_model=talk.mode == conversation.MIX)
            notes = (*talk.notes, *filter(None, [note]))
            warnings = (*read_notes, *long_audio.offset_notes(offset))
            found = meter.activity()
            facts = summary.describe(
                job.title or job.source.name,
                [name.name for name in names],
                found,
                model,
                rate=reader.rate,
                num_channels=reader.num_channels,
                mode=talk.mode,
                notes=notes,
                warnings=warnings,
            )
            if plot:
                drafts.append(pathlib.Path(folder) / "picture.png")
                names.append(job.picture)
                beginning.draw(
                    drafts[-1], job.title or job.source.name, num_samples / reader.rate, found.turns
                )
            if activity:
                texts = {
                    job.rttm: rttm.text(found, job.stem.name),
                    job.summary: json.dumps(facts, indent=2) + "\n",
                }
                for name, text in texts.items():
                    drafts.append(pathlib.Path(folder) / f"text{name.suffix}")
                    drafts[-1].write_text(text, encoding="utf-8", errors="surrogateescape")
                    names.append(name)
            for name in names:
                if name.is_dir():
                    raise errors.UserError(f"{name} is a folder, and in the way of a voice")
            for draft, name in zip(drafts, names, strict=True):
                draft.replace(name)
        return Separated(
            tuple(names),
            num_samples / reader.rate,
            (*warnings, *notes),
            reader.rate,
            reader.num_channels,
            found,
            facts,
            talk.mode,
        )


def _check_folder(folder: pathlib.Path) -> None:
    """Raises UserError if the folder cannot be created or written to; creates nothing."""
    above = folder.absolute()
    while not above.exists():
        if above.is_symlink():
            raise errors.UserError(f"{above} is a link to nowhere; choose another --output_dir")
        above = above.parent
    if not above.is_dir():
        raise errors.UserError(f"{above} is no folder; choose another --output_dir")
    if not os.access(above, os.W_OK | os.X_OK):
        raise errors.UserError(f"{above} may not be written; choose another --output_dir")


def _write(
    paths: Sequence[pathlib.Path], pieces: Iterable[np.ndarray], reader: decoding.Reader
) -> tuple[int, float]:
    """Writes the voices as float WAV files; returns samples per channel and the largest value."""
    num_samples, peak = 0, 0.0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                decoding.Writer(path, reader.rate, reader.num_channels, "FLOAT", reader.num_samples)
            )
            for path in paths
        ]
        for piece in pieces:
            num_samples += piece.shape[1]
            peak = max(peak, float(np.abs(piece).max()))
            for writer, voice in zip(writers, piece, strict=True):
                writer.write(np.ascontiguousarray(voice))
    return num_samples, peak


def _metered(
    pieces: Iterable[np.ndarray], meter: turns.Meter, offset: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Yields the same pieces and meters them without the constant offset."""
    for piece in pieces:
        meter.add(piece if offset is None else piece - offset / np.float32(len(piece)))
        yield piece


def _in_16_bits(path: pathlib.Path) -> pathlib.Path:
    """Replaces a float WAV file by a 16-bit one; returns the new path."""
    target = path.with_name(f"16-{path.name}")
    with (
        decoding.Reader(path) as reader,
        decoding.Writer(
            target, reader.rate, reader.num_channels, "PCM_16", reader.num_samples
        ) as out,
    ):
        for block in reader.blocks():
            out.write(block)
    path.unlink()
    return target


def _blocks(
    source: pathlib.Path, reader: decoding.Reader, stack: contextlib.ExitStack
) -> tuple[conversation.Blocks, list[str]]:
    """Returns a function that reads the recording repeatedly, and notes on how it was read."""
    if not source.is_file():  # A pipe can be read only once.
        again = conversation.spooled(reader.blocks(), stack)
        return again, list(reader.notes)
    notes: list[str] = []

    def blocks() -> Iterator[np.ndarray]:
        with decoding.Reader(source) as again:
            yield from again.blocks()
            notes[:] = again.notes

    return blocks, notes


@contextlib.contextmanager
def _progress(
    reader: decoding.Reader, label: str, told: Callable[[str, float], None] | None
) -> Iterator[conversation.Progress]:
    """Reports a conversation's progress to a bar on the terminal and to `told`."""
    import tqdm

    total = None if reader.num_samples is None else reader.num_samples / reader.rate
    # A recording that was written to a pipe does not state its length.
    form = "{desc} {n:.0f} s of audio, {elapsed}"
    if total is not None:
        form = "{desc} {percentage:3.0f} %|{bar}| {n:.0f}/{total:.0f} s of audio, {remaining}"
    with contextlib.ExitStack() as stack:
        bar = None
        if label:
            # disable=None: no bar if stderr is not a terminal.
            bar = stack.enter_context(
                tqdm.tqdm(
                    total=total, desc=label, unit="s", disable=None, leave=False, bar_format=form
                )
            )
        before = ""

        def update(stage: str, samples: int) -> None:
            nonlocal before
            if bar is not None:
                if stage != before and before:
                    bar.set_description_str(f"{label}, {stage}", refresh=False)
                    bar.reset()
                bar.update(samples / reader.rate - bar.n)
            before = stage
            if told is not None:
                told(stage, samples / reader.rate)

        yield update


def _define_flags() -> None:
    flags.DEFINE_string(
        "model", "",
        "folder of export.saved_model, folder of trainer.task (its best weights), .keras file, or "
        "name of a model shipped with the package (default: the shipped one)",
    )  # fmt: skip
    flags.DEFINE_string("output_dir", ".", "folder for the voices, created if missing")
    flags.DEFINE_bool("plot", False, "draw waveforms, spectrograms and masks of each recording")
    flags.DEFINE_bool("activity", False, "write who speaks when, as RTTM and as JSON")
    flags.DEFINE_bool("json", False, "print only a JSON object for each recording, one per line")
    flags.DEFINE_float(
        "chunk_seconds", long_audio.CHUNK_SECONDS,
        "longer recordings are separated in pieces of this length", lower_bound=2.0,
    )  # fmt: skip
    flags.DEFINE_float(
        "overlap_seconds", long_audio.OVERLAP_SECONDS,
        "minimum overlap of two pieces, up to half a piece", lower_bound=0.5,
    )  # fmt: skip
    flags.DEFINE_enum(
        "band", "full", conversation.BANDS,
        "full: frequencies above the model's band are divided between the voices, so that they add "
        "up to the whole recording; model: they are left out",
    )  # fmt: skip
    flags.DEFINE_bool(
        "gate", True, "where one person speaks alone, give that voice the whole recording"
    )
    flags.DEFINE_bool(
        "track",
        None,
        "recognise each person by voice, to stay in one file after a pause (default: "
        "yes, except with --band=model --nogate)",
    )
    stdio.define_flags()


def main(arguments: list[str]) -> int:
    """Runs the command."""
    options = flags.FLAGS
    stdio.check_flags(arguments)
    if not options.stream and not arguments:
        raise flags.Error("name at least one recording or folder of recordings")
    if options.overlap_seconds > options.chunk_seconds / 2:
        raise flags.Error("--overlap_seconds is more than half of --chunk_seconds")
    # The LiteRT file has no stream.
    find = pretrained.resolve if options.stream else pretrained.quickest
    model_path = find(options.model)
    if formats.of(model_path) is not None:
        # This process does not need Keras, whose import by TensorFlow would take two seconds.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if not options.stream or options["output_dir"].present:
        _check_folder(pathlib.Path(options.output_dir))
    if options.stream:
        return stdio.run_flags(model_path)
    with _taken_from_stdin(arguments) as stdin:
        return _separate_all(arguments, model_path, stdin)


@contextlib.contextmanager
def _taken_from_stdin(arguments: list[str]) -> Iterator[pathlib.Path | None]:
    """Yields a file with the content of standard input, if one of the arguments is `-`."""
    if jobs.STDIN not in arguments:
        yield None
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise errors.UserError("- is a recording on standard input: … | voices-apart separate -")
    with tempfile.TemporaryDirectory(prefix="voices-apart-") as folder:
        path = pathlib.Path(folder, "stdin")
        # Decoders need to seek, which a pipe does not allow.
        with atomic.naming_tmpdir(), path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


def _separate_all(arguments: list[str], model_path: str, stdin: pathlib.Path | None) -> int:
    options = flags.FLAGS
    # Names are checked, as if for two voices, before the model is loaded, which takes seconds.
    todo, problems, notes = jobs.plan(arguments, options.output_dir, 2, stdin)
    if todo:
        model = loading.load(model_path)
        todo, problems, notes = jobs.plan(arguments, options.output_dir, model.num_sources, stdin)
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    for problem in problems:
        _complain(problem)
    start, seconds, failed = time.monotonic(), 0.0, len(problems)
    for index, job in enumerate(todo):
        count = f"{index + 1}/{len(todo)} " if len(todo) > 1 else ""
        try:
            done = separate_file(
                job,
                model,
                chunk_seconds=options.chunk_seconds,
                overlap_seconds=options.overlap_seconds,
                band=options.band,
                gate=options.gate,
                track=options.track,
                channels=options.channels,
                plot=options.plot,
                activity=options.activity,
                label=count + (job.title or job.source.name),
            )
        except (errors.UserError, OSError) as error:
            _complain(error, job)
            failed += 1
            continue
        seconds += done.seconds
        if options.json:
            print(json.dumps(_printed(job, done)), flush=True)
        else:
            print(*done.files, sep="\n", flush=True)
        if done.note:
            print(f"note: {job.name}: {done.note}", file=sys.stderr, flush=True)
    whole = len(todo) + len(problems) - failed
    if whole and not options.json:
        took = time.monotonic() - start
        print(f"{whole} separated, {seconds:.1f} s of audio in {took:.1f} s")
    if failed and len(todo) + len(problems) > 1:
        print(f"{failed} not separated, named above", file=sys.stderr)
    return 1 if failed else 0


def _complain(error: errors.UserError | OSError, job: jobs.Job | None = None) -> None:
    """Reports that a recording was not separated, on stderr and, with --json, on stdout."""
    if job is not None and job.title:
        text = errors.explain_os_error(error) if isinstance(error, OSError) else str(error)
        error = errors.UserError(text.replace(str(job.source), job.title))
    cli.report(error)
    if flags.FLAGS.json:
        text = errors.explain_os_error(error) if isinstance(error, OSError) else str(error)
        told = {"format": summary.FORMAT, "recording": job.name if job else None, "error": text}
        print(json.dumps(told), flush=True)


def _printed(job: jobs.Job, done: Separated) -> dict[str, Any]:
    """Returns the summary with the paths that a script needs."""
    voices = [
        {**voice, "file": str(path)}
        for voice, path in zip(done.summary["voices"], done.files, strict=False)
    ]
    files = [str(path) for path in done.files]
    return {**done.summary, "recording": job.name, "voices": voices, "files": files}


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
