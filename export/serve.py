"""Serves a local web page: drop a recording, look at its voices, play and download them.

    python -m export.serve
    python -m export.serve --model=runs/lstm --model=exported/tcn --port=8080

prints an address such as http://127.0.0.1:8000 to open in a browser. The page needs no network, and
nothing is sent anywhere. Recordings and voices are kept in a temporary folder on this machine,
accessible only to the browser that sent them, until it removes them, has been away for
--keep_minutes, or the command ends (Ctrl-C or SIGTERM).

The page is reachable only from this machine unless --host says otherwise. There is no password and
no encryption: put a server that has both in front of it before giving others access.
"""

import ipaddress
import os
import signal
import socket
import sys
import threading

from absl import flags

from pipeline import cli, errors

_MISSING = "the page needs Starlette and uvicorn: pip install 'voices-apart[serve]'"


class _EndedError(BaseException):
    """A signal asked the server to end."""


# Python ignores what a handler raises within a finaliser: this then stops the server.
_asked_to_end = threading.Event()


def _end(*_: object) -> None:
    _asked_to_end.set()
    raise _EndedError


def listen(host: str, port: int) -> socket.socket:
    """Creates a listening socket.

    Args:
        host: name or address.
        port: the port, or 0 for any free one.

    Raises:
        UserError: the port is taken or not permitted, or there is no such host.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such host"
        raise errors.UserError(
            f"{host} port {port}: {reason}; choose another --port or --host"
        ) from error


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _names(host: str, loopback: bool, more: list[str]) -> set[str]:
    """Returns the names of this machine that requests may use."""
    names = {"localhost", host, *more}
    if not loopback:
        names |= {socket.gethostname(), socket.getfqdn()}
    return names


def _define_flags() -> None:
    flags.DEFINE_multi_string(
        "model", [],
        "a model, as for export.separate, to offer besides those shipped with the package; may be "
        "repeated, and the first is the default",
    )  # fmt: skip
    flags.DEFINE_string(
        "host", "127.0.0.1", "address to listen on; 0.0.0.0 gives other machines access"
    )
    flags.DEFINE_integer(
        "port", 8000, "port to listen on; 0 for any free one", lower_bound=0, upper_bound=65535
    )
    flags.DEFINE_multi_string(
        "allowed_host", [], "further host name that requests may use (behind another server)"
    )
    flags.DEFINE_float(
        "max_megabytes", 200, "size of the largest accepted file", lower_bound=0.01, upper_bound=1e5
    )
    flags.DEFINE_float(
        "max_minutes",
        10,
        "duration of the longest accepted recording (a minute takes 50 MB of memory)",
        lower_bound=0.2,
        upper_bound=60,
    )
    flags.DEFINE_float(
        "keep_minutes", 10, "how long to keep the files of a closed page", lower_bound=0.05
    )
    flags.DEFINE_float(
        "keep_gigabytes",
        20,
        "refuse recordings once the files of all browsers take this much",
        lower_bound=0.001,
    )
    flags.DEFINE_integer(
        "at_once", 1, "recordings that are separated at the same time", lower_bound=1
    )


def main(arguments: list[str]) -> int:
    """Runs the command."""
    options = flags.FLAGS
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    try:
        from export.serving import app, model_catalog, work
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "starlette", "anyio"):
            raise
        raise errors.UserError(_MISSING) from error
    models = model_catalog.Models(model_catalog.sources(options.model))
    if not models.need_keras:
        # This process does not need Keras, whose import by TensorFlow would take two seconds.
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    listener = listen(options.host, options.port)
    address, port = listener.getsockname()[:2]
    loopback = _is_loopback(address)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    page = app.Page(
        models,
        work.Limits(round(options.max_megabytes * 1e6), 60 * options.max_minutes),
        keep_seconds=60 * options.keep_minutes,
        keep_bytes=round(options.keep_gigabytes * 1e9),
        at_once=options.at_once,
        cookie=f"voices-apart-{port}",
    )
    try:
        names = _names(options.host, loopback, options.allowed_host)
        server = app.server(app.create(page, names), _asked_to_end.is_set)
        shown = f"[{address}]" if ":" in address else address
        print(f"http://{shown}:{port} is open; Ctrl-C ends it and removes all files", flush=True)
        if not loopback:
            print(
                f"note: whoever reaches port {port} of this machine can use the page; it has no "
                "password and no encryption",
                file=sys.stderr,
                flush=True,
            )
        # Uvicorn shuts down gracefully, then raises the signal again for us.
        server.run(sockets=[listener])
    except _EndedError:
        pass
    finally:
        page.sessions.close()
    if not page.ended:
        # A running model call cannot be interrupted, and nobody needs its result.
        sys.stdout.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
