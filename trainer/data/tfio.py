"""tensorflow-io, for datasets in object stores.

It is loaded on demand, since that takes seconds, and tested by a call: with a TensorFlow version
that it was not built for, it installs and imports, but then fails.
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
# Timeouts of its S3 file system, which otherwise waits for five minutes.
_MILLISECONDS = {"S3_CONNECT_TIMEOUT_MSEC": "10000", "S3_REQUEST_TIMEOUT_MSEC": "60000"}


def connect(folder: str) -> None:
    """Sets up TensorFlow's file systems for reading the dataset if it is remote.

    For S3 the usual environment variables apply: credentials, `AWS_REGION`, and `AWS_ENDPOINT_URL`
    (or TensorFlow's `S3_ENDPOINT`) for an address other than Amazon's.

    Args:
        folder: folder of the dataset; a local one needs no set-up.

    Raises:
        UserError: TensorFlow cannot read it; the message says what to install.
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
    """Reads objects through TensorFlow's file systems, like `pipeline.io.objects.Reader`."""

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
    """Copies botocore's AWS_ENDPOINT_URL to S3_ENDPOINT, the name that this library needs."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            os.environ.setdefault("S3_ENDPOINT", os.environ[name])
    for name, value in _MILLISECONDS.items():
        os.environ.setdefault(name, value)


def _ask_endpoint(folder: str) -> None:
    """Checks the connection; without one, TensorFlow would report an empty folder."""
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
    """Imports the package; whether it works must still be tested.

    Args:
        what: feature that needs it, for the message.

    Raises:
        UserError: it is not installed; the message says what to install.
    """
    try:
        with warnings.catch_warnings():
            # Warnings about parts that fail to load; a call shows whether the needed parts work.
            warnings.simplefilter("ignore")
            import tensorflow_io
    except ImportError as error:
        raise errors.UserError(f"{what} needs tensorflow-io; {REMEDY}") from error
    _keep_exit_status()
    return tensorflow_io


def _keep_exit_status() -> None:
    """Exits before the library's destructors, which abort the process after any use of S3.

    By then Python has finished: buffers are flushed and exit handlers have run.
    """
    libc = ctypes.CDLL(None)
    # Only glibc has `on_exit`; elsewhere the exit status is the library's.
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def versions() -> str:
    """Versions of TensorFlow and tensorflow-io, if installed, for messages."""
    installed = []
    for name in ("tensorflow", "tensorflow-io"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed.append(f"{name} {importlib.metadata.version(name)}")
    return " with ".join(installed)


def first_line(error: Any) -> str:
    """Returns the first line of the message of a TensorFlow error (`tf.errors.OpError`)."""
    lines = [line.strip() for line in str(error.message).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
