"""Suppresses the terminal output of verbose libraries."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*streams: int) -> Iterator[None]:
    """Suppresses all output to file descriptors 1 and 2, or one of them, including libraries'."""
    with open(os.devnull, "w") as nothing, contextlib.ExitStack() as stack:
        for number in streams:
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nothing.fileno(), number)
        yield
