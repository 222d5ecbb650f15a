"""One recording of one client: where its files lie, how far it is, what came of it.

What a client says never becomes a path: every file lies under a name of ours in a folder of ours,
and is asked for by a key of `Recording.files`.
"""

import dataclasses
import pathlib
import secrets
import shutil
import threading
from typing import Any

from pipeline import errors

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
# What a recording that has come goes through, in order.
STAGES = ("waiting", "reading", "loading", "separating", "writing", "drawing")


class DiscardedError(Exception):
    """Nobody wants the recording any more."""


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
        stage: what is being done, one of `STAGES`.
        step: the same in words, with how far it is.
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
        self.stage = self.step = STAGES[0]
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

    def go_on(self) -> None:
        """Lets the thread that works on it go on.

        Raises:
            DiscardedError: nobody wants it any more.
        """
        if self._discarded:
            raise DiscardedError

    def begin_stage(self, stage: str, step: str = "") -> None:
        """Says what is being done from now on; likewise raises."""
        self.go_on()
        self.stage, self.step, self.fraction = stage, step or stage, None

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
