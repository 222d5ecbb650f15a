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
import functools
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from export import pretrained
from export.conversations import conversation, file_separation
from export.outlets import formats
from export.separation import jobs, loading, long_audio, stdio, summary
from pipeline import cli, errors
from pipeline.audio import limits
from pipeline.io import atomic

# Block size, in samples, for recordings in memory.
_BLOCK = 2**18


def separate(
    samples: np.ndarray,
    rate: int,
    model: loading.LoadedModel | str | os.PathLike[str] = "",
    *,
    chunk_seconds: float = long_audio.CHUNK_SECONDS,
    overlap_seconds: float | None = None,
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
        overlap_seconds: minimum overlap of two pieces; by default 5, or half a piece if that is
            less.
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
        "overlap_seconds", None,
        "minimum overlap of two pieces, up to half a piece (default: "
        f"{long_audio.OVERLAP_SECONDS:g}, or half a piece if that is less)", lower_bound=0.5,
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
    chunk, overlap = options.chunk_seconds, options.overlap_seconds
    if overlap is not None and overlap > chunk / 2:
        raise flags.Error(
            f"--overlap_seconds={overlap:g} is more than half of --chunk_seconds={chunk:g}"
        )
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
    plan = functools.partial(
        jobs.plan, arguments, options.output_dir,
        stdin=stdin, plot=options.plot, activity=options.activity,
    )  # fmt: skip
    todo, problems, notes = plan(num_sources=2)
    if todo:
        model = loading.load(model_path)
        todo, problems, notes = plan(num_sources=model.num_sources)
    for note in notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    for problem in problems:
        _complain(problem, problem.recording)
    how = conversation.Options(
        options.band, options.gate, options.track, options.channels,
        options.chunk_seconds, options.overlap_seconds,
    )  # fmt: skip
    start, seconds, failed = time.monotonic(), 0.0, len(problems)
    for index, job in enumerate(todo):
        count = f"{index + 1}/{len(todo)} " if len(todo) > 1 else ""
        try:
            done = file_separation.separate_file(
                job,
                model,
                how,
                plot=options.plot,
                activity=options.activity,
                label=count + (job.title or job.source.name),
            )
        except Exception as error:  # A user's own model may raise anything.
            _complain(_explained(error, job), job.name)
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


def _explained(error: Exception, job: jobs.Job) -> errors.UserError:
    """Returns the error with a message for the user."""
    if isinstance(error, OSError):
        text = errors.explain_os_error(error)
    elif isinstance(error, errors.UserError):
        text = str(error)
    else:
        text = (
            f"{job.name}: the program or the model failed ({type(error).__name__}: "
            f"{errors.first_line(error)}); --verbosity=1 shows where"
        )
    told = errors.UserError(text.replace(str(job.source), job.name))
    told.__cause__ = error
    return told


def _complain(error: errors.UserError, recording: str) -> None:
    """Reports that a recording was not separated, on stderr and, with --json, on stdout."""
    cli.report(error)
    if flags.FLAGS.json:
        told = {"format": summary.FORMAT, "recording": recording, "error": str(error)}
        print(json.dumps(told), flush=True)


def _printed(job: jobs.Job, done: file_separation.Separated) -> dict[str, Any]:
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
