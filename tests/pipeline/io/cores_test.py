import os
import pathlib
import re
import subprocess
import sys

import pytest

from pipeline.io import cores

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on this system")
def test_counts_those_that_the_process_is_kept_on():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pipeline.io import cores; print(cores.available_cores())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"


def test_counts_all_where_the_system_does_not_say(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores.available_cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.available_cores() == 1


def test_cores_are_counted_in_one_place():
    places = {
        path.relative_to(ROOT).as_posix()
        for room in ("pipeline", "models", "trainer", "export", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"len\(os\.sched_getaffinity|cpu_count\(", path.read_text(encoding="utf-8"))
    }
    assert places == {"pipeline/io/cores.py"}
