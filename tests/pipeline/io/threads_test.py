"""Results in order, errors at their place, and never more than some items at a time."""

import threading

import pytest

from pipeline.io import threads


def test_results_come_in_order_from_several_threads():
    both = threading.Barrier(2)

    def wait(item):
        if item < 2:
            both.wait(timeout=10)
        return item * item

    assert list(threads.in_order(wait, range(500))) == [n * n for n in range(500)]
    assert list(threads.in_order(wait, [])) == []


def test_few_items_are_taken_before_their_turn():
    taken = 0

    def items():
        nonlocal taken
        while taken < 10_000:
            taken += 1
            yield taken

    results = threads.in_order(str, items())
    assert next(results) == "1"
    assert taken < 200
    assert next(results) == "2"
    results.close()
    assert taken < 200


def test_an_error_is_raised_at_its_place():
    def fail(item):
        if item >= 3:
            raise OSError(item)
        return item

    results = threads.in_order(fail, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match=r"^3$"):
        next(results)
