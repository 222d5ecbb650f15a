"""Separates uploaded recordings in background threads."""

import concurrent.futures
import dataclasses
import threading
import time
from typing import Any, BinaryIO, cast

import numpy as np
from absl import logging

from export.conversations import file_separation
from export.separation import jobs, loading
from export.serving import model_catalog, recording, view
from pipeline import cli, errors
from pipeline.audio import decoding

# Two channels at 192 kHz, or eight at 48 kHz; this also limits what a small file can decode to.
_MAX_VALUES_PER_SECOND = 384_000
_MAX_CHANNELS = 8
# Resampling to the model's rate can lengthen a recording by a sample.
_SPARE_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits for one recording.

    Attributes:
        num_bytes: size of the file.
        seconds: duration.
        header_seconds: time that may be spent on reading the headers.
    """

    num_bytes: int
    seconds: float
    header_seconds: float = 5.0


class _TimedFile:
    """A file with a time limit for reading, against files with millions of tiny chunks."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        self._file = file
        self._end = time.monotonic() + seconds
        self.expired = False

    def read(self, size: int = -1) -> bytes:
        if self._is_over():
            raise errors.UserError("its headers take too long to read")
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        # Called by libsndfile, which no exception can pass through: report the end of the file.
        return 0 if self._is_over() else cast(Any, self._file).readinto(buffer)

    def _is_over(self) -> bool:
        self.expired = self.expired or time.monotonic() >= self._end
        return self.expired

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def check(one: recording.Recording, limits: Limits) -> None:
    """Reads the headers of an uploaded recording, within the time limit.

    Raises:
        UserError: it is no recording, or exceeds the limits; the message contains no path.
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
                "page does not wait; voices-apart separate does"
            ) from error


def _check_headers(one: recording.Recording, file: BinaryIO, limits: Limits) -> None:
    try:
        with decoding.Reader(file) as reader:
            values = reader.rate * reader.num_channels
            if reader.num_channels > _MAX_CHANNELS or values > _MAX_VALUES_PER_SECOND:
                raise errors.UserError(
                    f"{reader.num_channels} channels of {reader.rate} samples a second are more "
                    f"than this page takes (up to {_MAX_CHANNELS} channels, and "
                    f"{_MAX_VALUES_PER_SECOND:,} samples a second in all); voices-apart "
                    "separate takes more"
                )
            if reader.num_samples is not None:
                _check_seconds(reader.num_samples / reader.rate, limits)
    except (errors.UserError, OSError) as error:
        raise errors.UserError(one.explain(error)) from error


def _check_seconds(seconds: float, limits: Limits) -> None:
    if seconds > limits.seconds + _SPARE_SECONDS:
        raise errors.UserError(
            f"longer than {limits.seconds / 60:g} minutes, which is what this page takes; cut it, "
            "or use voices-apart separate, which takes recordings of any length"
        )


class Queue:
    """Separates recordings in threads, one or a few at a time."""

    def __init__(
        self, models: model_catalog.Models, limits: Limits, at_once: int, waiting: int
    ) -> None:
        """Creates an empty queue.

        Args:
            models: the models to choose from.
            limits: the limits for one recording.
            at_once: number of recordings that are separated at the same time.
            waiting: number of further recordings that may wait.
        """
        self._models = models
        self._limits = limits
        self._room = at_once + waiting
        self._pool = concurrent.futures.ThreadPoolExecutor(at_once, "separation")
        self._lock = threading.Lock()
        self._recordings: list[recording.Recording] = []
        self._futures: set[concurrent.futures.Future[None]] = set()

    def warm_up(self) -> None:
        """Loads the first model in the background."""
        self._submit(self._load_first)

    def _load_first(self) -> None:
        try:
            self._models.load(self._models.default)
        except errors.UserError as error:
            # Reported here as well as to every user who chooses this model.
            cli.report(error)

    @property
    def full(self) -> bool:
        """Whether no further recording is accepted now."""
        with self._lock:
            return sum(not one.discarded for one in self._recordings) >= self._room

    def submit(self, one: recording.Recording) -> None:
        """Appends a recording to the queue."""
        with self._lock:
            self._recordings.append(one)
        self._submit(self._run, one)

    def ahead(self, one: recording.Recording) -> int:
        """Returns how many earlier recordings are waiting or being separated."""
        with self._lock:
            place = self._recordings.index(one) if one in self._recordings else 0
            return sum(not other.discarded for other in self._recordings[:place])

    def close(self, seconds: float) -> bool:
        """Stops all work.

        Args:
            seconds: how long to wait for running threads to end.

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

    def _run(self, one: recording.Recording) -> None:
        try:
            if one.begin():
                self._work(one)
        finally:
            with self._lock:
                self._recordings.remove(one)
            one.end()

    def _work(self, one: recording.Recording) -> None:
        one.state = recording.RUNNING
        try:
            one.begin_stage("reading")
            seconds = _read(one, self._limits)
            one.begin_stage("loading", "loading the model")
            model = self._models.load(one.model)
            _separate(one, model, seconds)
            one.view["model"] = self._models.titles[one.model]
            one.state = recording.DONE
        except recording.DiscardedError:
            one.state = recording.FAILED
        except (errors.UserError, OSError) as error:
            one.message, one.state = one.explain(error), recording.FAILED
        except Exception as error:  # A user's own model may raise anything.
            if not one.discarded:
                logging.exception("separation failed")
            kind = type(error).__name__
            if one.stage in ("loading", "separating"):
                one.message = f"the model {one.model} failed ({kind})"
            else:
                one.message = f"the page failed while {one.stage} ({kind}); see its terminal"
            one.state = recording.FAILED


def _read(one: recording.Recording, limits: Limits) -> float:
    """Converts the recording to a WAV file that every browser plays; returns its seconds.

    The duration is counted here, because a header may lack it or be wrong.
    """
    path = one.folder / "mixture.wav"
    taken = 0
    with (
        decoding.Reader(one.source) as reader,
        decoding.Writer(
            path, reader.rate, reader.num_channels, num_samples=reader.num_samples
        ) as writer,
    ):
        for block in reader.blocks():
            one.go_on()
            taken += len(block)
            _check_seconds(taken / reader.rate, limits)
            writer.write(np.clip(block, -1, 1))
            if reader.num_samples:
                one.fraction = taken / reader.num_samples
        return taken / reader.rate


def _separate(one: recording.Recording, model: loading.LoadedModel, seconds: float) -> None:
    def follow(stage: str, passed: float) -> None:
        """Shows the progress, and stops the separation of a recording that was discarded."""
        if stage != one.stage:
            one.begin_stage(stage)
        one.go_on()
        passed = min(passed, seconds)
        one.step = f"{stage}, {passed:.0f} of {seconds:.0f} s"
        one.fraction = passed / seconds

    job = jobs.Job(one.source, one.folder / "out")
    done = file_separation.separate_file(job, model, progress=follow)
    one.begin_stage("drawing")
    view.complete(one, done)
