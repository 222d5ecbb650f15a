"""Exports a trained model as a SavedModel that needs nothing but TensorFlow.

    python -m export.saved_model --model_dir=runs/lstm --output_dir=exported/lstm

The folder holds one signature to three. `serving_default` takes `waveform`, float32 [batch,
samples] at the model's rate, of any length and level, and gives `sources` [batch, voice, samples],
which add up to it. `masks`, which networks of waveforms lack, takes `log_magnitude` [batch, frame,
bin] and gives `masks` [batch, voice, frame, bin]. `stream`, of causal networks alone, separates
block by block: docs/streaming.md. Rate, number of voices and the network's settings are in
voices_apart.json beside them, and the run's log.csv.
"""

import os
import pathlib
import shutil
from typing import Any

from absl import flags

from export.outlets import formats, keras_model, model_info
from pipeline import cli, errors, file_names
from pipeline.io import atomic

# What an exported model consists of.
_OURS = frozenset(
    {
        "assets",
        "fingerprint.pb",
        file_names.MODEL_INFO,
        file_names.SAVED_MODEL,
        file_names.SAVED_VARIABLES,
        file_names.TRAINING_LOG,
    }
)


def write(
    separator: Any,
    output_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    log: str | os.PathLike[str] | None = None,
) -> model_info.ModelInfo:
    """Writes a separator as a SavedModel; the folder appears when it is whole.

    Args:
        separator: `models.separator.Separator`.
        output_dir: the folder to make.
        overwrite: replace an exported model that is there.
        log: the run's `log.csv`, of which the folder gets a copy: `export.evaluate` draws it.

    Returns:
        What `voices_apart.json` holds.

    Raises:
        UserError: the folder is there, and is no exported model or `overwrite` is not given.
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
            info = formats.SAVED_MODEL.converter(separator, temporary)
            if log is not None:
                shutil.copyfile(log, temporary / file_names.TRAINING_LOG)
    except tf.errors.OpError as error:
        # TensorFlow has its own exceptions for what the file system refuses.
        reason = errors.first_line(error)
        raise errors.UserError(f"{target} cannot be written: {reason}") from error
    return info


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
        "model_dir", None, "folder of trainer.task, or a .keras file; its best weights are taken",
        required=True,
    )  # fmt: skip
    flags.DEFINE_string("output_dir", None, "the folder to make", required=True)
    flags.DEFINE_bool("overwrite", False, "replace an exported model that is there")


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments:
        raise flags.Error(f"unknown argument {arguments[0]!r}")
    target = pathlib.Path(flags.FLAGS.output_dir).absolute()
    _check_target(target, flags.FLAGS.overwrite)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras_model.find(flags.FLAGS.model_dir)
    keras_model.hide_gpus()
    separator = keras_model.read(flags.FLAGS.model_dir)
    log = pathlib.Path(flags.FLAGS.model_dir) / file_names.TRAINING_LOG
    info = write(
        separator,
        flags.FLAGS.output_dir,
        overwrite=flags.FLAGS.overwrite,
        log=log if log.is_file() else None,
    )
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    print(
        f"{flags.FLAGS.output_dir}: {info.name}, {info.num_parameters:,} parameters, "
        f"{info.num_sources} voices, {info.sample_rate} Hz, {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
