"""Keeping libraries that talk much away from the terminal."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*streams: int) -> Iterator[None]:
    """Keeps from the terminal what is written, by whatever library, to streams 1 and 2, or one."""
    with open(os.devnull, "w") as nothing, contextlib.ExitStack() as stack:
        for number in streams:
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nothing.fileno(), number)
        yield
