"""The ONNX format: an `.onnx` file, run by ONNX Runtime and many others.

The model info, which a SavedModel stores in `voices_apart.json`, is in the file's metadata.
"""

import pathlib
from typing import Any

import msgspec

from export.outlets import loaded_model, model_info
from pipeline import errors, file_names
from pipeline.io import cores

# From 2023: runtimes support opsets that are more than a year old.
OPSET = 18
_KEY = pathlib.PurePath(file_names.MODEL_INFO).stem


def load(path: pathlib.Path, onnxruntime: Any) -> loaded_model.LoadedModel:
    """Loads the model from an ONNX file.

    Args:
        path: the file's path.
        onnxruntime: the module `onnxruntime`.

    Raises:
        UserError: the file is damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores.available_cores()
    # Errors only: warnings are meant for developers.
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # Its own exceptions derive directly from Exception.
        raise errors.UserError(
            f"{path} is damaged ({errors.first_line(error)}); export the model again"
        ) from error
    text = session.get_modelmeta().custom_metadata_map.get(_KEY)
    if text is None:
        raise errors.UserError(
            f"{path} is damaged, or no file of export.onnx: it has no {file_names.MODEL_INFO} "
            "within"
        )
    try:
        info = model_info.ModelInfo.from_json(text)
    except errors.UserError as error:
        raise errors.UserError(f"{path}: {error}; export the model again") from error
    return loaded_model.LoadedModel(
        info,
        str(path),
        loaded_model.of_any_length(
            lambda waveform: session.run(["sources"], {"waveform": waveform})[0]
        ),
    )


def convert(separator: Any, path: pathlib.Path) -> model_info.ModelInfo:
    """Writes a separator as an ONNX file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        path: the file's path.

    Raises:
        ValueError: the network has an operation that ONNX lacks.
    """
    import tensorflow as tf
    from onnx import defs
    from tf2onnx import optimizer, tf_loader, tfonnx

    from export.outlets import signatures
    from models import spectral

    info = msgspec.structs.replace(
        signatures.describe(separator), signatures=(signatures.WAVEFORM,), stream=None
    )
    # tf2onnx does not support the real and imaginary parts of a Fourier transform.
    with spectral.transform(spectral.PRODUCTS):
        traced = signatures.functions(separator)[signatures.WAVEFORM].get_concrete_function()
    inputs = [tensor.name for tensor in traced.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in traced.outputs]
    frozen = tf_loader.from_function(traced, inputs, outputs)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            opset=OPSET,
            input_names=inputs,
            output_names=outputs,
            tensors_to_rename={inputs[0]: "waveform", outputs[0]: "sources"},
            custom_op_handlers={"SelectV2": (_where, [])},
        )
    # Runtimes have optimisers of their own. The tf2onnx optimiser that merges reshapes fails if
    # the shape of one is used elsewhere.
    chosen = {
        "fold_constants": optimizer.ConstFoldOptimizer,
        "loop_optimizer": optimizer.LoopOptimizer,
        "merge_duplication": optimizer.MergeDuplicatedNodesOptimizer,
        "remove_identity": optimizer.IdentityOptimizer,
    }
    converted = optimizer.optimize_graph(converted, catch_errors=False, optimizers=chosen)
    model = converted.make_model(info.name)
    # tf2onnx leaves unsupported operations in the graph.
    unknown = {node.op_type for node in model.graph.node if not defs.has(node.op_type)}
    if unknown:
        raise ValueError(f"there is no operation for {', '.join(sorted(unknown))}")
    model.metadata_props.add(key=_KEY, value=info.to_json())
    path.write_bytes(model.SerializeToString())
    return info


def _where(context: Any, node: Any, name: str, arguments: list[Any]) -> Any:
    """Converts to `Where`; tf2onnx would multiply by 0 and 1 and add, turning infinity into NaN."""
    node.type = "Where"
    return node
