"""Exports a model for phones and embedded devices, as a LiteRT (TensorFlow Lite) file.

    python -m export.lite --model=exported/lstm --output=lstm.tflite
    python -m export.lite --model=runs/tcn --output=tcn.tflite --int8
    python -m export.separate mixture.wav --model=tcn.tflite

The file has the SavedModel's signatures, for one mixture at a time: `serving_default` takes
`waveform` [1, samples], of any length and level, and returns `sources` [1, voice, samples], which
add up to it; `masks` takes `log_magnitude` [1, frame, bin]. It uses only LiteRT's built-in
operations, and includes the content of voices_apart.json. With --float16, weights have 16 bits:
half the size. With --int8, weights have 8 bits and their inputs are rounded to 8 bits as well: a
third to a quarter of the size. The voices then differ only slightly: see docs/outlets.md.

The result is verified against the model before the file gets its name. If LiteRT lacks an
operation, a one-line error says so, and no file is left.
"""

import os
import pathlib
from typing import Any

from absl import flags

from export import pretrained
from export.outlets import conversion, formats
from pipeline import cli


def write(
    separator: Any,
    output: str | os.PathLike[str],
    *,
    int8: bool = False,
    float16: bool = False,
) -> conversion.Written:
    """Writes a separator as a LiteRT file.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        output: the file, `*.tflite`; an existing one is replaced.
        int8: store 8-bit weights (dynamic-range quantisation).
        float16: store 16-bit weights; computation stays in float32.

    Raises:
        UserError: the network cannot be converted, or LiteRT is not installed.
        ValueError: both int8 and float16 are set.
    """
    if int8 and float16:
        raise ValueError("weights have eight bits or sixteen, not both")
    allowed_db = conversion.EXACT_DB
    if int8 or float16:
        allowed_db = conversion.COARSE_DB if int8 else conversion.HALF_DB
    return conversion.write(
        formats.LITERT, separator, output, allowed_db, int8=int8, float16=float16
    )


def _define_flags() -> None:
    flags.DEFINE_string(
        "model", "",
        "folder of export.saved_model, folder of trainer.task (its best weights), .keras file, or "
        "name of a model shipped with the package (default: the shipped one)",
    )  # fmt: skip
    flags.DEFINE_string("output", None, "the file to write, *.tflite", required=True)
    flags.DEFINE_bool("int8", False, "store 8-bit weights: a third to a quarter of the size")
    flags.DEFINE_bool("float16", False, "store 16-bit weights: half the size")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments:
        raise flags.Error(f"unknown argument {arguments[0]!r}")
    output = pathlib.Path(flags.FLAGS.output)
    conversion.check_suffix(formats.LITERT, output)
    int8, float16 = flags.FLAGS.int8, flags.FLAGS.float16
    if int8 and float16:
        raise flags.Error("--int8 and --float16 exclude each other")
    formats.LITERT.require_writers()
    separator = conversion.separator_of(pretrained.resolve(flags.FLAGS.model))
    print(conversion.describe(output, write(separator, output, int8=int8, float16=float16)))


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
