"""tensorflow-io, and through it datasets in object stores.

It is loaded when it is needed, since that takes seconds, and proved by calling it: under another
TensorFlow than its own, it installs and imports, and only then fails.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import socket
import urllib.parse
import warnings
from collections.abc import Iterator
from typing import Any

from pipeline import errors, schema
from pipeline.io import objects, storage

REMEDY = "pip install 'voices-apart[io]' installs versions that fit each other"
# Its file system for S3 waits five minutes otherwise.
_MILLISECONDS = {"S3_CONNECT_TIMEOUT_MSEC": "10000", "S3_REQUEST_TIMEOUT_MSEC": "60000"}


def connect(folder: str) -> None:
    """Makes this process read the dataset through TensorFlow's file systems, where it is remote.

    For S3 the usual environment variables hold: credentials, `AWS_REGION`, and `AWS_ENDPOINT_URL`
    (or `S3_ENDPOINT`, which is TensorFlow's own) for another address than Amazon's.

    Args:
        folder: of the dataset; a local one costs nothing.

    Raises:
        UserError: TensorFlow cannot read it; says what to install.
    """
    if not storage.is_remote(folder):
        return
    _name_endpoint()
    scheme = folder.partition("://")[0]
    if scheme == "s3":
        _ask_endpoint(folder)
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.UserError(f"{folder}: TensorFlow is needed to read it ({error})") from error
    marker = storage.join(folder, schema.MARKER_FILE)
    try:
        if scheme not in tf.io.gfile.get_registered_schemes():
            load(f"reading {scheme}:// with TensorFlow")
        tf.io.gfile.exists(marker)
    except tf.errors.UnimplementedError as error:
        raise errors.UserError(
            f"{folder}: {versions()} cannot read {scheme}://; {REMEDY}"
        ) from error
    except tf.errors.OpError as error:
        raise errors.UserError(f"{folder}: cannot be reached: {first_line(error)}") from error
    objects.read_through(_Files())


class _Files:
    """Objects through TensorFlow's file systems, as `pipeline.io.objects.Reader` has them."""

    def read(self, path: str, limit: int) -> bytes:
        import tensorflow as tf

        with _one_line(path), tf.io.gfile.GFile(path, "rb") as file:
            return bytes(file.read(limit))

    def exists(self, path: str) -> bool:
        import tensorflow as tf

        with _one_line(path):
            return bool(tf.io.gfile.exists(path))

    def names(self, folder: str) -> list[str]:
        import tensorflow as tf

        with _one_line(folder):
            pattern = storage.join(folder.rstrip("/"), "*")
            return sorted(os.path.basename(path) for path in tf.io.gfile.glob(pattern))


@contextlib.contextmanager
def _one_line(path: str) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError as error:
        raise objects.ObjectError(path, "no such object", objects.ABSENT) from error
    except tf.errors.OpError as error:
        refused = isinstance(
            error, tf.errors.PermissionDeniedError | tf.errors.UnauthenticatedError
        )
        kind = objects.REFUSED if refused else objects.UNREACHABLE
        raise objects.ObjectError(path, f"cannot be read: {first_line(error)}", kind) from error


def _name_endpoint() -> None:
    """What botocore calls AWS_ENDPOINT_URL is S3_ENDPOINT here, and silently missing otherwise."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            os.environ.setdefault("S3_ENDPOINT", os.environ[name])
    for name, value in _MILLISECONDS.items():
        os.environ.setdefault(name, value)


def _ask_endpoint(folder: str) -> None:
    """Whether somebody listens there; TensorFlow takes silence for a folder with nothing in it."""
    endpoint = os.environ.get("S3_ENDPOINT", "")
    if not endpoint:
        return
    address = urllib.parse.urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    try:
        port = address.port or {"http": 80}.get(address.scheme, 443)
        socket.create_connection((address.hostname or "", port), 10).close()
    except (OSError, ValueError) as error:
        raise errors.UserError(
            f"{folder}: no answer from {endpoint} ({error}); check AWS_ENDPOINT_URL or S3_ENDPOINT"
        ) from error


@functools.cache
def load(what: str) -> Any:
    """The package, which still has to be seen to work.

    Args:
        what: it is needed for, for the message.

    Raises:
        UserError: it is not there; says what to install.
    """
    try:
        with warnings.catch_warnings():
            # Of its parts that do not load; whether those that are needed do, calling them shows.
            warnings.simplefilter("ignore")
            import tensorflow_io
    except ImportError as error:
        raise errors.UserError(f"{what} needs tensorflow-io; {REMEDY}") from error
    _keep_exit_status()
    return tensorflow_io


def _keep_exit_status() -> None:
    """Ends the process before the library's destructors, which abort it after S3 was touched.

    Python has ended by then: its buffers are written, its own exit handlers have run.
    """
    libc = ctypes.CDLL(None)
    # Only glibc has it; elsewhere the status is the library's.
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def versions() -> str:
    """Of TensorFlow and tensorflow-io, as far as they are installed, for messages."""
    installed = []
    for name in ("tensorflow", "tensorflow-io"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed.append(f"{name} {importlib.metadata.version(name)}")
    return " with ".join(installed)


def first_line(error: Any) -> str:
    """What an error of TensorFlow's (`tf.errors.OpError`) says first."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
