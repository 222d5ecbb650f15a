"""A lock that only one process holds at a time, and that leaves no file behind."""

import errno
import fcntl
import os
import re
import subprocess
import sys

import pytest

from pipeline import errors
from pipeline.io import file_lock


class RefusedError(Exception):
    pass


def test_one_at_a_time(tmp_path):
    path = str(tmp_path / "lock")
    with file_lock.hold(path, RefusedError):
        for _ in range(2):
            with pytest.raises(RefusedError, match=f"^{os.getpid()}$"):
                file_lock.hold(path, RefusedError).__enter__()
    assert not list(tmp_path.iterdir())
    with file_lock.hold(path, RefusedError):
        assert list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_named_and_nothing_left_there(tmp_path, monkeypatch, number):
    def refuse(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = str(tmp_path / "lock")
    with pytest.raises((errors.UserError, OSError), match=re.escape(path)) as caught:
        file_lock.hold(path, RefusedError).__enter__()
    assert ("has no locks" in str(caught.value)) == (number != errno.EIO)
    assert not list(tmp_path.iterdir())


def test_it_is_let_go_of_when_its_process_dies(tmp_path):
    path = str(tmp_path / "lock")
    program = (
        "import os, sys; from pipeline.io import file_lock\n"
        "with file_lock.hold(sys.argv[1], Exception): os._exit(3)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == 3
    assert os.path.exists(path)
    with file_lock.hold(path, RefusedError):
        pass
    assert not os.path.exists(path)
