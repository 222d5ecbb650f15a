import pytest

from benchmarks import children

PROGRAM = """
import os
from benchmarks import children
print("a library greets")
children.serve({
    "double": lambda value: 2 * value,
    "cores": lambda: [len(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]],
    "fail": lambda: 1 / 0,
})
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    (tmp_path / "a_child.py").write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def test_child_answers_in_turn_and_runs_on_its_cores(program):
    with children.Child(program, threads=1) as one, children.Child(program, threads=1) as other:
        assert [one.ask("double", 2), other.ask("double", [1]), one.ask("double", 4)] == [
            4,
            [1, 1],
            8,
        ]
        assert one.ask("cores") == [1, "1"]


def test_failure_says_what_the_child_said_last(program):
    with children.Child(program) as child:
        with pytest.raises(children.ChildError, match="ZeroDivisionError: division by zero"):
            child.ask("fail")
        with pytest.raises(children.ChildError):
            child.ask("double", 1)


def test_fastest_is_no_mean():
    waits = iter([0.2] + [0.0] * 10_000_000)

    def work():
        import time

        time.sleep(next(waits))

    assert children.fastest(work, 0.01) < 0.1
