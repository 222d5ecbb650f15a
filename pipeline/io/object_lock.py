"""A lock for an object store: an owner's object with a heartbeat.

A store has no lock that dies with its process. So each job that wants a folder writes an object of
its own, and only then looks for those of others: of two jobs at least one sees the other. An owner
writes its object again every few seconds; one that was not for a minute belongs to a dead job and
is removed. Ages are taken between objects of one store, by its clock: ours need not be right.

No library was found that locks in any store that Beam reaches: conditional writes, on which those
for S3 alone rely, are not among what Beam's file systems offer, and other lock services would have
to be run.
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
_START = f"{file_names.LOCK}."


class Lease:
    """Keeps other jobs off a folder of an object store while the `with` block runs.

    Where two jobs ask in the same moment, both may be refused, but never both be let in.
    """

    def __init__(self, folder: str) -> None:
        """Takes the folder, with its scheme."""
        self._folder = folder.rstrip("/")
        self._name = f"{_START}{uuid.uuid4().hex}"
        self._started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
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
            UserError: it is not; this job was out of reach for long and another has taken over.
        """
        if self._name not in self._ages():
            raise errors.UserError(
                f"{self._folder}: this job gave no sign of life for {EXPIRY_SECONDS:.0f} seconds, "
                "and another has taken over; run the same command again when it has ended"
            )

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
        objects.write(f"{self._folder}/{self._name}", content)

    def _remove(self, name: str) -> None:
        try:
            objects.delete(f"{self._folder}/{name}")
        except errors.UserError:
            # It will expire.
            return

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                # Who was taken for dead must not come back to life.
                self.check()
                self._write()
            except objects.ObjectError:
                continue
            except errors.UserError:
                return
