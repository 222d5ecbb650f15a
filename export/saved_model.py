"""Exports a trained model as a SavedModel that needs only TensorFlow.

    python -m export.saved_model --model_dir=runs/lstm --output_dir=exported/lstm
    python -m export.separate mixture.wav --model=exported/lstm

The model has up to three signatures. `serving_default` takes `waveform`, float32 [batch, samples]
at the model's rate, of any length and level, and returns `sources` [batch, voice, samples], which
add up to it. `masks`, absent for time-domain networks, takes `log_magnitude` [batch, frame, bin]
and returns `masks` [batch, voice, frame, bin]. `stream`, only for causal networks, separates block
by block: see docs/streaming.md. The folder also holds voices_apart.json, with the rate, the number
of voices and the network's settings, and the run's log.csv.

The folder's model.tflite is the same model for LiteRT (export.lite), with which export.separate and
export.serve start in a fraction of TensorFlow's time. If LiteRT lacks an operation, the file is
omitted, and a message says so.

With --float16, both store 16-bit weights, for about half the size; computation stays in float32.
"""

import dataclasses
import os
import pathlib
import shutil
import sys
from typing import Any

from absl import flags

from export.outlets import conversion, formats, keras_model, model_info
from pipeline import cli, errors, file_names
from pipeline.io import atomic

# The files of an exported model.
_OURS = frozenset(
    {
        "assets",
        "fingerprint.pb",
        file_names.LITE_MODEL,
        file_names.MODEL_INFO,
        file_names.SAVED_MODEL,
        file_names.SAVED_VARIABLES,
        file_names.TRAINING_LOG,
    }
)


@dataclasses.dataclass(frozen=True)
class Exported:
    """The result of an export.

    Attributes:
        info: the content of `voices_apart.json`.
        lite: the result for `model.tflite`; None if there is none.
        lite_problem: why there is none, on one line; empty if it was not requested.
    """

    info: model_info.ModelInfo
    lite: conversion.Written | None = None
    lite_problem: str = ""


def write(
    separator: Any,
    output_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    log: str | os.PathLike[str] | None = None,
    lite: bool = True,
    float16: bool = False,
) -> Exported:
    """Writes a separator as a SavedModel; the folder appears once it is complete.

    Args:
        separator: `models.separator.Separator`.
        output_dir: the folder to create.
        overwrite: replace an existing exported model.
        log: the run's `log.csv`, copied to the folder so that `export.evaluate` can draw it.
        lite: also write `model.tflite`, if the network can be converted and LiteRT is installed.
        float16: store 16-bit weights in both.

    Raises:
        UserError: the folder exists and is not an exported model or `overwrite` is not set; or the
            network loses too much accuracy with 16-bit weights.
    """
    target = pathlib.Path(output_dir).absolute()
    _check_target(target, overwrite)
    keras_model.import_keras()
    import tensorflow as tf

    from export.outlets import signatures

    separator = signatures.in_float32(separator)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with atomic.replacing(target) as temporary:
            row = formats.SAVED_MODEL
            exported = Exported(row.converter(separator, temporary, float16=float16))
            if float16:
                conversion.compare(separator, row.load(temporary), conversion.HALF_DB)
            if log is not None:
                shutil.copyfile(log, temporary / file_names.TRAINING_LOG)
            if lite:
                exported = _with_lite(exported, separator, temporary, float16)
    except tf.errors.OpError as error:
        # TensorFlow has its own exceptions for file-system errors.
        reason = errors.first_line(error)
        raise errors.UserError(f"{target} cannot be written: {reason}") from error
    return exported


def _with_lite(exported: Exported, separator: Any, folder: pathlib.Path, float16: bool) -> Exported:
    file = folder / file_names.LITE_MODEL
    allowed_db = conversion.HALF_DB if float16 else conversion.EXACT_DB
    try:
        written = conversion.write(formats.LITERT, separator, file, allowed_db, float16=float16)
    except errors.UserError as error:
        return dataclasses.replace(exported, lite_problem=str(error))
    return dataclasses.replace(exported, lite=written)


def _check_target(target: pathlib.Path, overwrite: bool) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if not target.exists():
        return
    if formats.of(target) is not formats.SAVED_MODEL:
        raise errors.UserError(f"{target} is there and is no exported model; choose another folder")
    if not overwrite:
        raise errors.UserError(f"{target} holds a model; --overwrite replaces it")
    others = sorted(path.name for path in target.iterdir() if path.name not in _OURS)
    if others or not (target / file_names.MODEL_INFO).exists():
        what = others[0] if others else "a model of another program"
        raise errors.UserError(
            f"{target} holds {what}, which --overwrite would remove; choose another folder"
        )


def _define_flags() -> None:
    flags.DEFINE_string(
        "model_dir", None, "folder of trainer.task, or a .keras file; its best weights are used",
        required=True,
    )  # fmt: skip
    flags.DEFINE_string("output_dir", None, "the folder to create", required=True)
    flags.DEFINE_bool("overwrite", False, "replace an existing exported model")
    flags.DEFINE_bool("lite", True, f"also write {file_names.LITE_MODEL}, if possible")
    flags.DEFINE_bool("float16", False, "store 16-bit weights: half the size")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments:
        raise flags.Error(f"unknown argument {arguments[0]!r}")
    options = flags.FLAGS
    target = pathlib.Path(options.output_dir).absolute()
    _check_target(target, options.overwrite)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras_model.find(options.model_dir)
    keras_model.hide_gpus()
    separator = keras_model.read(options.model_dir)
    log = pathlib.Path(options.model_dir) / file_names.TRAINING_LOG
    exported = write(
        separator,
        options.output_dir,
        overwrite=options.overwrite,
        log=log if log.is_file() else None,
        lite=options.lite,
        float16=options.float16,
    )
    info = exported.info
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(
        f"{options.output_dir}: {info.name}, {info.num_parameters:,} parameters, "
        f"{info.num_sources} voices, {info.sample_rate} Hz, {size / 1e6:.1f} MB"
    )
    if exported.lite is not None:
        print(
            f"{file_names.LITE_MODEL} in it is the same for LiteRT, to "
            f"{exported.lite.difference_db:.0f} dB; export.separate takes it"
        )
    if exported.lite_problem:
        print(f"note: no {file_names.LITE_MODEL}: {exported.lite_problem}", file=sys.stderr)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
