"""What all tests share: quiet libraries, the folder of real recordings, running a command."""

import os
import pathlib
import subprocess
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def recordings():
    """The folder that holds `timit_sample` and `speech`; skips where there is none."""
    folder = os.environ.get("SPEECH_RECORDINGS")
    if not folder:
        pytest.skip("SPEECH_RECORDINGS does not name a folder of real recordings")
    return pathlib.Path(folder).resolve()


@pytest.fixture(scope="session")
def run_command():
    """Runs `python -m MODULE FLAGS...` as a person would; returns the finished process."""

    def run(module, *flags, timeout=300, env=None, cwd=ROOT, stdin=None):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, flags)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
        )

    return run
