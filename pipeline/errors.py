"""What a person can cause, as one family of exceptions."""


class UserError(Exception):
    """Something that a person can mend; the message is one line that says what and how.

    Commands print the message alone and exit with 1.
    """


class WorkerLostError(UserError):
    """A worker process has died; what the job had done by then holds."""
