"""Separates a recorded file into files: voices, and on request a picture and who speaks when.

The outputs are complete before any of them gets its name.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from export.conversations import conversation
from export.separation import activity as turns
from export.separation import jobs, loading, long_audio, plots, rttm, summary
from pipeline import errors
from pipeline.audio import decoding
from pipeline.io import atomic, file_lock

# Encodings with more than 16 bits per sample.
_FINE_SUBTYPES = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ALAC_20", "ALAC_24", "ALAC_32")

# Names of folders for unfinished outputs begin like this.
_UNFINISHED = ".voices-unfinished-"
_LOCK = "lock"
# A younger folder may belong to a process that has not locked it yet.
_YOUNGEST_SECONDS = 60


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


def separate_file(
    job: jobs.Job,
    model: loading.LoadedModel,
    options: conversation.Options | None = None,
    *,
    plot: bool = False,
    activity: bool = False,
    label: str = "",
    progress: Callable[[str, float], None] | None = None,
) -> Separated:
    """Separates a file; the outputs get their names once all of them are complete.

    Args:
        job: the input and output paths.
        model: the model that separates.
        options: by default the defaults of `conversation.Options`.
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
    beginning = plots.Beginning(model.sample_rate)
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
        folder = stack.enter_context(_unfinished(job.stem.parent))
        outputs = [job.voice(i) for i in range(model.num_sources)]
        drafts = {path: folder / path.name for path in outputs}
        num_samples, peak = _write(
            list(drafts.values()), _metered(talk.pieces(), meter, offset), reader
        )
        if not num_samples:
            raise decoding.AudioError(f"{job.source}: empty: it has no samples")
        if peak <= 1 and reader.subtype not in _FINE_SUBTYPES:
            for draft in drafts.values():
                _to_16_bits(draft)
        note = tally.note(by_model=talk.mode == conversation.MIX)
        notes = (*talk.notes, *filter(None, [note]))
        warnings = (*read_notes, *long_audio.offset_notes(offset))
        found = meter.activity()
        name = job.title or job.source.name
        facts = summary.describe(
            name, [voice.name for voice in drafts], found, model,
            rate=reader.rate, num_channels=reader.num_channels, mode=talk.mode,
            notes=notes, warnings=warnings,
        )  # fmt: skip
        seconds = num_samples / reader.rate
        if plot:
            drafts[job.picture] = folder / job.picture.name
            beginning.draw(drafts[job.picture], name, seconds, found.turns)
        if activity:
            texts = {
                job.rttm: rttm.text(found, job.stem.name),
                job.summary: json.dumps(facts, indent=2) + "\n",
            }
            for path, text in texts.items():
                drafts[path] = folder / path.name
                with atomic.create(str(drafts[path])) as file:
                    file.write(text.encode("utf-8", "surrogateescape"))
        for path in drafts:
            if path.is_dir():
                raise errors.UserError(f"{path} is a folder, and in the way of a voice")
        for path, draft in drafts.items():
            draft.replace(path)
        return Separated(
            tuple(drafts), seconds, (*warnings, *notes), reader.rate, reader.num_channels,
            found, facts, talk.mode,
        )  # fmt: skip


@contextlib.contextmanager
def _unfinished(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder in `parent` for the outputs until they get their names.

    Errors name the outputs in `parent` instead. Folders of killed processes, whose locks nobody
    holds, are removed.
    """
    for left in parent.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if left.is_symlink() or time.time() - left.stat().st_mtime < _YOUNGEST_SECONDS:
                continue
            with file_lock.hold(str(left / _LOCK), BlockingIOError):
                shutil.rmtree(left, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=parent))
        # Some network file systems have no locks; then no such folder is removed either.
        with contextlib.suppress(OSError):
            stack.enter_context(file_lock.hold(os.path.join(folder, _LOCK), BlockingIOError))
        try:
            yield pathlib.Path(folder)
        except decoding.AudioError as error:
            raise decoding.AudioError(str(error).replace(folder, str(parent))) from error
        except OSError as error:
            if not str(error.filename).startswith(folder):
                raise
            path = parent / os.path.relpath(error.filename, folder)
            raise OSError(error.errno, error.strerror, str(path)) from error


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


def _to_16_bits(path: pathlib.Path) -> None:
    """Replaces a float WAV file by a 16-bit one."""
    with (
        decoding.Reader(path) as reader,
        decoding.Writer(
            path, reader.rate, reader.num_channels, "PCM_16", reader.num_samples
        ) as out,
    ):
        for block in reader.blocks():
            out.write(block)


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
