"""The available cores, and processes that use them."""

import concurrent.futures
import multiprocessing
import os
import signal


def available_cores() -> int:
    """Returns the number of cores this process may use, by its CPU affinity if the system has one.

    On macOS and Windows, which have none, it is all cores of the machine. From Python 3.13 on,
    `os.process_cpu_count` gives the same.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes(count: int) -> concurrent.futures.ProcessPoolExecutor:
    """Makes a pool of processes.

    They do not react to Ctrl-C, which reaches the whole process group: the main process ends them.
    """
    return concurrent.futures.ProcessPoolExecutor(
        count,
        multiprocessing.get_context("spawn"),
        _ignore_interrupt,
    )


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
