"""What a person can cause, as one family of exceptions, and in one line."""

import errno


class UserError(Exception):
    """Something that a person can mend; the message is one line that says what and how.

    Commands print the message alone and exit with 1.
    """


class WorkerLostError(UserError):
    """A worker process has died; what the job had done by then holds."""


class ProgramFaultError(Exception):
    """A fault of the program, raised where its traceback would be drowned by a library's.

    Commands print the message alone, unless --verbosity=1 asks for the traceback, and exit with 1.
    It is no `UserError`: nobody but us can mend it.
    """


def explain_os_error(error: OSError) -> str:
    """One line for a person: which file, what is wrong, and what helps where that is known."""
    what = error.strerror or str(error)
    name = f"{error.filename}: " if error.filename else ""
    hint = {
        errno.ENOSPC: "; free some space, then run the same command again",
        errno.EDQUOT: "; free some space, then run the same command again",
        errno.EACCES: "; check who may read and write there",
        errno.EROFS: "; choose another folder",
    }.get(error.errno or 0, "")
    return f"{name}{what}{hint}"


def first_line(error: BaseException) -> str:
    """The first line of what a library's exception says, or the exception's name; not too long."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
