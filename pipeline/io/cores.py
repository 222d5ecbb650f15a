"""How many cores there are to work on; `os.process_cpu_count` says the same from Python 3.13 on."""

import os


def available_cores() -> int:
    """Cores that this process may use: those it is kept on, where the system says so.

    macOS and Windows do not; there it is all cores of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
