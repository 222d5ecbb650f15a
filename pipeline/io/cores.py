"""Number of available cores; from Python 3.13 on, `os.process_cpu_count` gives the same."""

import os


def available_cores() -> int:
    """Returns the number of cores this process may use, by its CPU affinity if the system has one.

    On macOS and Windows, which have none, it is all cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
