"""What local clusters have in common: jars fetched by Maven, and Java processes on the loopback."""

import abc
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from absl import flags

from pipeline import errors

_LOGS = flags.DEFINE_string("logs", None, "Keep the logs of the processes in this folder.")
_FETCH_ONLY = flags.DEFINE_bool("fetch_only", False, "Only fetch the jars.")

HOST = "127.0.0.1"
_START_SECONDS = 300.0


@dataclasses.dataclass(frozen=True)
class Jars:
    """Jars that Maven fetches once into `~/.cache/voices-apart`.

    Attributes:
        name: name of the software, for messages.
        version: name of the folder.
        pom: the Maven project that depends on them.
        target: the target of the Makefile that fetches them.
        apart: patterns of the jars that are kept apart, in the folder `job`.
    """

    name: str
    version: str
    pom: pathlib.Path
    target: str
    apart: tuple[str, ...]

    @property
    def folder(self) -> pathlib.Path:
        """Returns the folder of the jars, which may not exist."""
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return pathlib.Path(cache, "voices-apart", self.version)

    def missing(self) -> str | None:
        """Returns what prevents a cluster from starting here and the remedy, or None."""
        if not shutil.which("java"):
            return "there is no java; install a Java runtime (Debian: default-jre-headless)"
        if not self.folder.is_dir():
            how = f"`make {self.target}` does it (once; by Maven)"
            return f"{self.name} has not been fetched; {how}"
        return None

    def fetch(self) -> pathlib.Path:
        """Fetches the jars if they are missing.

        Returns:
            Their folder.

        Raises:
            UserError: Maven is missing or cannot fetch them.
        """
        folder = self.folder
        if folder.is_dir():
            return folder
        if not shutil.which("mvn"):
            raise errors.UserError("there is no mvn; install Maven (Debian: maven)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            jars = pathlib.Path(temporary, "jars")
            done = subprocess.run(
                ["mvn", "--batch-mode", "--quiet", f"--file={self.pom}",
                 "dependency:copy-dependencies", "-DincludeScope=runtime",
                 f"-DoutputDirectory={jars}"],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            if done.returncode:
                said = next((s for s in done.stdout.splitlines() if "ERROR" in s), "it is silent")
                raise errors.UserError(f"Maven cannot fetch {self.name}: {said}")
            (jars / "job").mkdir()
            for path in [path for pattern in self.apart for path in jars.glob(pattern)]:
                path.rename(jars / "job" / path.name)
            with contextlib.suppress(OSError):
                # Another process may have been faster.
                os.rename(jars, folder)
        return folder


class Cluster(abc.ABC):
    """Java processes that run during the `with` block.

    All listen only on the loopback interface and die with the process that started them.

    Attributes:
        jars: the jars of the software.
        folder: folder of the logs, one per process.
        processes: processes by name.
        url: URL of the master's web page and REST interface.
    """

    jars: Jars
    url: str

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Takes an empty folder for settings and logs."""
        self.folder = pathlib.Path(folder).absolute()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @abc.abstractmethod
    def start(self) -> None:
        """Starts all processes and waits until they are ready."""

    @abc.abstractmethod
    def beam_flags(self, parallelism: int | None = None) -> list[str]:
        """Returns the flags of a Beam job; `parallelism` defaults to all of the cluster."""

    def __enter__(self: "_ClusterType") -> "_ClusterType":
        self.jars.fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            # On SIGTERM, the JVM also stops the processes that it has started.
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ask(self, path: str) -> dict:
        """Returns the answer of the master's REST interface, empty if there is none."""
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError, http.client.HTTPException):
            return {}

    def run(self, name: str, java: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts a process with a log of its own."""
        command = list(java)
        if shutil.which("setpriv"):
            # The kernel then kills it when its parent dies for any reason.
            command = ["setpriv", "--pdeathsig=KILL", *java]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, cwd=self.folder,
            )  # fmt: skip

    def wait(self, ready: Callable[[], bool]) -> None:
        """Waits until the cluster is ready; raises UserError if a process dies before."""
        end = time.monotonic() + _START_SECONDS
        while not ready():
            for name, process in self.processes.items():
                if process.poll() is not None or time.monotonic() > end:
                    text = (self.folder / f"{name}.log").read_text(errors="replace").strip()
                    last = text.splitlines()[-1] if text else "it says nothing"
                    what = "has died" if process.poll() is not None else "is not ready in time"
                    raise errors.UserError(f"{self.jars.name}'s {name} {what}: {last}")
            time.sleep(0.1)


_ClusterType = TypeVar("_ClusterType", bound=Cluster)


def worker_flags() -> list[str]:
    """Returns Beam's flags that start workers in the environment of this command."""
    worker = os.path.join(os.path.dirname(sys.executable), "voices-apart-worker")
    return [
        "--environment_type=PROCESS",
        f"--environment_options=process_command={worker}",
    ]


def write_pointer(path: pathlib.Path, jars: Iterable[pathlib.Path], main: str = "") -> None:
    """Writes a small jar that only points to others, with a main class if there is one."""
    line = "Class-Path: " + " ".join(jar.as_uri() for jar in sorted(jars))
    # Manifest lines have at most 72 bytes; a line that begins with a space continues the last.
    rest = [line[start : start + 70] for start in range(70, len(line), 70)]
    lines = ["Manifest-Version: 1.0", *([f"Main-Class: {main}"] if main else [])]
    with zipfile.ZipFile(path, "w") as jar:
        lines += [line[:70], *(f" {part}" for part in rest), ""]
        jar.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines))


def free_ports(count: int) -> list[int]:
    """Returns ports on which nothing listens at present."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def main(jars: Jars, make: Callable[[str], Cluster], what: str, given: Sequence[str]) -> int:
    """Fetches the jars, starts a cluster, and runs a job on it or waits until it is stopped.

    Args:
        jars: what is fetched.
        make: returns the cluster; takes the folder of its logs.
        what: what runs, in a few words.
        given: flags for `pipeline.preprocess`; without any, the cluster waits for jobs.
    """
    jars.fetch()
    if _FETCH_ONLY.value:
        return 0
    with contextlib.ExitStack() as stack:
        folder = _LOGS.value or stack.enter_context(tempfile.TemporaryDirectory())
        cluster = stack.enter_context(make(folder))
        print(f"{jars.name}: {what}, {cluster.url}", flush=True)
        if given:
            job = [sys.executable, "-m", "pipeline.preprocess", *cluster.beam_flags(), *given]
            verbosity = flags.FLAGS["verbosity"]
            if not verbosity.using_default_value:
                # absl assigns it to this command only.
                job.append(f"--verbosity={verbosity.value}")
            return subprocess.run(job).returncode
        print("To run a job there:\n  " + shlex.join(cluster.beam_flags()), flush=True)
        signal.pause()
    return 0
