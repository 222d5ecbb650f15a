"""Programs that are measured side by side: each in a process of its own, asked one after the other.

The one that asks has a `Child` for each; a child calls `serve`. What passes between them is a line
of JSON each way, so that a child may run in another environment: this module needs nothing but the
standard library and NumPy. Who is not asked waits for a line, and takes nothing of the processor.
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
# The environment variable with the number of the pipe.
_ANSWERS = "BENCHMARK_ANSWERS"
_ROOT = pathlib.Path(__file__).resolve().parent.parent


class ChildError(errors.UserError):
    """A child has failed; the message is what it said last."""


class Child:
    """A running program that does jobs when asked.

    Args:
        module: what `python -m` runs.
        *arguments: of its command line.
        python: of which environment; by default this one's.
        threads: it is kept on so many cores and told to use as many threads; by default all.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        python: str | os.PathLike[str] = sys.executable,
        threads: int | None = None,
    ) -> None:
        self._said = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        # Not stdout, where libraries have a word to say.
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
        """What a job of the child gives.

        Raises:
            ChildError: it failed, or its process has ended.
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
    """This process's environment, without GPUs, for a program that uses so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    given = {} if threads is None else {name: str(threads) for name in names}
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", **given}


def keep_on_cores(count: int) -> None:
    """Keeps this process on the first `count` of the cores that it may use."""
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))


def serve(jobs: Mapping[str, Callable[..., Any]]) -> None:
    """Does what is asked on stdin until it ends; `jobs` by name, each gives what JSON can hold."""
    answers = os.fdopen(int(os.environ[_ANSWERS]), "w", encoding="utf-8")
    for line in _lines():
        name, *arguments = json.loads(line)
        print(json.dumps(jobs[name](*arguments)), file=answers, flush=True)


def alternatives() -> str:
    """The Python of the environment with the alternatives.

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
    """Noise whose level changes as syllables do: silence would be too easy on the processor.

    Returns:
        float32 `[sample]`.
    """
    import numpy as np

    random = np.random.default_rng(0)
    samples = 0.05 * random.standard_normal(round(seconds * rate), np.float32)
    swell = np.abs(np.sin(np.arange(samples.size) * (2 * np.pi / rate))) + 0.01
    return (samples * swell).astype(np.float32)


def peak_megabytes() -> int:
    """The most memory that this program has held, in MB of 1e6 bytes.

    Of it alone: `getrusage` counts what the process was before it became this program, too.
    """
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return round(int(line.split()[1]) * 1024 / 1e6)


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest call among as many as fit into `seconds`, five at least.

    The fastest, and not the median: it is for floors, which say what the machine can do.
    """
    best, end = float("inf"), time.perf_counter() + seconds
    calls = 0
    while calls < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
        calls += 1
    return best
