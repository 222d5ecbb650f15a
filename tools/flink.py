"""Runs a local Flink cluster, and jobs on it.

  python -m tools.flink --input_dir=/data/TIMIT --output_dir=/data/timit-2mix

starts a job manager and task managers as separate processes, runs pipeline.preprocess on them with
the given flags (all but those below belong to it), and stops them. Without flags the cluster
runs until Ctrl-C, and the flags for sending other jobs to it are printed.

It needs Java 11 or 17, and Maven once to fetch Flink into ~/.cache/voices-apart. Task managers
start the workers of the Beam job as child processes, in the environment of this command. A task
manager that dies may be replaced: the job resumes.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from pipeline import cli
from tools import local_cluster

_TASK_MANAGERS = flags.DEFINE_integer(
    "task_managers", 2, "Number of task managers.", lower_bound=1, upper_bound=64
)
_SLOTS = flags.DEFINE_integer(
    "slots", 1, "Task slots, and worker processes, of each task manager.",
    lower_bound=1, upper_bound=64,
)  # fmt: skip

_MASTER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
_TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
JARS = local_cluster.Jars(
    name="Flink",
    version="flink-1.19-beam-2.62.0",
    pom=pathlib.Path(__file__).with_name("flink-pom.xml"),
    target="flink",
    # These classes look for the job in the jar that they were loaded from, so they are loaded from
    # the job's jar. The other jars are on the class path of all processes.
    apart=("beam-runners-*.jar", "beam-sdks-*.jar"),
)

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


class Cluster(local_cluster.Cluster):
    """A job manager and task managers, called `job-manager`, `task-manager-1` and so on."""

    jars = JARS

    def __init__(self, folder: str | os.PathLike[str], task_managers: int, slots: int) -> None:
        """Takes an empty folder for settings and logs, and the cluster size."""
        super().__init__(folder)
        self._size, self._slots = task_managers, slots
        self._started = 0
        self._ports = local_cluster.free_ports(2)
        self.url = f"http://{local_cluster.HOST}:{self._ports[1]}"

    def start(self) -> None:
        """Starts all processes and waits until they are ready."""
        rpc_port, rest_port = self._ports
        settings = _SETTINGS.format(
            host=local_cluster.HOST, rpc_port=rpc_port, rest_port=rest_port, slots=self._slots,
            managed=64 * self._slots, folder=self.folder,
        )  # fmt: skip
        (self.folder / "config.yaml").write_text(settings, encoding="utf-8")
        jars = (JARS.folder / "job").glob("*.jar")
        local_cluster.write_pointer(self.folder / "job.jar", jars)
        self._start("job-manager", _MASTER)
        for _ in range(self._size):
            self.start_task_manager()
        self.wait(lambda: self.count() == self._size)

    def start_task_manager(self) -> str:
        """Starts another task manager and returns its name."""
        self._started += 1
        name = f"task-manager-{self._started}"
        self._start(name, _TASK_MANAGER)
        return name

    def count(self) -> int:
        """Returns the number of registered task managers."""
        return int(self.ask("overview").get("taskmanagers", 0))

    def beam_flags(self, parallelism: int | None = None) -> list[str]:
        """Returns the flags of a Beam job; `parallelism` defaults to the number of slots."""
        return [
            "--runner=FlinkRunner",
            f"--flink_master={self.url}",
            "--flink_submit_uber_jar",
            f"--flink_job_server_jar={self.folder / 'job.jar'}",
            f"--parallelism={parallelism or self._size * self._slots}",
            f"--sdk_worker_parallelism={self._slots}",
            *local_cluster.worker_flags(),
        ]

    def _start(self, name: str, program: str) -> None:
        java = [*_JAVA, "-cp", f"{JARS.folder}/*", program, "-c", str(self.folder)]
        self.run(name, java, {"FLINK_CONF_DIR": str(self.folder)})


def main(given: Sequence[str]) -> int:
    """Runs the command; `given` are the flags for `pipeline.preprocess`."""
    size, slots = _TASK_MANAGERS.value, _SLOTS.value
    what = f"{size} task managers"
    return local_cluster.main(JARS, lambda folder: Cluster(folder, size, slots), what, given)


if __name__ == "__main__":
    cli.run(main, __doc__, pass_unknown=True)
