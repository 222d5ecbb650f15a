"""The outlet LiteRT (TensorFlow Lite): a `.tflite` file, run by an interpreter of 3 MB.

What `voices_apart.json` says of a SavedModel lies within the file, as LiteRT lays down for files
that belong to a model: in a ZIP archive at its end.
"""

import io
import pathlib
import tempfile
import threading
import zipfile
from typing import Any

import msgspec
import numpy as np

from export.outlets import loaded_model, model_info, terminal
from pipeline import errors, file_names
from pipeline.io import cores


def read_info(path: pathlib.Path) -> model_info.ModelInfo:
    """The facts within the file.

    Raises:
        UserError: there are none, or they are damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(file_names.MODEL_INFO).decode()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise errors.UserError(
            f"{path} is damaged, or no file of export.lite: it has no {file_names.MODEL_INFO} "
            "within"
        ) from error
    try:
        return model_info.ModelInfo.from_json(text)
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}; export the model again") from error


def load(path: pathlib.Path, interpreter: Any) -> loaded_model.LoadedModel:
    """The model in such a file.

    Args:
        path: of the file.
        interpreter: the module `ai_edge_litert.interpreter`.

    Raises:
        UserError: it is damaged.
    """
    info = read_info(path)
    try:
        # It tells of its parts when it allocates for the first time.
        with terminal.quiet(2):
            runner = interpreter.Interpreter(str(path), num_threads=cores.available_cores())
            runner.allocate_tensors()
        signatures = {name: runner.get_signature_runner(name) for name in info.signatures}
    except (ValueError, RuntimeError) as error:
        raise errors.UserError(
            f"{path} is damaged ({errors.first_line(error)}); export the model again"
        ) from error
    # It holds the tensors of one call.
    lock = threading.Lock()

    def run(name: str, argument: str, values: np.ndarray, output: str) -> np.ndarray:
        with lock:
            rows = [signatures[name](**{argument: row[np.newaxis]})[output] for row in values]
        return np.concatenate(rows)

    return loaded_model.LoadedModel(
        info,
        str(path),
        loaded_model.of_any_length(
            lambda waveform: run("serving_default", "waveform", waveform, "sources")
        ),
        (lambda values: run("masks", "log_magnitude", values, "masks"))
        if "masks" in info.signatures
        else None,
    )


def convert(
    separator: Any, path: pathlib.Path, *, int8: bool = False, float16: bool = False
) -> model_info.ModelInfo:
    """Writes a separator as such a file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        path: of the file.
        int8: weights of eight bits (dynamic range).
        float16: weights of sixteen bits, computed with in float32.
    """
    import tensorflow as tf

    from export.outlets import signatures
    from models import spectral
    from models.layers import fused_lstm

    info = signatures.describe(separator)
    module = tf.Module()
    module.weights = [variable.value for variable in separator.variables]
    with tempfile.TemporaryDirectory() as folder:
        # LiteRT has no inverse of the Fourier transform of real numbers, and loops are slow.
        with spectral.transform(spectral.FORWARD), fused_lstm.in_blocks():
            by_name = signatures.functions(separator, batch=1)
            functions = {
                name: by_name[name].get_concrete_function()
                for name in (signatures.WAVEFORM, signatures.MASKS)
                if name in by_name
            }
            tf.saved_model.save(module, folder, signatures=functions)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=sorted(functions)
        )
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        data = converter.convert()
    if float16:
        data = _in_float16(data)
    info = msgspec.structs.replace(info, signatures=tuple(sorted(functions)), stream=None)
    path.write_bytes(_with_info(data, info))
    return info


def _in_float16(model: bytes) -> bytes:
    """The file with weights of sixteen bits, which the interpreter widens when it starts.

    The converter's own way rounds all constants, those too that keep a logarithm from zero: they
    become zero, and digital silence not a number.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    parts = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    widen = schema.OperatorCodeT()
    widen.builtinCode = widen.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    widen.version = 3  # The first that takes sixteen bits.
    parts.operatorCodes.append(widen)
    halves: dict[int, int] = {}
    for graph in parts.subgraphs:
        before = []
        for index, tensor in enumerate(list(graph.tensors)):
            data = parts.buffers[tensor.buffer].data
            size = 0 if data is None else len(data) // 4
            if tensor.type != schema.TensorType.FLOAT32 or size < model_info.SMALLEST_WEIGHTS:
                continue
            if tensor.buffer not in halves:
                halves[tensor.buffer] = len(parts.buffers)
                half = schema.BufferT()
                half.data = np.asarray(data, np.uint8).view("<f4").astype("<f2").view(np.uint8)
                parts.buffers.append(half)
            stored = schema.TensorT()
            stored.shape, stored.name = tensor.shape, tensor.name + b"/float16"
            stored.type, stored.buffer = schema.TensorType.FLOAT16, halves[tensor.buffer]
            operator = schema.OperatorT()
            operator.opcodeIndex = len(parts.operatorCodes) - 1
            operator.inputs, operator.outputs = [len(graph.tensors)], [index]
            graph.tensors.append(stored)
            before.append(operator)
            tensor.buffer = 0  # It has no data of its own any more.
        graph.operators = [*before, *graph.operators]
    for index in halves:
        parts.buffers[index].data = None
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parts.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _with_info(model: bytes, info: model_info.ModelInfo) -> bytes:
    """The file with the facts at its end."""
    stream = io.BytesIO(model)
    # A fixed time: the same model gives the same bytes.
    entry = zipfile.ZipInfo(file_names.MODEL_INFO, (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(entry, info.to_json())
    return stream.getvalue()
