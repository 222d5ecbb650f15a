"""Objects in a store (`s3://`, `gs://`, …), through Beam's file systems, with one-line errors.

Beam's file systems are imported when the first path with a scheme is used. A machine that only
trains does not need them: `read_through` replaces them with TensorFlow's.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import re
import shutil
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from pipeline import errors

# Beam would retry for ten minutes if a store does not answer.
ANSWER_SECONDS = 60.0
# For each scheme: the extra of this package, and a module that shows whether it is installed.
_EXTRAS = {"s3": ("aws", "boto3"), "gs": ("gcp", "google.cloud.storage")}


# Kinds of `ObjectError`: the object does not exist; the store does not answer or disconnects, which
# may be temporary; access is refused, or a package or a setting is missing.
ABSENT, UNREACHABLE, REFUSED = "absent", "unreachable", "refused"


class ObjectError(errors.UserError):
    """An object or a store is not accessible.

    Attributes:
        path: path of the object or store.
        reason: why, without the path.
        kind: `ABSENT`, `UNREACHABLE` or `REFUSED`.
    """

    def __init__(self, path: str, reason: str, kind: str = REFUSED) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # Beam pickles exceptions between processes; BaseException's default would lose the reason.
        return type(self), (self.path, self.reason, self.kind)


@dataclasses.dataclass(frozen=True, order=True)
class Object:
    """An object in a listing.

    Attributes:
        name: relative to the folder that was listed.
        updated: when it was last written, in seconds by the store's own clock.
    """

    name: str
    updated: float


class Reader(Protocol):
    """A replacement for Beam's file systems in a process that only reads."""

    def read(self, path: str, limit: int) -> bytes:
        """Returns the first `limit` bytes of an object; raises `ObjectError` if it is missing."""

    def exists(self, path: str) -> bool:
        """Returns whether the object exists."""

    def names(self, folder: str) -> list[str]:
        """Returns the objects directly in a folder."""


_reader: Reader | None = None
# `_quiet` changes the settings of the whole process, so threads must not overlap in it.
_importing = threading.Lock()


def read_through(reader: Reader | None) -> None:
    """Makes this process read objects through `reader` from now on; None means through Beam."""
    global _reader
    _reader = reader


def connect(paths: Iterable[str], options: Any) -> None:
    """Passes Beam's options to its file systems, and checks once that each store answers.

    Args:
        paths: paths of folders or objects that will be needed; local ones are ignored.
        options: Beam's `PipelineOptions`, with flags such as `--s3_endpoint_url`.

    Raises:
        ObjectError: a package is missing, or the store does not answer or refuses access.
    """
    stores: dict[str, str] = {}
    for path in paths:
        scheme, separator, rest = path.partition("://")
        if separator:
            stores.setdefault(f"{scheme}://{rest.partition('/')[0]}", path)
    if stores:
        _systems(next(iter(stores.values()))).set_options(options)
    for store, path in stores.items():
        _ask(store, path)


def match(folder: str, start: str = "") -> list[Object]:
    """Returns all objects in a folder, at any depth, sorted.

    Args:
        folder: with its scheme.
        start: prefix of their names; the store lists no others.

    Raises:
        ObjectError: the store cannot be listed.
    """
    root = folder.rstrip("/") + "/"
    return [
        Object(path[len(root) :], updated) for path, updated in _match(folder, root + start, "**")
    ]


def names(folder: str) -> list[str]:
    """Returns the objects directly in a folder, sorted; none if the folder does not exist."""
    if _reader is not None:
        return _reader.names(folder)
    root = folder.rstrip("/") + "/"
    return [path[len(root) :] for path, _ in _match(folder, root, "*")]


def read(path: str, limit: int) -> bytes:
    """Returns the first `limit` bytes of an object.

    Raises:
        ObjectError: it does not exist, or cannot be read.
    """
    if _reader is not None:
        return _reader.read(path, limit)
    with open_to_read(path) as file:
        return file.read(limit)


@contextlib.contextmanager
def open_to_read(path: str) -> Iterator[BinaryIO]:
    """Opens an object as a file, always through Beam.

    Raises:
        ObjectError: it does not exist, or cannot be read.
    """
    with (
        _one_line(path, "cannot be read"),
        # Beam would otherwise decompress *.gz.
        _systems(path).open(path, compression_type="uncompressed") as file,
    ):
        yield file


def exists(path: str) -> bool:
    """Returns whether the object exists."""
    if _reader is not None:
        return _reader.exists(path)
    with _one_line(path, "cannot be looked up"):
        return bool(_systems(path).exists(path))


def write(path: str, content: BinaryIO) -> None:
    """Writes the rest of a file to an object.

    A store shows an object only when it is complete, so no temporary name is needed.

    Args:
        path: path of the object; an existing one is replaced.
        content: binary, at any position; may be empty.

    Raises:
        ObjectError: the store does not accept it.
    """
    with _one_line(path, "cannot be written"):
        systems, first = _systems(path), content.read(1)
        if not first and path.startswith("s3://"):
            _write_empty_to_s3(path)
            return
        file = systems.create(path, compression_type="uncompressed")
        try:
            file.write(first)
            shutil.copyfileobj(content, file, 2**20)
        except BaseException:
            # Closing creates the object even if only half the content was written; sooner or later
            # the garbage collector would close it.
            with contextlib.suppress(Exception):
                file.close()
            with contextlib.suppress(Exception):
                systems.delete([path])
            raise
        file.close()


def _write_empty_to_s3(path: str) -> None:
    """Writes an empty object, which Beam cannot do: its uploads have parts."""
    from apache_beam.io.aws import s3io

    options = _systems(path).get_filesystem(path)._options
    bucket, key = s3io.parse_s3_path(path)
    s3io.S3IO(options=options).client.client.put_object(Bucket=bucket, Key=key)


def delete(path: str) -> None:
    """Removes an object if it exists."""
    if exists(path):
        with _one_line(path, "cannot be removed"):
            _systems(path).delete([path])


def delete_folder(folder: str) -> None:
    """Removes all objects in a folder."""
    if match(folder):
        with _one_line(folder, "cannot be removed"):
            _systems(folder).delete([folder.rstrip("/") + "/"])


def explain(error: BaseException) -> str:
    """Returns the innermost reason of a file system's exception, as one line."""
    details = getattr(error, "exception_details", None)
    if isinstance(details, dict) and details:
        return explain(next(iter(details.values())))
    code = getattr(error, "code", None)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    hint = {401: "; check the credentials", 403: "; check the credentials and who may do what"}
    return text + (hint.get(code, "") if isinstance(code, int) else "")


def _match(folder: str, start: str, rest: str) -> list[tuple[str, float]]:
    """Returns paths with the literal prefix `start`, and the time of each; sorted."""
    # Beam's patterns have no escape character.
    pattern = re.sub(r"[\[*?]", "?", start) + rest
    with _one_line(folder, "cannot be listed"):
        (found,) = _systems(folder).match([pattern])
    return sorted(
        (metadata.path, metadata.last_updated_in_seconds or 0.0)
        for metadata in found.metadata_list
        if metadata.path.startswith(start)
    )


def _systems(path: str) -> Any:
    """Returns Beam's file systems, if they support this path's scheme."""
    try:
        with _importing:
            filesystem, systems, no_options = _import_systems()
    except ImportError as error:
        raise ObjectError(path, f"Apache Beam is needed ({error})") from error
    scheme = path.partition("://")[0]
    extra, module = _EXTRAS.get(scheme, ("", ""))
    known = {system.scheme() for system in filesystem.get_all_subclasses()} - {None}
    if scheme not in known or (module and not _is_installed(module)):
        if extra:
            reason = f"for {scheme}:// install pip install 'voices-apart[{extra}]'"
        else:
            reason = f"nothing here knows {scheme}://, only {', '.join(sorted(known))}"
        raise ObjectError(path, reason)
    if scheme == "s3":
        _keep_s3_clients()
    if systems._pipeline_options is None:
        # S3 requires some. Beam sets those of a job, also in its workers.
        systems.set_options(no_options)
    return systems


@functools.cache
def _import_systems() -> tuple[Any, Any, Any]:
    """Returns Beam's `FileSystem` and `FileSystems`, and no options; callers hold `_importing`."""
    # On import, Beam warns about optional packages that are not installed.
    with _quiet():
        from apache_beam.io import filesystem, filesystems
        from apache_beam.options import pipeline_options
    return (
        filesystem.FileSystem, filesystems.FileSystems, pipeline_options.PipelineOptions([]),
    )  # fmt: skip


@functools.cache
def _keep_s3_clients() -> None:
    """Lets each thread keep its S3 client.

    Beam makes a new one for every operation, which takes 0.2 s of CPU time: more than reading the
    recording. In versions of Beam where the code is different, nothing is changed.
    """
    kept = threading.local()
    with contextlib.suppress(ImportError, AttributeError):
        from apache_beam.io.aws.clients.s3 import boto3_client

        make = boto3_client.Client

        def client(options: Any) -> Any:
            if getattr(kept, "options", None) is not options:
                kept.options, kept.client = options, make(options=options)
            return kept.client

        boto3_client.Client = client


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _ask(store: str, path: str) -> None:
    """Raises ObjectError if a store does not answer."""
    failures: list[ObjectError] = []

    def ask() -> None:
        try:
            exists(path.rstrip("/") + "/_")
        except ObjectError as error:
            failures.append(ObjectError(store, error.reason))

    thread = threading.Thread(target=ask, daemon=True)
    # Beam logs each of its attempts.
    with _quiet():
        thread.start()
        thread.join(ANSWER_SECONDS)
    if thread.is_alive():
        raise ObjectError(
            store,
            f"no answer within {ANSWER_SECONDS:.0f} seconds; check the network, the credentials, "
            "and the address where it is not the provider's own (--s3_endpoint_url or "
            "AWS_ENDPOINT_URL)",
        )
    if failures:
        raise failures[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses libraries' warnings, unless verbose logging is on."""
    before = logging.root.manager.disable
    if not logging.root.isEnabledFor(logging.DEBUG):
        logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            yield
        finally:
            logging.disable(before)


@contextlib.contextmanager
def _one_line(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except errors.UserError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404:
            raise ObjectError(path, "no such object", ABSENT) from error
        kind = REFUSED if getattr(error, "code", None) in (401, 403) else UNREACHABLE
        raise ObjectError(path, f"{what}: {explain(error)}", kind) from error
