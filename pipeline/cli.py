"""What all commands do alike: flags, `--help`, messages and exit codes.

    0    done
    1    something that a person can mend, or a fault in a worker of a job: one line on stderr
    2    flags that are wrong: one line on stderr
    130  interrupted

Any other exception is a fault of the program and keeps its traceback.
"""

import functools
import logging as stdlib_logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Any

from absl import flags, logging

from pipeline import errors, version

# What stands for `python -m MODULE` where a command was called by another name.
typed_as: str | None = None

_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")
# What every command that has such a flag reads through `pipeline.io`, stores included.
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

    `~` and `~user` at the start of a flag's value become the home folder, which the shell leaves
    alone after `--output_dir=`. A value with `://` in it is refused where the command knows only
    files of this machine: it would make a folder with the name `s3:`.

    Args:
        main: gets what is left of the command line (positional arguments and, with
            `pass_unknown`, the flags that absl does not know); returns the exit code or None.
        description: what `--help` prints first; a command gives its module's `__doc__`.
        pass_unknown: hand unknown flags to `main`, which then has to refuse those that are
            nobody's with `flags.Error`. Otherwise they are errors here.
        remote: flags that may name a place in a store, beside those that do in every command
            (`--data_dir`, `--input_dir`, …).
        argv: the command line, by default the process's.
    """
    # TensorFlow's native part greets on stderr with ten lines unless told not to, before it loads.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = list(sys.argv if argv is None else argv)
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
            # absl's own default hides `info`. Not the root's level: Beam and others log there.
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
        # Whoever read our output has gone; leave without a word, as other filters do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        _complain(error, errors.explain_os_error(error))
        return 1
    except KeyboardInterrupt as error:
        _complain(error, "interrupted")
        return 130


def help_text(description: str) -> str:
    """The description and every flag that a module of this program has defined."""
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
    """Raises where a flag is NaN or infinite, which no limit keeps out."""
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        if isinstance(value, float) and not math.isfinite(value):
            raise flags.Error(f"--{name}={value} is not a finite number")


def _mend_streams() -> None:
    """Makes the standard streams such that no message can end the command.

    Where one is closed (`2>&-`), the next file to be opened would get its number, and what
    libraries write to standard error would land in that file. `sys.__stdout__` and `sys.__stdin__`
    stay None, for commands that need them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.open(os.devnull, os.O_RDWR)
            # Workers, too, would otherwise be started without.
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # A file's name may have characters that the stream's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    """A flag's value, its text changed, or that of each of its parts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map_text(part, change) for part in value)
    return value


def _expand_home() -> None:
    """Puts the home folder in place of `~` in all flags."""
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        changed = _map_text(flag.value, os.path.expanduser)
        if changed != flag.value:
            flag.value = changed


def _at_home(match: re.Match[str]) -> str:
    return match[1] + os.path.expanduser(match[2])


def _refuse_stores(remote: Collection[str], positional: Sequence[str]) -> None:
    """Raises where a place in a store is named to a command that knows local files only."""

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


def report(error: errors.UserError | OSError) -> None:
    """Prints one line on stderr, for a command that goes on after an error with what is left."""
    _complain(error, errors.explain_os_error(error) if isinstance(error, OSError) else str(error))


def _complain(error: BaseException, message: str) -> None:
    if flags.FLAGS.is_parsed() and logging.get_verbosity() >= logging.DEBUG:
        traceback.print_exception(error)
    # A newline, ANSI sequence or other control character in a file's name must not forge a line.
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", message).strip()
    print(f"error: {line}", file=sys.stderr, flush=True)


class _PlainFormatter(logging.PythonFormatter):
    """Our lines as they are; warnings and errors with their name before them."""

    def format(self, record: stdlib_logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= 20 else f"{record.levelname.lower()}: {text}"
