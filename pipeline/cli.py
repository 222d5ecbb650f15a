"""Shared behaviour of all commands: flags, `--help`, messages and exit codes.

    0    done
    1    an error that the user can fix, or a bug in a worker of a job: one line on stderr
    2    wrong flags: one line on stderr
    130  interrupted (Ctrl-C)
    143  terminated (SIGTERM)

Any other exception is a bug in the program and keeps its traceback.
"""

import functools
import logging as stdlib_logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags, logging

from pipeline import errors, version

# Replaces `python -m MODULE` in messages if a command was called by another name.
typed_as: str | None = None

_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")
# Flags that every command reads through `pipeline.io`, including from stores.
_READ_ANYWHERE = frozenset(
    ("data_dir", "input_dir", "manifest", "mixture_list", "noise_dir", "room_dir",
     "utterances_manifest")
)  # fmt: skip
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOME_IN_UNKNOWN = re.compile(r"(--?\w+=)(~.*)", re.DOTALL)


def run(
    main: Callable[[list[str]], int | None],
    description: str,
    *,
    pass_unknown: bool = False,
    remote: Collection[str] = (),
    argv: Sequence[str] | None = None,
) -> None:
    """Parses the flags, runs `main`, and ends the process.

    `~` and `~user` at the start of a flag's value are expanded, which the shell does not do after
    `--output_dir=`. A value with `://` is refused if the command only supports local files: it
    would create a folder called `s3:`.

    Args:
        main: gets the rest of the command line (positional arguments and, with `pass_unknown`,
            the flags that absl does not know); returns the exit code or None.
        description: what `--help` prints first, usually the command's `__doc__`.
        pass_unknown: pass unknown flags to `main`, which must then reject those that nothing
            else knows with `flags.Error`. Otherwise, unknown flags are errors here.
        remote: flags that may name a place in a store, in addition to those that may do so in
            every command (`--data_dir`, `--input_dir`, …).
        argv: the command line, by default that of the process.
    """
    # TensorFlow's native part prints ten lines on stderr when it loads, unless this is set.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = list(sys.argv if argv is None else argv)
    signal.signal(signal.SIGTERM, _terminate)
    _mend_streams()
    sys.exit(_run(main, description, pass_unknown, remote, arguments))


def _run(
    main: Callable[[list[str]], int | None],
    description: str,
    pass_unknown: bool,
    remote: Collection[str],
    argv: list[str],
) -> int:
    own = argv[: argv.index("--")] if "--" in argv else argv
    logging.use_absl_handler()
    logging.get_absl_handler().setFormatter(_PlainFormatter())
    try:
        if any(argument in _HELP for argument in own[1:]):
            print(help_text(_as_typed(description)), flush=True)
            return 0
        if "--version" in own[1:]:
            print(version.VERSION, flush=True)
            return 0
        rest = flags.FLAGS(argv, known_only=pass_unknown)
        if flags.FLAGS["verbosity"].using_default_value:
            # absl hides `info` by default. The root level is left alone: Beam and others log there.
            logging.get_absl_logger().setLevel(stdlib_logging.INFO)
        _refuse_no_numbers()
        _expand_home()
        _refuse_stores(remote, () if pass_unknown else rest[1:])
        return main([_HOME_IN_UNKNOWN.sub(_at_home, word) for word in rest[1:]]) or 0
    except flags.Error as error:
        _complain(error, f"{error}; --help lists the flags")
        return 2
    except errors.UserError as error:
        _complain(error, str(error))
        return 1
    except errors.ProgramFaultError as error:
        _complain(error, str(error))
        return 1
    except BrokenPipeError:
        # The reader of our output has exited; exit silently, as other filters do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(error, errors.explain_os_error(error))
        return 1
    except _TerminatedError as error:
        _complain(error, "terminated")
        return 128 + signal.SIGTERM
    except KeyboardInterrupt as error:
        _complain(error, "interrupted")
        return 128 + signal.SIGINT


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: it removes its unfinished files."""


def _terminate(number: int, frame: Any) -> None:
    # A second one ends the process at once.
    signal.signal(number, signal.SIG_DFL)
    raise _TerminatedError


def help_text(description: str) -> str:
    """Returns the description and every flag that a module of this program has defined."""
    by_module = flags.FLAGS.flags_by_module_dict()
    own = [m for m in by_module if m.split(".")[0] != "absl"]
    parts = [description.strip()]
    parts += [flags.FLAGS.module_help(module).strip().partition("\n")[2] for module in own]
    parts.append(
        "  --verbosity: 1 shows tracebacks and more of what is done, -1 only warnings.\n"
        "  --version: print the version."
    )
    return "\n".join(part for part in parts if part)


def _as_typed(description: str) -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or typed_as is None:
        return description
    return description.replace(f"python -m {spec.name} ", f"{typed_as} ")


def _refuse_no_numbers() -> None:
    """Raises if a flag is NaN or infinite, which bounds do not exclude."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise flags.Error(f"--{name}={value} is not a finite number")


def _mend_streams() -> None:
    """Prepares the standard streams so that printing a message cannot end the command.

    If one is closed (`2>&-`), the next file to be opened would get its number, and libraries'
    messages to standard error would end up in that file. `sys.__stdout__` and `sys.__stdin__` stay
    None for commands that need them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # This takes the lowest free number, which is that of the closed stream.
            os.open(os.devnull, os.O_RDWR)
            # Otherwise, workers would also start without it.
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # File names may contain characters that the stream's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    """Applies `change` to a flag's value, or to each of its parts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map_text(part, change) for part in value)
    return value


def _expand_home() -> None:
    """Expands `~` in all flags."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        changed = _map_text(flag.value, os.path.expanduser)
        if changed != flag.value:
            flag.value = changed


def _at_home(match: re.Match[str]) -> str:
    return match[1] + os.path.expanduser(match[2])


def _refuse_stores(remote: Collection[str], positional: Sequence[str]) -> None:
    """Raises if a command that only supports local files is given a place in a store."""

    def refuse(value: str, flag: str = "") -> str:
        if _SCHEME.match(value):
            raise flags.Error(
                f"{flag}{value}: files in a store are not taken here; name a file or folder of "
                "this machine, and copy it from there or to there"
            )
        return value

    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present and name not in _READ_ANYWHERE and name not in remote:
            _map_text(flag.value, functools.partial(refuse, flag=f"--{name}="))
    for word in positional:
        refuse(word)


def require(condition: object, message: str) -> None:
    """Raises `UserError(message)` unless the condition holds."""
    if not condition:
        raise errors.UserError(message)


def no_arguments(arguments: Sequence[str]) -> None:
    """Raises `flags.Error` if the command line has anything but flags."""
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}; only flags are taken")


def report(error: errors.UserError | OSError) -> None:
    """Prints one line on stderr, for a command that continues after an error."""
    _complain(error, errors.explain_os_error(error) if isinstance(error, OSError) else str(error))


def _complain(error: BaseException, message: str) -> None:
    if flags.FLAGS.is_parsed() and logging.get_verbosity() >= logging.DEBUG:
        traceback.print_exception(error)
    # A newline, ANSI sequence or other control character in a file name must not forge a line.
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", message).strip()
    print(f"error: {line}", file=sys.stderr, flush=True)


class _PlainFormatter(logging.PythonFormatter):
    """Formats our lines unchanged, and warnings and errors with the level's name before them."""

    def format(self, record: stdlib_logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= 20 else f"{record.levelname.lower()}: {text}"
