"""Applies a function to many items in threads, for reading and writing that waits for answers."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

# What a store takes in parallel from one machine without complaint; each keeps a connection.
_THREADS = 16
# Bounds the memory of results that wait for their turn.
_AHEAD = 4 * _THREADS

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Yields the results in the order of the items, whose iterator only this thread advances.

    Unlike `Executor.map`, it keeps only some items and results in memory.

    Raises:
        Exception: what the function raised for the first item for which it did; calls that have
            not begun are then cancelled.
    """
    remaining = iter(items)
    waiting: collections.deque[futures.Future[_Result]] = collections.deque()
    try:
        while True:
            for item in itertools.islice(remaining, _AHEAD - len(waiting)):
                waiting.append(_pool().submit(function, item))
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@functools.cache
def _pool() -> futures.ThreadPoolExecutor:
    """Returns the same threads for all calls: each keeps its client of a store."""
    return futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="files")
