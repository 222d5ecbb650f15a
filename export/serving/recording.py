"""One client's recording: its files, its progress and its result.

Client input never becomes part of a path: the server chooses all file and folder names, and clients
request files by a key of `Recording.files`.
"""

import dataclasses
import pathlib
import secrets
import shutil
import threading
from typing import Any

from pipeline import errors

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
# The stages of processing after the upload, in order.
STAGES = ("waiting", "reading", "loading", "separating", "writing", "drawing")


class DiscardedError(Exception):
    """The recording has been discarded."""


@dataclasses.dataclass(frozen=True)
class File:
    """A file for download: its path, its type and its name for the client."""

    path: pathlib.Path
    media_type: str
    name: str


class Recording:
    """One recording of one client.

    Attributes:
        key: identifies it in URLs; cannot be guessed.
        folder: holds all its files.
        name: the client's file name, shown only to that client.
        model: name of the model that separates it.
        state: `waiting`, `running`, `done` or `failed`.
        stage: the current stage, one of `STAGES`.
        step: the same in words, with its progress.
        fraction: the completed fraction of the stage, or None if unknown.
        message: what the user has to know about the outcome.
        files: files for download, by the last part of their URL.
        view: the variables of the result's template.
    """

    def __init__(self, home: pathlib.Path, name: str, model: str) -> None:
        """Creates the recording's folder within `home`."""
        self.key = secrets.token_urlsafe(18)
        self.folder = home / self.key
        self.folder.mkdir(mode=0o700)
        self.name = clean_name(name)
        self.model = model
        self.state = WAITING
        self.stage = self.step = STAGES[0]
        self.fraction: float | None = None
        self.message = ""
        self.files: dict[str, File] = {}
        self.view: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._discarded = self._in_work = False

    @property
    def source(self) -> pathlib.Path:
        """Path of the uploaded file."""
        return self.folder / "source"

    @property
    def active(self) -> bool:
        """Whether processing is not finished yet."""
        return self.state in (WAITING, RUNNING)

    @property
    def discarded(self) -> bool:
        """Whether it has been discarded."""
        return self._discarded

    def go_on(self) -> None:
        """Checks that work on the recording may continue.

        Raises:
            DiscardedError: it has been discarded.
        """
        if self._discarded:
            raise DiscardedError

    def begin_stage(self, stage: str, step: str = "") -> None:
        """Records the start of a stage; raises the same error as `go_on`."""
        self.go_on()
        self.stage, self.step, self.fraction = stage, step or stage, None

    def discard(self) -> None:
        """Removes its files: now, or as soon as the thread that works on it stops."""
        with self._lock:
            self._discarded = True
            in_work = self._in_work
        if not in_work:
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self) -> bool:
        """Marks it as being worked on by a thread; returns false if it has been discarded."""
        with self._lock:
            self._in_work = not self._discarded
            return self._in_work

    def end(self) -> None:
        """Marks it as no longer being worked on."""
        with self._lock:
            self._in_work = False
            discarded = self._discarded
        if discarded:
            shutil.rmtree(self.folder, ignore_errors=True)

    def explain(self, error: errors.UserError | OSError) -> str:
        """Formats an error for the client without revealing paths on this machine."""
        text = errors.explain_os_error(error) if isinstance(error, OSError) else str(error)
        for path in (self.source, self.folder):
            text = text.replace(f"{path}: ", "").replace(f"{path}/", "")
        # The client of a page has no command to run.
        text = text.replace("run the same command again", "try again")
        return text.replace(str(self.folder), self.name)


def clean_name(name: str) -> str:
    """Cleans a file name for display: keeps the last part of the path, drops unusual characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(c for c in last if c.isprintable()).strip().lstrip(".")
    return shown[:120] or "recording"
