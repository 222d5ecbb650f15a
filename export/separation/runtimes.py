"""Models as other runtimes have them: LiteRT files (`.tflite`) and ONNX files (`.onnx`).

They are run by LiteRT's interpreter and by ONNX Runtime, without TensorFlow and without Keras. What
`voices_apart.json` says of a SavedModel lies within the file: in an ONNX file among its metadata,
in a LiteRT file as it lays down for files that belong to a model, in a ZIP archive at its end.
"""

import contextlib
import importlib
import io
import os
import pathlib
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from export.outlets import model_info
from export.separation import loading
from pipeline import errors
from pipeline.io import cores

LITE, ONNX = ".tflite", ".onnx"
SUFFIXES = (LITE, ONNX)
_KEY = pathlib.PurePath(model_info.FILE).stem


def load(path: str | os.PathLike[str]) -> loading.LoadedModel:
    """Loads a file that `export.lite` or `export.onnx` wrote.

    Args:
        path: ends in one of `SUFFIXES`.

    Raises:
        UserError: no such file, or it is damaged, or its runtime is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise errors.UserError(f"no such model: {path}")
    return _load_lite(path) if path.suffix == LITE else _load_onnx(path)


def require(suffix: str) -> Any:
    """The module that runs files of this kind.

    Raises:
        UserError: it is not installed.
    """
    module, extra, name = {
        LITE: ("ai_edge_litert.interpreter", "lite", "LiteRT"),
        ONNX: ("onnxruntime", "onnx", "ONNX Runtime"),
    }[suffix]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise errors.UserError(
            f"{suffix} files are run by {name}, which is not installed: "
            f"pip install 'voices-apart[{extra}]'"
        ) from error


def with_info(model: bytes, info: model_info.ModelInfo) -> bytes:
    """A LiteRT file with the facts at its end."""
    stream = io.BytesIO(model)
    # A fixed time: the same model gives the same bytes.
    entry = zipfile.ZipInfo(model_info.FILE, (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(entry, info.to_json())
    return stream.getvalue()


def onnx_metadata(info: model_info.ModelInfo) -> dict[str, str]:
    """The facts as an ONNX file's metadata have them."""
    return {_KEY: info.to_json()}


@contextlib.contextmanager
def quiet(*streams: int) -> Iterator[None]:
    """Keeps from the terminal what is written, by whatever library, to streams 1 and 2, or one."""
    with open(os.devnull, "w") as nothing, contextlib.ExitStack() as stack:
        for number in streams:
            kept = os.dup(number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nothing.fileno(), number)
        yield


def _load_lite(path: pathlib.Path) -> loading.LoadedModel:
    interpreter = require(LITE)
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(model_info.FILE).decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise _foreign(path, "lite") from error
    info = _info(path, text)
    try:
        # It tells of its parts when it allocates for the first time.
        with quiet(2):
            runner = interpreter.Interpreter(str(path), num_threads=cores.available_cores())
            runner.allocate_tensors()
        signatures = {name: runner.get_signature_runner(name) for name in info.signatures}
    except (ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error
    # It holds the tensors of one call.
    lock = threading.Lock()

    def run(name: str, argument: str, values: np.ndarray, output: str) -> np.ndarray:
        with lock:
            rows = [signatures[name](**{argument: row[np.newaxis]})[output] for row in values]
        return np.concatenate(rows)

    return loading.LoadedModel(
        info,
        str(path),
        _of_any_length(lambda waveform: run("serving_default", "waveform", waveform, "sources")),
        (lambda values: run("masks", "log_magnitude", values, "masks"))
        if "masks" in info.signatures
        else None,
    )


def _load_onnx(path: pathlib.Path) -> loading.LoadedModel:
    onnxruntime = require(ONNX)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores.available_cores()
    # Errors alone: what is more is for those who develop it.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # Of its own kinds, which derive from Exception alone.
        raise _damaged(path, error) from error
    text = session.get_modelmeta().custom_metadata_map.get(_KEY)
    if text is None:
        raise _foreign(path, "onnx")
    return loading.LoadedModel(
        _info(path, text),
        str(path),
        _of_any_length(lambda waveform: session.run(["sources"], {"waveform": waveform})[0]),
    )


def _of_any_length(separate: Any) -> Any:
    """Neither runtime takes tensors without numbers."""

    def run(waveform: np.ndarray) -> np.ndarray:
        samples = waveform.shape[1]
        return separate(waveform if samples else np.zeros((len(waveform), 1), np.float32))[
            ..., :samples
        ]

    return run


def _info(path: pathlib.Path, text: str) -> model_info.ModelInfo:
    try:
        return model_info.ModelInfo.from_json(text)
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}; export the model again") from error


def _foreign(path: pathlib.Path, command: str) -> errors.UserError:
    return errors.UserError(
        f"{path} is damaged, or no file of export.{command}: it has no {model_info.FILE} within"
    )


def _damaged(path: pathlib.Path, error: Exception) -> errors.UserError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return errors.UserError(f"{path} is damaged ({line[:200]}); export the model again")
