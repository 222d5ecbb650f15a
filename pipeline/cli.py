"""What all commands do alike: flags, `--help`, messages and exit codes.

    0    done
    1    something that a person can mend: one line on stderr
    2    flags that are wrong: one line on stderr
    130  interrupted

Any other exception is a fault of the program and keeps its traceback.
"""

import logging as stdlib_logging
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import flags, logging

from pipeline import errors, version

# What stands for `python -m MODULE` where a command was called by another name.
typed_as: str | None = None

_HELP = ("--help", "-help", "-h", "--helpfull", "--helpshort")


def run(
    main: Callable[[list[str]], int | None],
    description: str,
    *,
    pass_unknown: bool = False,
    argv: Sequence[str] | None = None,
) -> None:
    """Parses the flags, runs `main`, and ends the process.

    Args:
        main: gets what is left of the command line (positional arguments and, with
            `pass_unknown`, the flags that absl does not know); returns the exit code or None.
        description: what `--help` prints first; a command gives its module's `__doc__`.
        pass_unknown: hand unknown flags to `main`, which then has to refuse those that are
            nobody's with `flags.Error`. Otherwise they are errors here.
        argv: the command line, by default the process's.
    """
    # TensorFlow's native part greets on stderr with ten lines unless told not to, before it loads.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    arguments = list(sys.argv if argv is None else argv)
    sys.exit(_run(main, description, pass_unknown, arguments))


def _run(
    main: Callable[[list[str]], int | None], description: str, pass_unknown: bool, argv: list[str]
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
        return main(rest[1:]) or 0
    except flags.Error as error:
        _complain(error, f"{error}; --help lists the flags")
        return 2
    except errors.UserError as error:
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
