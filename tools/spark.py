"""Runs a local Spark cluster, and jobs on it.

  python -m tools.spark --input_dir=/data/TIMIT --output_dir=/data/timit-2mix

starts a master and executors' workers as separate processes, runs pipeline.preprocess on them with
the given flags (all but those below belong to it), and stops them. Without flags the cluster runs
until Ctrl-C, and the flags for sending other jobs to it are printed.

It needs Java 11 or 17, and Maven once to fetch Spark into ~/.cache/voices-apart. Each worker has
one executor, which starts the workers of the Beam job as child processes, in the environment of
this command.
"""

import os
import pathlib
from collections.abc import Sequence

from absl import flags

from pipeline import cli
from tools import local_cluster

_EXECUTORS = flags.DEFINE_integer(
    "executors", 2, "Number of executors, with one core each.", lower_bound=1, upper_bound=64
)

_MASTER = "org.apache.spark.deploy.master.Master"
_WORKER = "org.apache.spark.deploy.worker.Worker"
_JOB_SERVER = "org.apache.beam.runners.spark.SparkJobServerDriver"
JARS = local_cluster.Jars(
    name="Spark",
    version="spark-3.5-beam-2.62.0",
    pom=pathlib.Path(__file__).with_name("spark-pom.xml"),
    target="spark",
    apart=(),
)

_JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # A fast start on few cores.
_DRIVER_MEMORY = "640m"  # Spark refuses less than 450 MB.
_EXECUTOR_MEMORY = "512m"
# Otherwise Beam starts new worker processes for each stage.
_KEEP_WORKERS_MS = 60_000


class Cluster(local_cluster.Cluster):
    """A standalone master and its workers, called `master`, `worker-1` and so on."""

    jars = JARS

    def __init__(self, folder: str | os.PathLike[str], executors: int) -> None:
        """Takes a folder for settings and logs, and the number of executors."""
        super().__init__(folder)
        self._size = executors
        self._port, web_port = local_cluster.free_ports(2)
        self.url = f"http://{local_cluster.HOST}:{web_port}"
        self.master = f"spark://{local_cluster.HOST}:{self._port}"
        self._web_port = web_port

    def start(self) -> None:
        """Starts all processes and waits until they are ready."""
        # Spark looks for its jars below its home, and guesses the version of Scala otherwise.
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        jars = home / "jars"
        # With --logs, the link may be there from an earlier start.
        jars.unlink(missing_ok=True)
        jars.symlink_to(JARS.folder)
        self._environment = {
            "SPARK_HOME": str(home),
            "SPARK_SCALA_VERSION": "2.12",
            "SPARK_LOCAL_IP": local_cluster.HOST,
        }
        local_cluster.write_pointer(
            self.folder / "job-server.jar", JARS.folder.glob("*.jar"), _JOB_SERVER
        )
        place = ["--host", local_cluster.HOST]
        ports = ["--port", str(self._port), "--webui-port", str(self._web_port)]
        self._start("master", _MASTER, *place, *ports)
        for number in range(1, self._size + 1):
            size = ["--cores", "1", "--memory", _EXECUTOR_MEMORY]
            work = ["--work-dir", str(self.folder / f"executor-{number}"), "--webui-port", "0"]
            self._start(f"worker-{number}", _WORKER, *place, *size, *work, self.master)
        self.wait(lambda: int(self.ask("json/").get("aliveworkers", 0)) == self._size)

    def beam_flags(self, parallelism: int | None = None) -> list[str]:
        """Returns the flags of a Beam job; `parallelism` defaults to the number of executors."""
        jar = self.folder / "job-server.jar"
        java = [
            f"-Xmx{_DRIVER_MEMORY}",
            *_JAVA_OPTIONS,
            f"-Dspark.driver.host={local_cluster.HOST}",
            f"-Dspark.driver.bindAddress={local_cluster.HOST}",
            "-Dspark.ui.enabled=false",
            f"-Dspark.executor.memory={_EXECUTOR_MEMORY}",
            f"-Dspark.executor.extraJavaOptions={' '.join(_JAVA_OPTIONS)}",
            f"-Dspark.cores.max={parallelism or self._size}",
        ]
        return [
            "--runner=SparkRunner",
            f"--spark_master_url={self.master}",
            f"--spark_job_server_jar={jar}",
            # Otherwise Spark copies all jars to each executor, which has them.
            f"--files_to_stage={jar}",
            *(f"--job_server_jvm_properties={option}" for option in java),
            f"--environment_cache_millis={_KEEP_WORKERS_MS}",
            *local_cluster.worker_flags(),
        ]

    def _start(self, name: str, program: str, *arguments: str) -> None:
        java = ["java", "-Xmx192m", *_JAVA_OPTIONS, "-cp", f"{JARS.folder}/*"]
        self.run(name, [*java, program, *arguments], self._environment)


def main(given: Sequence[str]) -> int:
    """Runs the command; `given` are the flags for `pipeline.preprocess`."""
    size = _EXECUTORS.value
    what = f"{size} executor{'s' * (size > 1)}"
    return local_cluster.main(JARS, lambda folder: Cluster(folder, size), what, given)


if __name__ == "__main__":
    cli.run(main, __doc__, pass_unknown=True)
