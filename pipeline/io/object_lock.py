"""A lock for an object store: an owner's object with a heartbeat.

A store has no lock that dies with its process. So each job that wants a folder writes an object of
its own, and only then looks for those of others: of two jobs at least one sees the other. An owner
writes its object again every few seconds; one that was not for a minute belongs to a dead job and
is removed. Ages are taken between objects of one store, by its clock: ours need not be right.

No library was found that locks in any store that Beam reaches: conditional writes, on which those
for S3 alone rely, are not among what Beam's file systems offer, and other lock services would have
to be run.

Between a look and the write that follows, a job may stand still for so long that another takes over
(a machine that sleeps, a network that is down), and the write would bring its object back. So
whoever has been late looks again after the write, and gives way to anybody who is there: they wrote
their object before they took us for dead, so that this look finds it. It needs nothing but listings
that show what was written before, which S3 and Cloud Storage promise.
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
# Late is who gave no sign for nearly that long: clocks differ a little.
_LATE_SECONDS = 45.0
_START = f"{file_names.LOCK}."


class LostError(errors.UserError):
    """Another job has taken over a folder."""


class Lease:
    """Keeps other jobs off a folder of an object store while the `with` block runs.

    Where two jobs ask in the same moment, both may be refused, but never both be let in.
    """

    def __init__(self, folder: str) -> None:
        """Takes the folder, with its scheme."""
        self._folder = folder.rstrip("/")
        self._name = f"{_START}{uuid.uuid4().hex}"
        self._started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._signed = 0.0
        self._lost = False
        # Its owner asks while the heartbeat may be between a look and a write.
        self._step = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Lease":
        """Takes the folder.

        Raises:
            UserError: another job has it.
        """
        self._write()
        try:
            self._refuse_others()
            # Others may have taken us for dead while we looked.
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
        """Whether the folder is still ours.

        Raises:
            LostError: it is not; this job was out of reach for long and another has taken over.
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
        """Gives a sign of life; who was late looks again, and gives way to anybody who is there."""
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
        """When each owner's object was last written, in seconds by the store's clock."""
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
        # The store may take either end of the write for its time.
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
                    # Who was taken for dead must not come back to life.
                    self._look()
                    self._renew()
            except objects.ObjectError:
                continue
            except errors.UserError:
                return


def _now() -> float:
    """Seconds by a clock that also goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
