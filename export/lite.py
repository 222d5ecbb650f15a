"""Writes a model for phones and small boards: a file that LiteRT (TensorFlow Lite) runs.

    python -m export.lite --model=exported/lstm --output=lstm.tflite
    python -m export.lite --model=runs/tcn --output=tcn.tflite --int8
    python -m export.separate mixture.wav --model=tcn.tflite

The file has the SavedModel's signatures, for one mixture at a time: `serving_default` takes
`waveform` [1, samples], of any length and level, and gives `sources` [1, voice, samples], which add
up to it; `masks` takes `log_magnitude` [1, frame, bin]. It holds LiteRT's own operations alone, and
what voices_apart.json says. With --float16 weights have sixteen bits: half the size. With --int8
they have eight, and what they are multiplied with is rounded to eight bits as well: a third to a
quarter of the size. docs/outlets.md has how far the voices then differ, which is little.

Before it gets its name, the file is run and held to the model. What LiteRT has no operations for is
said in one line, and leaves no file.
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
        output: the file, `*.tflite`; one that is there is replaced.
        int8: weights of eight bits (dynamic range).
        float16: weights of sixteen bits, computed with in float32.

    Raises:
        UserError: the network cannot be converted, or LiteRT is not installed.
        ValueError: both are asked for.
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
        "name of a model that comes with the package (default: the one that does)",
    )  # fmt: skip
    flags.DEFINE_string("output", None, "the file to write, *.tflite", required=True)
    flags.DEFINE_bool("int8", False, "weights of eight bits: a third to a quarter of the size")
    flags.DEFINE_bool("float16", False, "weights of sixteen bits: half the size")


def main(arguments: list[str]) -> None:
    """The command."""
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
