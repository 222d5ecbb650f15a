"""Exceptions for errors that a user can cause, with one-line messages."""

import errno


class UserError(Exception):
    """An error that the user can fix; the message is one line with the problem and what to do.

    Commands print only the message and exit with 1.
    """


class WorkerLostError(UserError):
    """A worker process has died; the work finished by then is kept."""


class ProgramFaultError(Exception):
    """A bug in the program, raised where a library would bury the traceback in its own.

    Commands print only the message, unless --verbosity=1 asks for the traceback, and exit with 1.
    It is not a `UserError`, because the user cannot fix it.
    """


def explain_os_error(error: OSError) -> str:
    """Returns one line for a user: the file, what is wrong, and, if known, what to do."""
    what = error.strerror or str(error)
    name = f"{error.filename}: " if error.filename else ""
    hint = {
        errno.ENOSPC: "; free some space, then run the same command again",
        errno.EDQUOT: "; free some space, then run the same command again",
        errno.EACCES: "; check who may read and write there",
        errno.EROFS: "; choose another folder",
        errno.EMFILE: "; raise the limit of open files (ulimit -n)",
    }.get(error.errno or 0, "")
    return f"{name}{what}{hint}"


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's exception, or the exception's name; not too long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
