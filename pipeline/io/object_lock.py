"""A lock for an object store: an object for each owner, with a heartbeat.

A store has no lock that is released when its process dies. Each job that wants a folder therefore
writes an object of its own, and only then looks for those of others: of two jobs, at least one sees
the other. An owner rewrites its object every few seconds. An object that was not rewritten for a
minute belongs to a dead job and is removed. Ages are differences between objects of one store, by
its clock, so local clocks need not be right.

No library was found that can lock in every store that Beam supports: those for S3 alone rely on
conditional writes, which Beam's file systems do not offer, and other lock services would have to be
run.

Between a check and the write that follows, a job may be suspended for so long that another takes
over (the machine sleeps, or the network is down), and the write would restore its object. A late
job therefore checks again after the write, and gives way to any other job: they wrote their objects
before they considered this one dead, so the check finds them. This only requires listings that show
earlier writes, which S3 and Cloud Storage guarantee.
"""

import io
import json
import os
import socket
import threading
import time
import uuid
from types import TracebackType

from pipeline import errors, file_names
from pipeline.io import objects

BEAT_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
# A job is late if it gave no sign of life for almost as long: clocks differ slightly.
_LATE_SECONDS = 45.0
_START = f"{file_names.LOCK}."


class LostError(errors.UserError):
    """Another job has taken over a folder."""


class Lease:
    """Keeps other jobs out of a folder of an object store during the `with` block.

    If two jobs ask at the same moment, both may be refused, but never both admitted.
    """

    def __init__(self, folder: str) -> None:
        """Sets the folder, with its scheme."""
        self._folder = folder.rstrip("/")
        self._name = f"{_START}{uuid.uuid4().hex}"
        self._started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._signed = 0.0
        self._lost = False
        # The owner calls `check` while the heartbeat may be between a check and a write.
        self._step = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Lease":
        """Locks the folder.

        Raises:
            UserError: another job holds it.
        """
        self._write()
        try:
            self._refuse_others()
            # Others may have considered this job dead meanwhile.
            self.check()
        except BaseException:
            self._remove(self._name)
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._remove(self._name)

    def check(self) -> None:
        """Checks that this job still holds the folder.

        Raises:
            LostError: it does not; it was out of contact for long and another job has taken over.
        """
        with self._step:
            self._look()
            if _now() - self._signed > _LATE_SECONDS:
                self._renew()

    def _look(self) -> None:
        if self._lost or self._name not in self._ages():
            self._lost = True
            raise LostError(
                f"{self._folder}: this job gave no sign of life for {EXPIRY_SECONDS:.0f} seconds, "
                "and another has taken over; run the same command again when it has ended"
            )

    def _renew(self) -> None:
        """Gives a sign of life; a late job checks again, and gives way to any other job."""
        before = self._signed
        self._write()
        if _now() - before > _LATE_SECONDS and self._ages().keys() - {self._name}:
            self._lost = True
            self._remove(self._name)
            self._look()

    def _refuse_others(self) -> None:
        ages = self._ages()
        now = ages.pop(self._name)
        for name, updated in ages.items():
            seconds = now - updated
            if seconds > EXPIRY_SECONDS:
                self._remove(name)
                continue
            raise errors.UserError(
                f"{self._folder}: another job ({self._owner(name)}) is writing to this folder, its "
                f"last sign of life was {max(0, seconds):.0f} seconds ago; wait for it (its lock "
                f"ends {EXPIRY_SECONDS:.0f} seconds after the last), or choose another --output_dir"
            )

    def _ages(self) -> dict[str, float]:
        """Returns when each owner's object was last written, in seconds by the store's clock."""
        return {found.name: found.updated for found in objects.match(self._folder, _START)}

    def _owner(self, name: str) -> str:
        try:
            owner = json.loads(objects.read(f"{self._folder}/{name}", 4096))
            return f"process {owner['process']} on {owner['host']}, since {owner['started']}"
        except (errors.UserError, KeyError, TypeError, ValueError):
            return "unknown"

    def _write(self) -> None:
        owner = {"process": os.getpid(), "host": socket.gethostname(), "started": self._started}
        content = io.BytesIO(json.dumps(owner).encode())
        # The store may record the start or the end of the write.
        begun = _now()
        objects.write(f"{self._folder}/{self._name}", content)
        self._signed = begun

    def _remove(self, name: str) -> None:
        try:
            objects.delete(f"{self._folder}/{name}")
        except errors.UserError:
            # It will expire.
            return

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                with self._step:
                    # A job that others considered dead must not come back to life.
                    self._look()
                    self._renew()
            except objects.ObjectError:
                continue
            except errors.UserError:
                return


def _now() -> float:
    """Returns seconds by a clock that also runs while the machine sleeps, if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
