"""What `export.lite` and `export.onnx` share: from any model to a separator, and to a file.

Converters print much and raise what they like. Here they are quiet, and what they raise becomes
one line; a file appears when it is whole and gives what the model gives.
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

# What a converted model may differ from the model by, in dB below it: as rounding does.
EXACT_DB = -60.0
# With weights of sixteen bits.
HALF_DB = -40.0
# With weights of eight bits.
COARSE_DB = -10.0
_SECONDS = 2.0
_SILENT_SECONDS = 0.5
# How converters say which operation they do not know.
_UNKNOWN = re.compile(r"'?(tf\.\w+)'? op (?:is neither|requires)|Tensorflow op \[[^:\]]*: (\w+)\]")


@dataclasses.dataclass(frozen=True)
class Written:
    """What came of a conversion.

    Attributes:
        info: what the file says of the model.
        num_bytes: of the file.
        difference_db: of its voices from the model's, below the model's.
    """

    info: model_info.ModelInfo
    num_bytes: int
    difference_db: float


def separator_of(path: str | os.PathLike[str]) -> Any:
    """The Keras model of any model, a SavedModel included, computing in float32 on the CPU.

    Args:
        path: folder of `export.saved_model` or of a trainer, or `.keras` file.

    Raises:
        UserError: there is none, or it is damaged, or it is of a runtime without Keras.
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
    """Converts, holds the result to the separator, and writes the file.

    Args:
        row: of the format.
        separator: `models.separator.BaseSeparator`, in float32.
        output: the file, which ends as the format's do, and replaces one that is there.
        allowed_db: by which the voices of noise may differ.
        **options: of the format's converter.

    Raises:
        UserError: the network cannot be converted, or the result gives something else; the line
            says why, and no file is left.
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
        except Exception as error:  # Converters and runtimes raise what they like.
            raise errors.UserError(f"{name} cannot be converted: {_line(error)}") from error
        num_bytes = draft.stat().st_size
    return Written(info, num_bytes, difference)


def check_suffix(row: formats.Format, output: pathlib.Path) -> None:
    """Raises UserError where a file does not end as those of the format do."""
    if output.suffix != row.suffix:
        raise errors.UserError(f"{output}: the ending of {row.name} files is {row.suffix}")


def describe(output: pathlib.Path, written: Written) -> str:
    """What a command prints in the end."""
    info = written.info
    return (
        f"{output}: {info.name}, {info.num_parameters:,} parameters, {info.num_sources} voices, "
        f"{info.sample_rate} Hz, {written.num_bytes / 1e6:.1f} MB; its voices differ from the "
        f"model's by {written.difference_db:.0f} dB"
    )


def difference_db(found: np.ndarray, expected: np.ndarray) -> float:
    """Energy of the difference below that of what is expected, in dB."""
    error = np.square(found.astype(np.float64) - expected).sum()
    return float(10 * np.log10((error + 1e-30) / (np.square(expected, dtype=float).sum() + 1e-30)))


def compare(separator: Any, model: loaded_model.LoadedModel, allowed_db: float) -> float:
    """By how much the voices of noise differ, in dB below the separator's.

    Raises:
        UserError: by more than `allowed_db`.
    """
    random = np.random.default_rng(0)
    samples = round(_SECONDS * model.sample_rate)
    envelope = np.repeat(random.uniform(0, 0.3, -(-samples // 800)), 800)[:samples]
    # Where a rounded constant turns a logarithm to infinity.
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
