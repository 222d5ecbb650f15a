"""Where the Beam job runs: Beam's flags, the default runner, and failures as one line."""

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
# Starting a worker process takes two seconds or more: below this many seconds of one core's work it
# is not worth it.
_WORTH_SECONDS = 8.0
# Beam's words for where it was when a function of ours raised something.
_IN_WORKER = "[while running"
# What no library raises on purpose where it is used well.
_OF_PROGRAMS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError,
)  # fmt: skip
_OF_JAVA = re.compile(r"$|at [\w.$/]+\(|\.\.\. \d+ more$")


class _Parser(pipeline_options._BeamArgumentParser):
    """Says what is wrong with a flag in one line."""

    def error(self, message: str) -> NoReturn:
        raise flags.Error(message)


def parse(beam_flags: Sequence[str]) -> pipeline_options.PipelineOptions:
    """Beam's options.

    Args:
        beam_flags: those that the command itself does not know.

    Raises:
        flags.Error: Beam does not know one of them either, or its value is wrong.
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
    """Whether the default runner is meant: none is named, or this one."""
    named = options.view_as(pipeline_options.StandardOptions).runner
    return named is None or named == LOCAL_RUNNER


def is_on_this_machine(options: pipeline_options.PipelineOptions) -> bool:
    """Whether the workers read this machine's files; false where that is not known."""
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
        beam_flags: that `parse` has accepted.
        name: of the step, for messages.
        build: adds the transforms to the pipeline.
        seconds_of_work: how long one core would take, about.
        verbose: let Beam say what it does.

    Raises:
        UserError: it failed for a reason that a person can mend; one line says which.
        ProgramFaultError: it failed for a fault of this program; the cause has the traceback.
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
    """The in-process runner, made so that worker processes get the options too."""
    _end_late_workers()
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(info))


@functools.cache
def _end_late_workers() -> None:
    """Has worker processes end that have not yet connected when a job fails.

    Beam tells only those that have to end, and then waits for all, for ever. Where another version
    of Beam does it otherwise, nothing is changed.
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
    """What a person can mend, a fault of the program, or one of the runner, each as one line."""
    found = transforms.message(error)
    if found:
        return errors.UserError(found)
    text = str(error)
    # What a person can mend is marked: whatever else a worker's code raises is ours.
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
    return errors.UserError(
        f"{name}: the Beam runner failed: {_last_line(error)} (--verbosity=1 shows more)"
    )


def _last_line(error: Exception) -> str:
    """The type and message of what was raised at first, as the last line of a traceback has it."""
    # What Java adds after what a worker has said: where it heard it.
    lines = [line for line in map(str.strip, str(error).splitlines()) if not _OF_JAVA.match(line)]
    last = lines[-1] if lines else ""
    # What is raised in a worker process, or in Java, is text of a RuntimeError here.
    if isinstance(error, RuntimeError):
        return last or type(error).__name__
    return f"{type(error).__name__}: {last}" if last else type(error).__name__


class _Quiet:
    """Keeps what Beam says to itself, unless it is wanted: a hundred lines about one failure.

    Worker processes write to the stderr that they inherit, so that is pointed away.
    """

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def __enter__(self) -> None:
        if self._verbose:
            return
        self._before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
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
