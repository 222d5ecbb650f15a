"""The available cores, and processes that use them."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Iterator

from pipeline import errors


def available_cores() -> int:
    """Returns the number of cores this process may use, by its CPU affinity if the system has one.

    On macOS and Windows, which have none, it is all cores of the machine. From Python 3.13 on,
    `os.process_cpu_count` gives the same.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def processes(count: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Yields a pool of processes; what has not begun when the `with` block ends is cancelled.

    They do not react to Ctrl-C, which reaches the whole process group: the main process ends them.

    Raises:
        UserError: a process was killed.
    """
    executor = concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), _ignore_interrupt
    )
    try:
        yield executor
    except concurrent.futures.BrokenExecutor as error:
        raise errors.UserError(
            "a process was killed, perhaps for want of memory; run the command again"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
