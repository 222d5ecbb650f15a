"""Writes a model for other runtimes: an ONNX file, which ONNX Runtime and many others run.

    python -m export.onnx --model=exported/lstm --output=lstm.onnx
    python -m export.separate mixture.wav --model=lstm.onnx

The file takes `waveform` [batch, samples], of any length and level, and gives `sources` [batch,
voice, samples], which add up to it, as the SavedModel's `serving_default` does. What
voices_apart.json says is among its metadata.

Before it gets its name, the file is run and held to the model. What cannot be converted is said in
one line, and leaves no file.
"""

import dataclasses
import importlib.util
import os
import pathlib
from typing import Any

from absl import flags

from export import pretrained
from export.outlets import conversion, model_info
from export.separation import runtimes
from pipeline import cli, errors

# Of 2023: what is older than a year is what runtimes have.
OPSET = 18


def write(separator: Any, output: str | os.PathLike[str]) -> conversion.Written:
    """Writes a separator as an ONNX file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        output: the file, `*.onnx`; one that is there is replaced.

    Raises:
        UserError: the network cannot be converted, or tf2onnx or ONNX Runtime are not installed.
    """
    _require()
    return conversion.write(separator, output, lambda: _convert(separator))


def _require() -> None:
    runtimes.require(runtimes.ONNX)
    if importlib.util.find_spec("tf2onnx") is None:
        raise errors.UserError(
            "ONNX files are written by tf2onnx, which is not installed: "
            "pip install 'voices-apart[onnx]'"
        )


def _convert(separator: Any) -> tuple[bytes, model_info.ModelInfo]:
    import tensorflow as tf
    from onnx import defs
    from tf2onnx import optimizer, tf_loader, tfonnx

    from export.outlets import signatures
    from models import spectral

    info = dataclasses.replace(
        signatures.describe(separator), signatures=(signatures.WAVEFORM,), stream=None
    )
    # tf2onnx has no Fourier transform whose real and imaginary parts are taken.
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
    # Runtimes have optimisers of their own. Of tf2onnx's, that which joins reshapes goes wrong
    # where one's shape is asked for.
    chosen = {
        "fold_constants": optimizer.ConstFoldOptimizer,
        "loop_optimizer": optimizer.LoopOptimizer,
        "merge_duplication": optimizer.MergeDuplicatedNodesOptimizer,
        "remove_identity": optimizer.IdentityOptimizer,
    }
    converted = optimizer.optimize_graph(converted, catch_errors=False, optimizers=chosen)
    model = converted.make_model(info.name)
    # It leaves in what it does not know.
    unknown = {node.op_type for node in model.graph.node if not defs.has(node.op_type)}
    if unknown:
        raise ValueError(f"there is no operation for {', '.join(sorted(unknown))}")
    for key, value in runtimes.onnx_metadata(info).items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString(), info


def _where(context: Any, node: Any, name: str, arguments: list[Any]) -> Any:
    """A choice; tf2onnx adds products with 0 and 1 up, which makes infinity not-a-number."""
    node.type = "Where"
    return node


def _define_flags() -> None:
    flags.DEFINE_string(
        "model", "",
        "folder of export.saved_model, folder of trainer.task (its best weights), .keras file, or "
        "name of a model that comes with the package (default: the one that does)",
    )  # fmt: skip
    flags.DEFINE_string("output", None, "the file to write, *.onnx", required=True)


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments:
        raise flags.Error(f"unknown argument {arguments[0]!r}")
    output = pathlib.Path(flags.FLAGS.output)
    if output.suffix != runtimes.ONNX:
        raise errors.UserError(f"{output}: the ending of ONNX files is {runtimes.ONNX}")
    _require()
    separator = conversion.load_separator(pretrained.resolve(flags.FLAGS.model))
    print(conversion.describe(output, write(separator, output)))


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
