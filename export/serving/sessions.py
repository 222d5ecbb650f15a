"""Sessions: the recordings of each browser, and how long they are kept.

A session is identified by a secret in a cookie, signed by this server. Recordings are only found
through their session, so a URL is useless to anybody else who sees it.

Opening the page hands out a secret, but stores nothing: a session begins with the browser's first
upload. Opening the page many times, or making other browsers do so, therefore takes up no sessions.
"""

import contextlib
import fcntl
import hmac
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable

from export.serving import recording
from pipeline import errors

RECORDINGS = 4
_SESSIONS = 200
_PREFIX = "voices-apart-page-"
_LOCK_FILE = "lock"
# A younger folder may belong to another server that has not locked it yet.
_YOUNGEST_SECONDS = 60


class Session:
    """The recordings of one browser, the oldest first.

    Attributes:
        token: the secret that identifies it.
        recordings: its recordings by key.
        last_seen: time of its last request, by the clock of `Sessions`.
    """

    def __init__(self, token: str, now: float) -> None:
        """Starts with no recordings."""
        self.token = token
        self.recordings: dict[str, recording.Recording] = {}
        self.last_seen = now

    def make_room(self) -> None:
        """Removes the oldest recordings if the maximum number has been reached.

        Raises:
            UserError: all of them are still being separated.
        """
        for key, one in list(self.recordings.items()):
            if len(self.recordings) < RECORDINGS:
                return
            if not one.active:
                self.remove(key)
        if len(self.recordings) >= RECORDINGS:
            raise errors.UserError(
                f"{RECORDINGS} recordings of yours are being separated; wait for one of them"
            )

    def remove(self, key: str) -> bool:
        """Removes a recording and its files; returns false if there is none with that key."""
        one = self.recordings.pop(key, None)
        if one is not None:
            one.discard()
        return one is not None

    def close(self) -> None:
        """Removes all recordings."""
        for key in list(self.recordings):
            self.remove(key)


class Sessions:
    """All sessions of a server, and the folder that holds their files."""

    def __init__(self, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Creates the folder, accessible only to this user.

        Args:
            keep_seconds: how long a session is kept after its last request.
            clock: returns the time in seconds.
        """
        _remove_left_behind()
        self._create_folder()
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._sessions: dict[str, Session] = {}
        self._expired: dict[str, None] = {}

    def _create_folder(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX))
        # The lock is held as long as this process lives, however it ends.
        self._lock = (self.folder / _LOCK_FILE).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def ensure_folder(self) -> pathlib.Path:
        """Returns the folder, and creates it anew if the system cleaned up its temporary files.

        Raises:
            OSError: it cannot be created.
        """
        if not self.folder.is_dir():
            self._lock.close()
            self._create_folder()
        return self.folder

    def new_token(self) -> str:
        """Creates a secret for a browser that has none, without storing it."""
        secret = secrets.token_urlsafe(32)
        return f"{secret}.{self._signature(secret)}"

    def is_ours(self, token: str) -> bool:
        """Returns whether this server's `new_token` created the secret."""
        secret, _, signature = token.partition(".")
        return hmac.compare_digest(signature.encode(), self._signature(secret).encode())

    def _signature(self, secret: str) -> str:
        return hmac.digest(self._key, secret.encode(), "sha256").hex()

    def find(self, token: str) -> Session | None:
        """Returns the session of a secret, if any, and updates `last_seen`."""
        session = self._sessions.get(token)
        if session is not None:
            session.last_seen = self._clock()
        return session

    def open(self, token: str) -> Session:
        """Returns the session of a secret, creating it if there is none.

        Args:
            token: a secret from `new_token`.

        Raises:
            UserError: there are too many sessions with recordings.
        """
        session = self.find(token)
        if session is not None:
            return session
        if len(self._sessions) >= _SESSIONS:
            idle = [s for s in self._sessions.values() if not s.recordings]
            if not idle:
                raise errors.UserError("too many people use this page at once; try again later")
            del self._sessions[min(idle, key=lambda s: s.last_seen).token]
        session = self._sessions[token] = Session(token, self._clock())
        return session

    def has_expired(self, token: str) -> bool:
        """Returns whether `expire` has removed recordings of this session; true only once."""
        if token not in self._expired:
            return False
        del self._expired[token]
        return True

    def num_bytes(self) -> int:
        """Returns the total size of all sessions' files, including unfinished uploads."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                # Another thread may be removing it.
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def expire(self) -> None:
        """Removes the sessions without a recent request."""
        now = self._clock()
        for session in list(self._sessions.values()):
            if now - session.last_seen > self._keep_seconds:
                del self._sessions[session.token]
                if session.recordings:
                    self._expired[session.token] = None
                session.close()
        for token in list(self._expired)[:-_SESSIONS]:
            del self._expired[token]

    def close(self) -> None:
        """Removes all sessions and the folder."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_left_behind() -> None:
    """Removes folders of killed servers: nobody holds their locks."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime < _YOUNGEST_SECONDS or folder.is_symlink():
                continue
            with (folder / _LOCK_FILE).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
