"""The LiteRT (TensorFlow Lite) format: a `.tflite` file, run by an interpreter of 3 MB.

The model info, which a SavedModel stores in `voices_apart.json`, is in a ZIP archive at the end of
the file, as LiteRT specifies for associated files.
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
    """Reads the model info from the file.

    Raises:
        UserError: it is missing or damaged.
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
    """Loads the model from a LiteRT file.

    Args:
        path: the file's path.
        interpreter: the module `ai_edge_litert.interpreter`.

    Raises:
        UserError: the file is damaged.
    """
    info = read_info(path)
    try:
        # The interpreter logs its delegates on the first allocation.
        with terminal.quiet(2):
            runner = interpreter.Interpreter(str(path), num_threads=cores.available_cores())
            runner.allocate_tensors()
        signatures = {name: runner.get_signature_runner(name) for name in info.signatures}
    except (ValueError, RuntimeError) as error:
        raise errors.UserError(
            f"{path} is damaged ({errors.first_line(error)}); export the model again"
        ) from error
    # The interpreter holds the tensors of a single call.
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
    """Writes a separator as a LiteRT file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        path: the file's path.
        int8: store 8-bit weights (dynamic-range quantisation).
        float16: store 16-bit weights; computation stays in float32.
    """
    import tensorflow as tf

    from export.outlets import signatures
    from models import spectral
    from models.layers import fused_lstm

    info = signatures.describe(separator)
    module = tf.Module()
    module.weights = [variable.value for variable in separator.variables]
    with tempfile.TemporaryDirectory() as folder:
        # LiteRT has no inverse real FFT, and its loops are slow.
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
    """Rewrites the file with 16-bit weights, which the interpreter widens when it starts.

    The converter's own option rounds all constants. Those that keep a logarithm's argument above
    zero would become zero, and digital silence would give NaN.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    parts = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    widen = schema.OperatorCodeT()
    widen.builtinCode = widen.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    widen.version = 3  # The first version that takes 16-bit input.
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
            tensor.buffer = 0  # It no longer has data of its own.
        graph.operators = [*before, *graph.operators]
    for index in halves:
        parts.buffers[index].data = None
    builder = flatbuffers.Builder(len(model))
    builder.Finish(parts.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _with_info(model: bytes, info: model_info.ModelInfo) -> bytes:
    """Appends the model info to the file."""
    stream = io.BytesIO(model)
    # A fixed time, so that the same model gives the same bytes.
    entry = zipfile.ZipInfo(file_names.MODEL_INFO, (1980, 1, 1, 0, 0, 0))
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(entry, info.to_json())
    return stream.getvalue()
