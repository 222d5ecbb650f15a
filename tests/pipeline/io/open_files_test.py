"""As many files can be mapped as the system permits; more are one clear line."""

import subprocess
import sys

import pytest

from pipeline.io import open_files

SCRIPT = """
import pathlib, resource, sys
from pipeline import errors
from pipeline.io import open_files

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64 if "hard" in sys.argv else hard))
mapped = []
for number in range(100):
    path = pathlib.Path(sys.argv[1], str(number))
    try:
        path.write_bytes(bytes([number]))
        mapped.append(open_files.map_file(str(path)))
    except OSError as error:
        sys.exit(errors.explain_os_error(error))
assert [data[0] for data in mapped] == list(range(100))
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)], capture_output=True, text=True
    )


def test_more_files_than_the_soft_limit(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 0, done.stderr


def test_more_files_than_the_hard_limit(tmp_path):
    done = run(tmp_path, "hard")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(str(tmp_path))
    assert "Too many open files" in done.stderr
    assert "ulimit -n" in done.stderr


@pytest.mark.parametrize("size", [1, 2**20 + 1])
def test_the_content(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(range(256)) * (size // 256) + b"!")
    assert open_files.map_file(str(tmp_path / "x"))[:] == (tmp_path / "x").read_bytes()
