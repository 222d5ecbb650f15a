"""Runs a local Flink cluster, and jobs on it.

  python -m tools.flink --input_dir=/data/TIMIT --output_dir=/data/timit-2mix

starts a job manager and task managers as separate processes, runs pipeline.preprocess on them with
the given flags (all but the four below belong to it), and stops them. Without flags the cluster
runs until Ctrl-C, and the flags for sending other jobs to it are printed.

It needs Java 11 or 17, and Maven once to fetch Flink into ~/.cache/voices-apart. Task managers
start the workers of the Beam job as child processes, in the environment of this command. A task
manager that dies may be replaced: the job resumes.
"""

import contextlib
import http.client
import json
import os
import pathlib
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
from collections.abc import Callable, Sequence

from absl import flags

from pipeline import cli, errors

_TASK_MANAGERS = flags.DEFINE_integer(
    "task_managers", 2, "Number of task managers.", lower_bound=1, upper_bound=64
)
_SLOTS = flags.DEFINE_integer(
    "slots", 1, "Task slots, and worker processes, of each task manager.",
    lower_bound=1, upper_bound=64,
)  # fmt: skip
_LOGS = flags.DEFINE_string("logs", None, "Keep the logs of the processes in this folder.")
_FETCH_ONLY = flags.DEFINE_bool("fetch_only", False, "Only fetch Flink.")

_POM = pathlib.Path(__file__).with_name("flink-pom.xml")
_START_SECONDS = 300.0
_HOST = "127.0.0.1"
_MASTER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
# These classes look for the job in the jar that they were loaded from, so they are loaded from the
# job's jar. The other jars are on the class path of all processes.
_OF_THE_JOB = ("beam-runners-*.jar", "beam-sdks-*.jar")

# Options of Flink's own scripts for Java 17, and options for a fast start on few cores.
_JAVA = (
    "java", "-Xmx320m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
    "-XX:+IgnoreUnrecognizedVMOptions", "-Dpekko.remote.classic.startup-timeout=100s",
    "--add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in (
            "java.lang", "java.lang.reflect", "java.net", "java.io", "java.nio", "sun.nio.ch",
            "java.text", "java.time", "java.util", "java.util.concurrent",
            "java.util.concurrent.atomic", "java.util.concurrent.locks",
        )
    ),
)  # fmt: skip

# Without its scripts Flink has few defaults, so all memory sizes are given. Dead processes are
# detected, and their tasks restarted, within seconds.
_SETTINGS = """\
jobmanager.rpc.address: {host}
jobmanager.bind-host: {host}
jobmanager.rpc.port: {rpc_port}
rest.address: {host}
rest.bind-address: {host}
rest.port: {rest_port}
taskmanager.host: {host}
taskmanager.bind-host: {host}
taskmanager.numberOfTaskSlots: {slots}
taskmanager.cpu.cores: {slots}
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.task.heap.size: 192m
taskmanager.memory.task.off-heap.size: 32m
taskmanager.memory.network.min: 64m
taskmanager.memory.network.max: 64m
taskmanager.memory.managed.size: {managed}m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 128m
taskmanager.memory.jvm-overhead.max: 128m
cluster.evenly-spread-out-slots: true
web.tmpdir: {folder}
restart-strategy.type: fixed-delay
restart-strategy.fixed-delay.attempts: 6
restart-strategy.fixed-delay.delay: 3 s
pekko.ask.timeout: 60 s
heartbeat.interval: 2000
heartbeat.timeout: 20000
io.tmp.dirs: {folder}
"""


def jar_folder() -> pathlib.Path:
    """Returns the folder of the Flink jars, which may not exist."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(cache, "voices-apart", "flink-1.19-beam-2.62.0")


def missing() -> str | None:
    """Returns what prevents a cluster from starting here and the remedy, or None."""
    if not shutil.which("java"):
        return "there is no java; install a Java runtime (Debian: default-jre-headless)"
    if not jar_folder().is_dir():
        return "Flink has not been fetched; `make flink` does it (once; by Maven)"
    return None


def fetch() -> pathlib.Path:
    """Fetches Flink and Beam's Flink runner if they are missing.

    Returns:
        The folder of the jars.

    Raises:
        UserError: Maven is missing or cannot fetch them.
    """
    folder = jar_folder()
    if folder.is_dir():
        return folder
    if not shutil.which("mvn"):
        raise errors.UserError("there is no mvn; install Maven (Debian: maven)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        jars = pathlib.Path(temporary, "flink")
        done = subprocess.run(
            ["mvn", "--batch-mode", "--quiet", f"--file={_POM}", "dependency:copy-dependencies",
             "-DincludeScope=runtime", f"-DoutputDirectory={jars}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            said = next((s for s in done.stdout.splitlines() if "ERROR" in s), "it says nothing")
            raise errors.UserError(f"Maven cannot fetch Flink: {said}")
        (jars / "job").mkdir()
        for path in [path for pattern in _OF_THE_JOB for path in jars.glob(pattern)]:
            path.rename(jars / "job" / path.name)
        with contextlib.suppress(OSError):
            # Another process may have been faster.
            os.rename(jars, folder)
    return folder


class Cluster:
    """A job manager and task managers that run during the `with` block.

    All listen only on the loopback interface and die with the process that started them.

    Attributes:
        folder: folder of the logs, one per process.
        processes: processes by name: `job-manager`, `task-manager-1`, …
        url: URL of Flink's web page and REST interface.
    """

    def __init__(self, folder: str | os.PathLike[str], task_managers: int, slots: int) -> None:
        """Takes an empty folder for settings and logs, and the cluster size."""
        self.folder = pathlib.Path(folder).absolute()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._size, self._slots = task_managers, slots
        self._started = 0
        self._ports = _free_ports(2)
        self.url = f"http://{_HOST}:{self._ports[1]}"

    def __enter__(self) -> "Cluster":
        self._jars = fetch()
        self.folder.mkdir(parents=True, exist_ok=True)
        rpc_port, rest_port = self._ports
        settings = _SETTINGS.format(
            host=_HOST, rpc_port=rpc_port, rest_port=rest_port, slots=self._slots,
            managed=64 * self._slots, folder=self.folder,
        )  # fmt: skip
        (self.folder / "config.yaml").write_text(settings, encoding="utf-8")
        _write_job_jar(self.folder / "job.jar", self._jars / "job")
        try:
            self._start("job-manager", _MASTER)
            for _ in range(self._size):
                self.start_task_manager()
            self._wait(lambda: self.count() == self._size)
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
            # On SIGTERM, the JVM also stops the workers that a task manager has started.
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start_task_manager(self) -> str:
        """Starts another task manager and returns its name."""
        self._started += 1
        name = f"task-manager-{self._started}"
        self._start(name, _TASK_MANAGER)
        return name

    def count(self) -> int:
        """Returns the number of registered task managers."""
        return int(self.ask("overview").get("taskmanagers", 0))

    def ask(self, path: str) -> dict:
        """Returns the answer of Flink's REST interface, empty if there is none."""
        try:
            with urllib.request.urlopen(f"{self.url}/{path}", timeout=5) as answer:
                return json.load(answer)
        except (OSError, ValueError, http.client.HTTPException):
            return {}

    def beam_flags(self, parallelism: int | None = None) -> list[str]:
        """Returns the flags of a Beam job; `parallelism` defaults to the number of slots."""
        worker = os.path.join(os.path.dirname(sys.executable), "voices-apart-worker")
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.url}",
            "--flink_submit_uber_jar",
            f"--flink_job_server_jar={self.folder / 'job.jar'}",
            f"--parallelism={parallelism or self._size * self._slots}",
            f"--sdk_worker_parallelism={self._slots}",
            "--environment_type=PROCESS",
            f"--environment_options=process_command={worker}",
        ]

    def _start(self, name: str, program: str) -> None:
        java = [*_JAVA, "-cp", f"{self._jars}/*", program, "-c", str(self.folder)]
        if shutil.which("setpriv"):
            # The kernel then kills it when its parent dies for any reason.
            java = ["setpriv", "--pdeathsig=KILL", *java]
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                java, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "FLINK_CONF_DIR": str(self.folder)}, cwd=self.folder,
            )  # fmt: skip

    def _wait(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not ready():
            for name, process in self.processes.items():
                if process.poll() is not None or time.monotonic() > end:
                    text = (self.folder / f"{name}.log").read_text(errors="replace").strip()
                    last = text.splitlines()[-1] if text else "it says nothing"
                    what = "has died" if process.poll() is not None else "is not ready in time"
                    raise errors.UserError(f"Flink's {name} {what}: {last}")
            time.sleep(0.1)


def _write_job_jar(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Writes the jar that Beam completes for each job; it only points to the jars in a folder."""
    line = "Class-Path: " + " ".join(jar.as_uri() for jar in sorted(folder.glob("*.jar")))
    # Manifest lines have at most 72 bytes; a line that begins with a space continues the last.
    rest = [line[start : start + 70] for start in range(70, len(line), 70)]
    with zipfile.ZipFile(path, "w") as jar:
        lines = ["Manifest-Version: 1.0", line[:70], *(f" {part}" for part in rest), ""]
        jar.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines))


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def main(given: Sequence[str]) -> int:
    """Runs the command; `given` are the flags for `pipeline.preprocess`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    fetch()
    if _FETCH_ONLY.value:
        return 0
    with contextlib.ExitStack() as stack:
        folder = _LOGS.value or stack.enter_context(tempfile.TemporaryDirectory())
        cluster = stack.enter_context(Cluster(folder, _TASK_MANAGERS.value, _SLOTS.value))
        print(f"Flink: {_TASK_MANAGERS.value} task managers, {cluster.url}", flush=True)
        if given:
            job = [sys.executable, "-m", "pipeline.preprocess", *cluster.beam_flags(), *given]
            verbosity = flags.FLAGS["verbosity"]
            if not verbosity.using_default_value:
                # absl assigns it to this command only.
                job.append(f"--verbosity={verbosity.value}")
            return subprocess.run(job).returncode
        print("To run a job there:\n  " + " ".join(cluster.beam_flags()), flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    cli.run(main, __doc__, pass_unknown=True)
