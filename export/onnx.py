"""Exports a model for other runtimes, as an ONNX file that ONNX Runtime and many others run.

    python -m export.onnx --model=exported/lstm --output=lstm.onnx
    python -m export.separate mixture.wav --model=lstm.onnx

The model takes `waveform` [batch, samples], of any length and level, and returns `sources` [batch,
voice, samples], which add up to it, like the SavedModel's `serving_default`. The content of
voices_apart.json is in the file's metadata.

The result is verified against the model before the file gets its name. If something cannot be
converted, a one-line error says so, and no file is left.
"""

import os
import pathlib
from typing import Any

from absl import flags

from export import pretrained
from export.outlets import conversion, formats
from pipeline import cli


def write(separator: Any, output: str | os.PathLike[str]) -> conversion.Written:
    """Writes a separator as an ONNX file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        output: the file, `*.onnx`; an existing one is replaced.

    Raises:
        UserError: the network cannot be converted, or tf2onnx or ONNX Runtime is not installed.
    """
    return conversion.write(formats.ONNX, separator, output)


def _define_flags() -> None:
    flags.DEFINE_string(
        "model", "",
        "folder of export.saved_model, folder of trainer.task (its best weights), .keras file, or "
        "name of a model shipped with the package (default: the shipped one)",
    )  # fmt: skip
    flags.DEFINE_string("output", None, "the file to write, *.onnx", required=True)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments:
        raise flags.Error(f"unknown argument {arguments[0]!r}")
    output = pathlib.Path(flags.FLAGS.output)
    conversion.check_suffix(formats.ONNX, output)
    formats.ONNX.require_writers()
    separator = conversion.separator_of(pretrained.resolve(flags.FLAGS.model))
    print(conversion.describe(output, write(separator, output)))


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
