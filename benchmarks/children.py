"""Runs programs to be compared in processes of their own, one at a time.

The parent has a `Child` for each program; a child calls `serve`. They exchange lines of JSON, so a
child may run in another environment: this module needs only the standard library and NumPy. An idle
child waits for a line and uses no processor time.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline import errors

ALTERNATIVES = pathlib.Path(".venv-alternatives/bin/python")
# The environment variable with the pipe's file descriptor.
_ANSWERS = "BENCHMARK_ANSWERS"
_ROOT = pathlib.Path(__file__).resolve().parent.parent


class ChildError(errors.UserError):
    """A child has failed; the message includes its last line of output."""


class Child:
    """A running program that does jobs on request.

    Args:
        module: the module for `python -m`.
        *arguments: its command-line arguments.
        python: the Python to run, by default this environment's.
        threads: number of cores it is restricted to and of threads it uses; by default all.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        python: str | os.PathLike[str] = sys.executable,
        threads: int | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        # Not stdout, where libraries may print.
        answers, theirs = os.pipe()
        self._answers = os.fdopen(answers, encoding="utf-8")
        self._process = subprocess.Popen(
            [os.fspath(python), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            pass_fds=[theirs],
            text=True,
            cwd=_ROOT,
            env={**environment(threads), _ANSWERS: str(theirs)},
            preexec_fn=None if threads is None else lambda: keep_on_cores(threads),
        )
        os.close(theirs)

    def ask(self, job: str, *arguments: Any) -> Any:
        """Runs a job in the child and returns its result.

        Raises:
            ChildError: the job failed, or the child's process has ended.
        """
        assert self._process.stdin is not None
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps([job, *arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._answers.readline()
        if not answer:
            self._said.seek(0)
            lines = self._said.read().strip().splitlines() or ["no word"]
            raise ChildError(f"{' '.join(self._process.args[2:])}: {lines[-1]}")  # type: ignore[index]
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._answers.close()
        self._said.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def environment(threads: int | None = None) -> dict[str, str]:
    """Returns this process's environment without GPUs, and with the given number of threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    given = {} if threads is None else {name: str(threads) for name in names}
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **given}


def keep_on_cores(count: int) -> None:
    """Restricts this process to the first `count` of the cores that it may use."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))


def serve(jobs: Mapping[str, Callable[..., Any]]) -> None:
    """Runs the jobs requested on stdin until it ends; `jobs` by name, with JSON results."""
    answers = os.fdopen(int(os.environ[_ANSWERS]), "w", encoding="utf-8")
    for line in _lines():
        name, *arguments = json.loads(line)
        print(json.dumps(jobs[name](*arguments)), file=answers, flush=True)


def alternatives() -> str:
    """Returns the path of the Python in the environment with the alternatives.

    Raises:
        UserError: there is none.
    """
    path = _ROOT / ALTERNATIVES
    if not path.exists():
        raise errors.UserError("the alternatives are not installed; run: make alternatives")
    return str(path)


def _lines() -> Iterator[str]:
    while line := sys.stdin.readline():
        yield line


def babble(seconds: float, rate: int = 8000) -> Any:
    """Generates noise with a syllabic level: silence would be unrealistically fast to process.

    Returns:
        float32 `[sample]`.
    """
    import numpy as np

    random = np.random.default_rng(0)
    samples = 0.05 * random.standard_normal(round(seconds * rate), np.float32)
    swell = np.abs(np.sin(np.arange(samples.size) * (2 * np.pi / rate))) + 0.01
    return (samples * swell).astype(np.float32)


def peak_megabytes() -> int:
    """Returns the peak memory of this program, in MB of 1e6 bytes.

    `getrusage` would also count what the process was before it executed this program.
    """
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) * 1024 / 1e6)


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Returns the time of the fastest call among those that fit into `seconds`, at least five.

    The fastest rather than the median, because floors describe what the machine can do.
    """
    best, end = float("inf"), time.perf_counter() + seconds
    calls = 0
    while calls < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best
