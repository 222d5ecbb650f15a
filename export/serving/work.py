"""A recording on its way to its voices, and the thread that brings it there.

What a client says never becomes a path: every file lies under a name of ours in a folder of ours,
and is asked for by a key of `Recording.files`.
"""

import concurrent.futures
import dataclasses
import pathlib
import secrets
import shutil
import threading
import time
from typing import Any, BinaryIO, cast

import numpy as np
from absl import logging

from export import separate
from export.evaluation import charts, oracles
from export.separation import jobs, loading, pictures
from export.serving import model_catalog
from pipeline import cli, errors
from pipeline.audio import decoding

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
# Two channels at 192 kHz, or eight at 48: what a small file can unfold to is bounded by this, too.
_MAX_VALUES_PER_SECOND = 384_000
_MAX_CHANNELS = 8
# A model's rate is not the recording's: its seconds end up to one sample of either later.
_SPARE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one recording may be.

    Attributes:
        num_bytes: of the file.
        seconds: of sound.
        header_seconds: that may be spent on finding out what a file is.
    """

    num_bytes: int
    seconds: float
    header_seconds: float = 5.0


@dataclasses.dataclass(frozen=True)
class File:
    """Something that can be fetched: where it lies, what it is, and how the client calls it."""

    path: pathlib.Path
    media_type: str
    name: str


class Recording:
    """One recording of one client.

    Attributes:
        key: names it in addresses; not to be guessed.
        folder: holds all its files.
        name: the client's, for the client's eyes alone.
        model: name of the one that separates.
        state: `waiting`, `running`, `done` or `failed`.
        step: what is being done, in words.
        fraction: of the separation, or None where it is not known.
        message: what a person has to know of the outcome.
        files: what can be fetched, by the last part of its address.
        view: what the template of the result shows.
    """

    def __init__(self, home: pathlib.Path, name: str, model: str) -> None:
        """Makes the folder, within `home`."""
        self.key = secrets.token_urlsafe(18)
        self.folder = home / self.key
        self.folder.mkdir(mode=0o700)
        self.name = clean_name(name)
        self.model = model
        self.state = WAITING
        self.step = "waiting"
        self.fraction: float | None = None
        self.message = ""
        self.files: dict[str, File] = {}
        self.view: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._discarded = self._in_work = False

    @property
    def source(self) -> pathlib.Path:
        """Where the client's bytes lie."""
        return self.folder / "source"

    @property
    def active(self) -> bool:
        """Whether something is still to be done."""
        return self.state in (WAITING, RUNNING)

    @property
    def discarded(self) -> bool:
        """Whether nobody wants it any more."""
        return self._discarded

    def discard(self) -> None:
        """Removes its files: now, or as soon as the thread that works on it has noticed."""
        with self._lock:
            self._discarded = True
            in_work = self._in_work
        if not in_work:
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> bool:
        """Says that a thread works on it from now on; false where nobody wants it any more."""
        with self._lock:
            self._in_work = not self._discarded
            return self._in_work

    def end(self) -> None:
        """Says that no thread works on it from now on."""
        with self._lock:
            self._in_work = False
            discarded = self._discarded
        if discarded:
            shutil.rmtree(self.folder, ignore_errors=True)

    def explain(self, error: errors.UserError | OSError) -> str:
        """The error for the client, who is told nothing of the paths on this machine."""
        text = errors.explain_os_error(error) if isinstance(error, OSError) else str(error)
        for path in (self.source, self.folder):
            text = text.replace(f"{path}: ", "").replace(f"{path}/", "")
        return text.replace(str(self.folder), self.name)


def clean_name(name: str) -> str:
    """A file's name as it can be shown: the last part of a path, without what no name needs."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if c.isprintable()).strip().lstrip(".")
    return shown[:120] or "recording"


class _TimedFile:
    """A file that can be read for a time: nobody waits for millions of tiny chunks."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file = file
        self._end = time.monotonic() + seconds
        self.expired = False

    def read(self, size: int = -1) -> bytes:
        if self._is_over():
            raise errors.UserError("its headers take too long to read")
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        # libsndfile's way in, through which no exception passes: the file ends.
        return 0 if self._is_over() else cast(Any, self._file).readinto(buffer)

    def _is_over(self) -> bool:
        self.expired = self.expired or time.monotonic() >= self._end
        return self.expired

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def check(one: Recording, limits: Limits) -> None:
    """Reads the headers of a recording that has come, for as long as that may take.

    Raises:
        UserError: no recording, or more than the page takes; names no path.
    """
    with one.source.open("rb") as file:
        timed = _TimedFile(file, limits.header_seconds)
        try:
            _check_headers(one, cast(BinaryIO, timed), limits)
        except errors.UserError as error:
            if not timed.expired:
                raise
            raise errors.UserError(
                f"its headers take more than {limits.header_seconds:g} seconds to read, which this "
                "page does not wait; python -m export.separate does"
            ) from error


def _check_headers(one: Recording, file: BinaryIO, limits: Limits) -> None:
    try:
        with decoding.Reader(file) as reader:
            values = reader.rate * reader.num_channels
            if reader.num_channels > _MAX_CHANNELS or values > _MAX_VALUES_PER_SECOND:
                raise errors.UserError(
                    f"{reader.num_channels} channels of {reader.rate} samples a second are more "
                    f"than this page takes (up to {_MAX_CHANNELS} channels, and "
                    f"{_MAX_VALUES_PER_SECOND:,} samples a second in all); python -m "
                    "export.separate takes more"
                )
            if reader.num_samples is not None:
                _check_seconds(reader.num_samples / reader.rate, limits)
    except (errors.UserError, OSError) as error:
        raise errors.UserError(one.explain(error)) from error


def _check_seconds(seconds: float, limits: Limits) -> None:
    if seconds > limits.seconds + _SPARE_SECONDS:
        raise errors.UserError(
            f"longer than {limits.seconds / 60:g} minutes, which is what this page takes; cut it, "
            "or use python -m export.separate, which takes recordings of any length"
        )


class Queue:
    """Separates recordings one after the other, or a few at once, in threads."""

    def __init__(
        self, models: model_catalog.Models, limits: Limits, at_once: int, waiting: int
    ) -> None:
        """Starts with nothing to do.

        Args:
            models: to choose from.
            limits: of a recording.
            at_once: recordings that are separated at the same time.
            waiting: recordings that may wait beyond those.
        """
        self._models = models
        self._limits = limits
        self._room = at_once + waiting
        self._pool = concurrent.futures.ThreadPoolExecutor(at_once, "separation")
        self._lock = threading.Lock()
        self._recordings: list[Recording] = []
        self._futures: set[concurrent.futures.Future[None]] = set()

    def warm_up(self) -> None:
        """Loads the first model in the background."""
        self._submit(self._load_first)

    def _load_first(self) -> None:
        try:
            self._models.load(self._models.default)
        except errors.UserError as error:
            # Said here as well as to everybody who chooses it.
            cli.report(error)

    @property
    def full(self) -> bool:
        """Whether no further recording is taken now."""
        with self._lock:
            return sum(not one.discarded for one in self._recordings) >= self._room

    def submit(self, one: Recording) -> None:
        """Takes a recording, in its turn."""
        with self._lock:
            self._recordings.append(one)
        self._submit(self._run, one)

    def ahead(self, one: Recording) -> int:
        """How many are waiting or being separated that came before it."""
        with self._lock:
            place = self._recordings.index(one) if one in self._recordings else 0
            return sum(not other.discarded for other in self._recordings[:place])

    def close(self, seconds: float) -> bool:
        """Ends what is being done.

        Args:
            seconds: to wait for what runs to notice.

        Returns:
            Whether all threads have ended.
        """
        with self._lock:
            recordings, futures = list(self._recordings), set(self._futures)
        for one in recordings:
            one.discard()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return not concurrent.futures.wait(futures, seconds).not_done

    def _submit(self, function: Any, *arguments: Any) -> None:
        future = self._pool.submit(function, *arguments)
        with self._lock:
            self._futures.add(future)
        future.add_done_callback(self._forget)

    def _forget(self, future: "concurrent.futures.Future[None]") -> None:
        with self._lock:
            self._futures.discard(future)

    def _run(self, one: Recording) -> None:
        try:
            if one.begin():
                self._work(one)
        finally:
            with self._lock:
                self._recordings.remove(one)
            one.end()

    def _work(self, one: Recording) -> None:
        one.state = RUNNING
        try:
            one.step = "loading the model"
            model = self._models.load(one.model)
            one.step = "separating"
            _separate(one, model, self._models.titles[one.model], self._limits)
            one.state = DONE
        except _DiscardedError:
            one.state = FAILED
        except (errors.UserError, OSError) as error:
            one.message, one.state = one.explain(error), FAILED
        except Exception as error:  # A model that somebody else trained raises what it likes.
            if not one.discarded:
                logging.exception("separation failed")
            one.message = f"the model {one.model} failed ({type(error).__name__})"
            one.state = FAILED


class _DiscardedError(Exception):
    """Nobody wants the recording any more."""


class _Watch:
    """Follows a separation: how far it is, whether it may go on, and what was heard."""

    def __init__(self, one: Recording, rate: int, total: float | None, limits: Limits) -> None:
        self._one, self._rate, self._total, self._limits = one, rate, total, limits
        self._num_samples = 0
        self._mixture: list[np.ndarray] = []
        self._voices: list[np.ndarray] = []

    def __call__(self, mixture: np.ndarray, voices: np.ndarray) -> None:
        """Takes `[sample, channel]` and `[source, sample, channel]`."""
        if self._one.discarded:
            raise _DiscardedError
        self._num_samples += len(mixture)
        seconds = self._num_samples / self._rate
        _check_seconds(seconds, self._limits)
        self._one.step = f"separating, {seconds:.0f} s done"
        if self._total:
            self._one.step = f"separating, {min(seconds, self._total):.0f} of {self._total:.0f} s"
            self._one.fraction = min(seconds / self._total, 1.0)
        self._mixture.append(mixture.mean(axis=1))
        self._voices.append(voices.mean(axis=2))

    def heard(self) -> tuple[np.ndarray, np.ndarray]:
        """Float32 `[sample]` and `[source, sample]`, means of the channels at the model's rate."""
        return np.concatenate(self._mixture), np.concatenate(self._voices, axis=1)


def _separate(one: Recording, model: loading.LoadedModel, title: str, limits: Limits) -> None:
    with decoding.Reader(one.source) as reader:
        rate, channels = reader.rate, reader.num_channels
        total = None if reader.num_samples is None else reader.num_samples / rate
    watch = _Watch(one, model.sample_rate, total, limits)
    job = jobs.Job(one.source, one.folder / "out")
    done = separate.separate_file(job, model, listeners=[watch])
    one.step, one.fraction = "drawing", None
    _write_mixture(one)
    stem = pathlib.PurePosixPath(one.name).stem
    for index, path in enumerate(done.files):
        name = jobs.Job(one.source, pathlib.Path(stem)).voice(index).name
        one.files[f"voice{index + 1}.wav"] = File(path, "audio/wav", name)
    one.view = {
        "key": one.key,
        "title": one.name,
        "note": done.note,
        "seconds": done.seconds,
        "rate": rate,
        "channels": channels,
        "model": title,
        "kilohertz": model.sample_rate / 2000,
        **_draw(one, *watch.heard()),
    }


def _write_mixture(one: Recording) -> None:
    """The recording as every browser plays it, whatever it came as."""
    path = one.folder / "mixture.wav"
    with (
        decoding.Reader(one.source, verify=False) as reader,
        decoding.Writer(
            path, reader.rate, reader.num_channels, num_samples=reader.num_samples
        ) as writer,
    ):
        for block in reader.blocks():
            if one.discarded:
                raise _DiscardedError
            writer.write(np.clip(block, -1, 1))
    stem = pathlib.PurePosixPath(one.name).stem
    one.files["mixture.wav"] = File(path, "audio/wav", f"{stem}.wav")


def _draw(one: Recording, mixture: np.ndarray, voices: np.ndarray) -> dict[str, Any]:
    """Draws a recording and its voices: what the template's tiles need."""
    peak = max(pictures.peak(mixture), 1e-7)
    full = max(float(np.abs(mixture).max()), float(np.abs(voices).max()))

    def add(name: str, png: bytes) -> str:
        path = one.folder / name
        path.write_bytes(png)
        one.files[name] = File(path, "image/png", name)
        return f"recordings/{one.key}/{name}"

    def tile(file: str, title: str, signal: np.ndarray, about: str, voice: int = 0) -> dict:
        return {
            "title": title,
            "voice": voice,
            "note": "",
            "picture": add(f"{file}.png", pictures.spectrogram_png(signal, peak)),
            "alt": f"Spectrogram of {about}, brighter where louder",
            "wave": charts.waveform(signal, full, f"Waveform of {about}"),
            "sound": f"recordings/{one.key}/{file}.wav",
            "label": f"Play {about}",
            "file": one.files[f"{file}.wav"].name,
            "bytes": one.files[f"{file}.wav"].path.stat().st_size,
        }

    tiles = [
        tile(f"voice{s + 1}", f"voice {s + 1}", voice, f"voice {s + 1} of {one.name}", s + 1)
        for s, voice in enumerate(voices)
    ]
    shares = oracles.shares(voices)
    masks = [
        {
            "title": "all voices",
            "voice": 0,
            "note": "hue: whose; brighter where louder",
            "picture": add("who.png", pictures.assignment_png(shares, mixture, peak)),
            "alt": f"Which voice each bin of {one.name} is given to, a colour a voice, "
            "brighter where louder",
        }
    ]
    masks += [
        {
            "title": f"voice {s + 1}",
            "voice": s + 1,
            "note": f"{100 * float(share.mean()):.0f} % of all",
            "picture": add(f"mask{s + 1}.png", pictures.share_png(share)),
            "alt": f"Share of each bin of {one.name} that voice {s + 1} is given, dark for none",
        }
        for s, share in enumerate(shares)
    ]
    return {
        "mixture": tile("mixture", "recording", mixture, one.name),
        "voices": tiles,
        "masks": masks,
    }
