"""Runs the Beam job: Beam's flags, the default runner, and errors as one line."""

import argparse
import contextlib
import functools
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import apache_beam as beam
import grpc
import requests
from absl import flags
from apache_beam.options import pipeline_options
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from pipeline import errors
from pipeline.beam import transforms
from pipeline.io import cores

LOCAL_RUNNER = "FnApiRunner"
_ON_THIS_MACHINE = (LOCAL_RUNNER, "DirectRunner", "BundleBasedDirectRunner", "PrismRunner")
# Starting a worker process takes two seconds or more, which is not worth it for less than this
# many seconds of work on one core.
_WORTH_SECONDS = 8.0
# Beam adds this to the message of an exception in one of our functions.
_IN_WORKER = "[while running"
# Exceptions that no library raises on purpose when it is used correctly.
_OF_PROGRAMS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError,
)  # fmt: skip
# A line of a stack trace of Java or Scala; Spark's have no `at`.
_OF_JAVA = re.compile(r"$|at [\w.$/]+\(|[\w.$/<>]+\([\w$]+\.(java|scala):\d+\)$|\.\.\. \d+ more$")


class _Parser(pipeline_options._BeamArgumentParser):
    """Reports a wrong flag in one line."""

    def error(self, message: str) -> NoReturn:
        raise flags.Error(message)


def parse(beam_flags: Sequence[str]) -> pipeline_options.PipelineOptions:
    """Parses Beam's options.

    Args:
        beam_flags: flags that the command itself does not know.

    Raises:
        flags.Error: Beam does not know one of them, either, or its value is wrong.
    """
    parser = _Parser(allow_abbrev=False, add_help=False, usage=argparse.SUPPRESS)
    classes = {str(c): c for c in pipeline_options.PipelineOptions.__subclasses__()}
    for options in classes.values():
        options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(beam_flags))
    if unknown:
        raise flags.Error(f"Unknown command line flag or argument {unknown[0]!r}")
    return pipeline_options.PipelineOptions(list(beam_flags))


def is_local(options: pipeline_options.PipelineOptions) -> bool:
    """Returns whether the default runner is used: none is named, or this one."""
    named = options.view_as(pipeline_options.StandardOptions).runner
    return named is None or named == LOCAL_RUNNER


def is_on_this_machine(options: pipeline_options.PipelineOptions) -> bool:
    """Returns whether the workers read this machine's files; False if unknown."""
    named = options.view_as(pipeline_options.StandardOptions).runner
    return named is None or named.rpartition(".")[2] in _ON_THIS_MACHINE


def run(
    beam_flags: Sequence[str],
    name: str,
    build: Callable[[beam.Pipeline], object],
    seconds_of_work: float,
    verbose: bool = False,
) -> None:
    """Builds a pipeline, runs it, and waits for its end.

    Args:
        beam_flags: accepted by `parse`.
        name: name of the step, for messages.
        build: adds the transforms to the pipeline.
        seconds_of_work: approximate time that one core would take.
        verbose: show Beam's messages.

    Raises:
        UserError: it failed for a reason that the user can fix; one line says which.
        ProgramFaultError: it failed because of a bug in this program; the cause has the traceback.
    """
    options = parse(beam_flags)
    runner: Any = None
    if is_local(options):
        _choose_workers(options, seconds_of_work)
        runner = _local_runner(options)
    with _Quiet(verbose):
        try:
            pipeline = beam.Pipeline(runner=runner, options=options)
            build(pipeline)
            state = pipeline.run().wait_until_finish()
        except (KeyboardInterrupt, flags.Error, errors.UserError) as error:
            found = transforms.message(error)
            if found:
                raise errors.UserError(found) from error
            raise
        except Exception as error:
            raise _explain(name, error) from error
    if state not in (beam.runners.runner.PipelineState.DONE, None):
        raise errors.UserError(f"{name}: the runner says {state}; its log has more")


def _choose_workers(options: pipeline_options.PipelineOptions, seconds_of_work: float) -> None:
    direct = options.view_as(pipeline_options.DirectOptions)
    given = {flag.lstrip("-").split("=")[0] for flag in options._flags}
    count = cores.available_cores()
    if "direct_num_workers" not in given:
        worth = "direct_running_mode" in given or seconds_of_work > _WORTH_SECONDS
        direct.direct_num_workers = count if worth else 1
    elif direct.direct_num_workers == 0:
        direct.direct_num_workers = count
    if "direct_running_mode" not in given:
        many = direct.direct_num_workers > 1
        direct.direct_running_mode = "multi_processing" if many else "in_memory"


def _local_runner(options: pipeline_options.PipelineOptions) -> fn_runner.FnApiRunner:
    """Returns the in-process runner, adapted so that worker processes get the options, too."""
    _end_late_workers()
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


@functools.cache
def _end_late_workers() -> None:
    """Ends worker processes that have not yet connected when a job fails.

    Beam ends only those that have connected, and then waits for all of them for ever. In versions
    of Beam where the code is different, nothing is changed.
    """
    with contextlib.suppress(AttributeError):
        servicer = worker_handlers.BeamFnControlServicer
        unstarted, done = servicer.UNSTARTED_STATE, servicer._DONE_MARKER
        close = worker_handlers.ControlConnection.close

        def close_all(connection: Any) -> None:
            if connection._state == unstarted:
                connection.push(done)
            close(connection)

        worker_handlers.ControlConnection.close = close_all


def _explain(name: str, error: Exception) -> errors.UserError | errors.ProgramFaultError:
    """Returns a one-line error: one the user can fix, a bug in the program, or a runner failure."""
    found = transforms.message(error)
    if found:
        return errors.UserError(found)
    text = str(error)
    # Errors that the user can fix are marked; all others from our code in a worker are bugs.
    if _IN_WORKER in text or isinstance(error, _OF_PROGRAMS):
        return errors.ProgramFaultError(
            f"{name}: a fault of the program: {_last_line(error)}; please report it with what "
            "--verbosity=1 shows"
        )
    if "Channel closed" in text:
        return errors.WorkerLostError(
            f"{name}: a worker process has died (killed, or out of memory?); the same command "
            "goes on where it was"
        )
    if isinstance(error, (grpc.FutureTimeoutError, requests.ConnectionError)):
        return errors.UserError(
            f"{name}: nothing answers where --job_endpoint or --flink_master says; is it running?"
        )
    if "SparkContext has been shutdown" in text:
        return errors.UserError(
            f"{name}: Spark has given up; does a master run where --spark_master_url says, with "
            "enough free memory for an executor? (--verbosity=1 shows more)"
        )
    return errors.UserError(
        f"{name}: the Beam runner failed: {_last_line(error)} (--verbosity=1 shows more)"
    )


def _last_line(error: Exception) -> str:
    """Returns type and message of the original exception, like the last line of a traceback."""
    # Java adds lines to a worker's message that say where it was received.
    lines = [line for line in map(str.strip, str(error).splitlines()) if not _OF_JAVA.match(line)]
    last = lines[-1] if lines else ""
    # An exception in a worker process or in Java arrives as the text of a RuntimeError.
    if isinstance(error, RuntimeError):
        return last or type(error).__name__
    return f"{type(error).__name__}: {last}" if last else type(error).__name__


class _Quiet:
    """Hides Beam's messages, a hundred lines for one failure, unless they are wanted.

    Worker processes write to the stderr that they inherit, so stderr itself is redirected.
    """

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def __enter__(self) -> None:
        if self._verbose:
            return
        self._before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        # It also speaks when the program exits.
        logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
        sys.stderr.flush()
        self._stderr = os.dup(2)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        if self._verbose:
            return
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        logging.disable(self._before)
