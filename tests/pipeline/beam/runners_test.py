"""Beam's flags as in the documentation on runners, and failures as one line."""

import pathlib
import re
import traceback

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from pipeline import errors
from pipeline.beam import runners, transforms

BUILD = pathlib.Path(__file__).resolve().parents[3] / "BUILD.md"


def test_the_flags_in_the_manual_are_beams():
    text = BUILD.read_text().replace("\\\n", " ")
    section = re.search(r"^## Runners\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)[1]
    lines = [line for line in section.splitlines() if "--runner=" in line]
    named = {re.search(r"--runner=(\w+)", line)[1] for line in lines}
    assert named >= {"FlinkRunner", "SparkRunner", "DataflowRunner"}
    ours = ("--input_dir=", "--output_dir=")
    for line in lines:
        given = [word for word in line.split() if word.startswith("--")]
        runners.parse([flag for flag in given if not flag.startswith(ours)])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runner=PortableRunner", "--job_endpoint=127.0.0.1:1", "--job_server_timeout=1"], ""),
        (["--runner=FlinkRunner", "--flink_master=127.0.0.1:1", "--flink_submit_uber_jar"], ""),
        (["--runner=NoSuchRunner"], "Unexpected pipeline runner: NoSuchRunner"),
    ],
)
def test_a_runner_that_is_not_there_is_one_line(tmp_path, flags, message):
    if "--flink_submit_uber_jar" in flags:
        jar = tmp_path / "job.jar"
        jar.write_bytes(b"PK\x05\x06" + bytes(18))
        flags = [*flags, f"--flink_job_server_jar={jar}"]
    with pytest.raises(errors.UserError) as caught:
        runners.run(flags, "write", lambda pipeline: pipeline | beam.Create([1]), 1.0)
    assert (message or "nothing answers") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spark_without_a_master_is_explained():
    def build(pipeline):
        # As the job server says it after two minutes.
        raise RuntimeError(
            "Pipeline x failed in state FAILED: java.lang.IllegalStateException: SparkContext has "
            "been shutdown\norg.apache.spark.SparkContext.runJob(SparkContext.scala:2390)\n"
        )

    with pytest.raises(errors.UserError, match="does a master run where --spark_master_url says"):
        runners.run([], "write", build, 1.0)


@pytest.mark.parametrize(
    "traces",
    [
        # As Flink writes them, and Spark's job server.
        "\tat java.base/java.util.concurrent.CompletableFuture.get(CompletableFuture.java:2022)\n"
        "\t... 1 more\n",
        "org.apache.spark.rdd.RDD.$anonfun$foreach$1(RDD.scala:1014)\n"
        "java.base/java.lang.Thread.run(Thread.java:840)\n         \n",
    ],
)
def test_what_a_worker_has_said_is_found_among_javas_lines(traces):
    text = """Pipeline x failed in state FAILED: org.apache.flink.runtime.JobException: gone
\tat org.apache.flink.runtime.Handler.handle(Handler.java:180)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 4: Traceback
  File "/opt/voices/transforms.py", line 114, in process
ZeroDivisionError: integer division or modulo by zero [while running 'Write/WriteOne']

"""

    def build(pipeline):
        raise RuntimeError(text + traces)

    with pytest.raises(
        errors.ProgramFaultError,
        match=r"^write: a fault of the program: ZeroDivisionError: .*WriteOne'\]; please report",
    ):
        runners.run([], "write", build, 1.0)


def raising(error):
    """Returns a step that raises, like one of ours."""

    # A nested function, so that it is pickled: worker processes cannot import this module.
    def fail(_):
        with transforms._one_line():
            raise error

    return lambda pipeline: pipeline | beam.Create([1]) | beam.Map(fail)


RUNNERS = (
    [],
    # After a failure, Beam waits 15 s for its worker processes to exit.
    pytest.param(
        ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
        marks=pytest.mark.slow,
    ),
    ["--runner=BundleBasedDirectRunner"],
)


@pytest.mark.parametrize("flags", RUNNERS)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.UserError("a.wav: is gone"), "a.wav: is gone"),
        (OSError(28, "No space left", "/data"), "/data: No space left; free some space"),
        (MemoryError(), "a worker lacks memory"),
    ],
)
def test_what_a_person_can_mend_is_their_error(flags, error, expected):
    with pytest.raises(errors.UserError) as caught:
        runners.run(flags, "write", raising(error), 1.0)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("flags", RUNNERS)
@pytest.mark.parametrize("error", [ZeroDivisionError("no"), ValueError("no"), RuntimeError("no")])
def test_anything_else_that_a_worker_raises_is_a_fault_of_the_program(flags, error):
    with pytest.raises(errors.ProgramFaultError) as caught:
        runners.run(flags, "write", raising(error), 1.0)
    text = str(caught.value)
    assert text.startswith("write: a fault of the program: ")
    assert "\n" not in text
    if not isinstance(error, RuntimeError):
        assert type(error).__name__ in text
    # --verbosity=1 shows the line in our code.
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise error" in shown


def test_a_worker_that_connects_after_a_failure_is_told_to_end():
    runners._end_late_workers()
    connection = worker_handlers.ControlConnection()
    connection.close()
    connection.set_input(iter([]))
    # `get_req` would wait for ever.
    told = connection._push_queue.get(timeout=5)
    assert told is worker_handlers.BeamFnControlServicer._DONE_MARKER


def test_a_fault_while_a_pipeline_is_built_is_one_of_the_program():
    def build(pipeline):
        return None + pipeline

    with pytest.raises(errors.ProgramFaultError, match="write: a fault of the program: TypeError"):
        runners.run([], "write", build, 1.0)


@pytest.mark.parametrize(
    ("flags", "here"),
    [
        ([], True),
        (["--runner=DirectRunner"], True),
        (["--runner=apache_beam.runners.direct.DirectRunner"], True),
        (["--runner=FlinkRunner"], False),
        (["--runner=PortableRunner", "--job_endpoint=embed"], False),
    ],
)
def test_which_runners_workers_read_this_machines_files(flags, here):
    assert runners.is_on_this_machine(runners.parse(flags)) == here
