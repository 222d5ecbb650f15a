"""Shared by `export.lite` and `export.onnx`: loads any model as a separator and converts it.

Converters print a lot and raise arbitrary exceptions. Here their output is suppressed and any
exception becomes a one-line error. A file appears only once it is complete and reproduces the
model's output.
"""

import dataclasses
import os
import pathlib
import re
from typing import Any

import numpy as np

from export.outlets import (
    formats,
    keras_model,
    loaded_model,
    model_info,
    tensorflow_model,
    terminal,
)
from pipeline import errors
from pipeline.io import atomic

# Largest allowed difference of a converted model's output, in dB relative to the model's: rounding.
EXACT_DB = -60.0
# The same with 16-bit weights.
HALF_DB = -40.0
# The same with 8-bit weights.
COARSE_DB = -10.0
_SECONDS = 2.0
_SILENT_SECONDS = 0.5
# How converters report an unsupported operation.
_UNKNOWN = re.compile(r"'?(tf\.\w+)'? op (?:is neither|requires)|Tensorflow op \[[^:\]]*: (\w+)\]")


@dataclasses.dataclass(frozen=True)
class Written:
    """The result of a conversion.

    Attributes:
        info: the model info stored in the file.
        num_bytes: the file's size.
        difference_db: difference between its voices and the model's, relative to the model's.
    """

    info: model_info.ModelInfo
    num_bytes: int
    difference_db: float


def separator_of(path: str | os.PathLike[str]) -> Any:
    """Loads any model, including a SavedModel, as a Keras model in float32 on the CPU.

    Args:
        path: folder of `export.saved_model` or of a training run, or `.keras` file.

    Raises:
        UserError: there is none, it is damaged, or its format cannot be loaded with Keras.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    keras_model.import_keras()
    keras_model.hide_gpus()
    from export.outlets import signatures

    if formats.of(path) is formats.SAVED_MODEL:
        return tensorflow_model.rebuild(pathlib.Path(path))
    return signatures.in_float32(keras_model.read(path))


def write(
    row: formats.Format,
    separator: Any,
    output: str | os.PathLike[str],
    allowed_db: float = EXACT_DB,
    **options: Any,
) -> Written:
    """Converts a separator, compares the result with it, and writes the file.

    Args:
        row: the format.
        separator: `models.separator.BaseSeparator`, in float32.
        output: the file, with the format's suffix; an existing one is replaced.
        allowed_db: the largest allowed difference between the outputs for a noise input.
        **options: options of the format's converter.

    Raises:
        UserError: the network cannot be converted, or the result differs from it; the message says
            why, and no file is left.
    """
    output = pathlib.Path(output)
    name = type(separator.network).__name__
    row.require_writers()
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(output) as draft:
        try:
            with terminal.quiet(1, 2):
                info = row.converter(separator, draft, **options)
                difference = compare(separator, row.load(draft), allowed_db)
        except (errors.UserError, OSError):
            raise
        except Exception as error:  # Converters and runtimes raise arbitrary exceptions.
            raise errors.UserError(f"{name} cannot be converted: {_line(error)}") from error
        num_bytes = draft.stat().st_size
    return Written(info, num_bytes, difference)


def check_suffix(row: formats.Format, output: pathlib.Path) -> None:
    """Raises UserError if a file does not have the format's suffix."""
    if output.suffix != row.suffix:
        raise errors.UserError(f"{output}: the ending of {row.name} files is {row.suffix}")


def describe(output: pathlib.Path, written: Written) -> str:
    """Returns the summary that a command prints at the end."""
    info = written.info
    return (
        f"{output}: {info.name}, {info.num_parameters:,} parameters, {info.num_sources} voices, "
        f"{info.sample_rate} Hz, {written.num_bytes / 1e6:.1f} MB; its voices differ from the "
        f"model's by {written.difference_db:.0f} dB"
    )


def difference_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Computes the energy of the difference relative to the expected signal, in dB."""
    error = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10((error + 1e-30) / (np.square(expected, dtype=float).sum() + 1e-30)))


def compare(separator: Any, model: loaded_model.LoadedModel, allowed_db: float) -> float:
    """Separates noise with both and returns the difference, in dB relative to the separator's.

    Raises:
        UserError: the difference exceeds `allowed_db`.
    """
    random = np.random.default_rng(0)
    samples = round(_SECONDS * model.sample_rate)
    envelope = np.repeat(random.uniform(0, 0.3, -(-samples // 800)), 800)[:samples]
    # In silence, a rounded constant can make a logarithm infinite.
    envelope[: round(_SILENT_SECONDS * model.sample_rate)] = 0
    mixture = (envelope * random.standard_normal(samples)).astype(np.float32)[np.newaxis]
    expected = np.asarray(separator(mixture, training=False))
    difference = difference_db(model.separate(mixture), expected)
    if not difference <= allowed_db:
        raise errors.UserError(
            f"{type(separator.network).__name__} cannot be converted: the result's voices differ "
            f"by {difference:.0f} dB"
        )
    return difference


def _line(error: BaseException) -> str:
    text = str(error).strip()
    unknown = {name for match in _UNKNOWN.findall(text) for name in match if name}
    if unknown:
        return f"there is no operation for {', '.join(sorted(unknown))}"
    return errors.first_line(error)
