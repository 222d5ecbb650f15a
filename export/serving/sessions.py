"""Who is who: what is kept for one browser, and until when.

A session is named by a secret in a cookie, which this server has signed; a recording is found
through its session alone, so that an address that somebody else sees is worth nothing to them.

Whoever opens the page is handed a secret, and nothing is kept of it: a session begins with what its
browser sends. So nobody who opens the page many times, or makes others' browsers do so, takes
anybody's place.
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
# Younger folders may be another server's that has not locked its own yet.
_YOUNGEST_SECONDS = 60


class Session:
    """The recordings of one browser, the oldest first.

    Attributes:
        token: the secret that names it.
        recordings: by key.
        last_seen: when it was last heard of, by the clock of `Sessions`.
    """

    def __init__(self, token: str, now: float) -> None:
        """Starts with no recordings."""
        self.token = token
        self.recordings: dict[str, recording.Recording] = {}
        self.last_seen = now

    def make_room(self) -> None:
        """Removes the oldest recordings, if there are as many as are kept.

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
        """Removes a recording and its files; false where there is none of that key."""
        one = self.recordings.pop(key, None)
        if one is not None:
            one.discard()
        return one is not None

    def close(self) -> None:
        """Removes all recordings."""
        for key in list(self.recordings):
            self.remove(key)


class Sessions:
    """All sessions of a server, and the folder under which their files lie."""

    def __init__(self, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes the folder, which nobody but this user can enter.

        Args:
            keep_seconds: how long a session that is not heard of is kept.
            clock: in seconds.
        """
        _remove_left_behind()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Held for as long as this process lives, however it ends.
        self._lock = (self.folder / _LOCK_FILE).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._sessions: dict[str, Session] = {}
        self._expired: dict[str, None] = {}

    def new_token(self) -> str:
        """A secret for a browser that has none; nothing is kept of it."""
        secret = secrets.token_urlsafe(32)
        return f"{secret}.{self._signature(secret)}"

    def is_ours(self, token: str) -> bool:
        """Whether `new_token` of this server gave it."""
        secret, _, signature = token.partition(".")
        return hmac.compare_digest(signature.encode(), self._signature(secret).encode())

    def _signature(self, secret: str) -> str:
        return hmac.digest(self._key, secret.encode(), "sha256").hex()

    def find(self, token: str) -> Session | None:
        """The session of that secret, which is now heard of."""
        session = self._sessions.get(token)
        if session is not None:
            session.last_seen = self._clock()
        return session

    def open(self, token: str) -> Session:
        """The session of that secret, a new one where there is none.

        Args:
            token: of `new_token`.

        Raises:
            UserError: there are too many with recordings of theirs.
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
        """Whether `expire` has removed recordings of that secret's; says so once."""
        if token not in self._expired:
            return False
        del self._expired[token]
        return True

    def num_bytes(self) -> int:
        """What the files of all sessions take, those that are still on their way included."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                # Another thread may be removing it.
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def expire(self) -> None:
        """Removes the sessions that were not heard of for too long."""
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
    """Removes folders of servers that were killed: nobody holds their locks."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime < _YOUNGEST_SECONDS or folder.is_symlink():
                continue
            with (folder / _LOCK_FILE).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
