"""The SavedModel format: a folder that TensorFlow loads without Keras."""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from export.outlets import loaded_model, model_info, terminal
from pipeline import errors, file_names


def is_here(path: pathlib.Path) -> bool:
    """Returns whether the path is a SavedModel folder, even an incomplete one."""
    return any((path / name).is_file() for name in (file_names.SAVED_MODEL, file_names.MODEL_INFO))


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that determine the model's output."""
    return [
        folder / file_names.SAVED_MODEL,
        *sorted((folder / file_names.SAVED_VARIABLES).glob("*")),
    ]


def read_info(folder: pathlib.Path) -> model_info.ModelInfo:
    """Reads the model info.

    Raises:
        UserError: it is missing or damaged.
    """
    file = folder / file_names.MODEL_INFO
    if not file.is_file():
        raise errors.UserError(
            f"{folder} is a SavedModel, but not one of export.saved_model: it has no "
            f"{file_names.MODEL_INFO}"
        )
    try:
        return model_info.ModelInfo.from_json(file.read_text(encoding="utf-8"))
    except (errors.UserError, OSError, UnicodeDecodeError) as error:
        raise errors.UserError(f"{folder}: {error}; export the model again") from error


def load(folder: pathlib.Path, tf: Any) -> loaded_model.LoadedModel:
    """Loads the model from a SavedModel folder.

    Args:
        folder: a folder written by `export.saved_model`.
        tf: the module `tensorflow`.

    Raises:
        UserError: the model is damaged.
    """
    info = read_info(folder)
    try:
        module = tf.saved_model.load(str(folder))
        separate = module.signatures["serving_default"]
        masks = module.signatures["masks"] if "masks" in info.signatures else None
        stream = module.signatures["stream"] if "stream" in info.signatures else None
    except Exception as error:  # OSError, ValueError, KeyError, and all of tf.errors.
        raise errors.UserError(
            f"{folder} is damaged ({errors.first_line(error)}); export the model again"
        ) from error

    # Keeps the module alive: its signatures do not keep its variables alive.
    def run(function: Any, name: str, values: np.ndarray, output: str, _: Any = module) -> Any:
        return function(**{name: tf.constant(values)})[output].numpy()

    def step(inputs: dict[str, Any], _: Any = module) -> dict[str, Any]:
        assert stream is not None
        return stream(**{name: tf.convert_to_tensor(value) for name, value in inputs.items()})

    return loaded_model.LoadedModel(
        info,
        str(folder),
        lambda waveform: run(separate, "waveform", waveform, "sources"),
        None if masks is None else lambda values: run(masks, "log_magnitude", values, "masks"),
        None if stream is None else step,
    )


def convert(separator: Any, folder: pathlib.Path, *, float16: bool = False) -> model_info.ModelInfo:
    """Writes a separator as a SavedModel folder.

    Args:
        separator: `models.separator.BaseSeparator`, in float32.
        folder: the folder to create.
        float16: store 16-bit weights; computation stays in float32.
    """
    import tensorflow as tf

    from export.outlets import signatures
    from models.layers import fused_lstm

    info = signatures.describe(separator)
    module = tf.Module()
    # Plain variables: a Keras layer as attribute would be saved with all its Python state.
    module.weights = [
        _in_float16(variable.value) if float16 else variable.value
        for variable in separator.variables
    ]
    with fused_lstm.fusing(separator):
        functions = {
            name: _reading(function, separator.variables, module.weights).get_concrete_function()
            for name, function in signatures.functions(separator).items()
        }
    with terminal.quiet(2):
        tf.saved_model.save(module, str(folder), signatures=functions)
    (folder / file_names.MODEL_INFO).write_text(info.to_json(), encoding="utf-8")
    return info


def _in_float16(variable: Any) -> Any:
    """Returns a float16 copy of a large float32 variable, and any other variable unchanged."""
    import tensorflow as tf

    many = variable.shape.num_elements() >= model_info.SMALLEST_WEIGHTS
    if variable.dtype != tf.float32 or not many:
        return variable
    return tf.Variable(tf.cast(variable, tf.float16), trainable=False)


def _reading(function: Any, variables: Sequence[Any], stored: Sequence[Any]) -> Any:
    """Makes a function use the stored values, cast to float32, instead of Keras' variables."""
    import keras
    import tensorflow as tf

    changed = [
        (variable, value)
        for variable, value in zip(variables, stored, strict=True)
        if value is not variable.value
    ]
    if not changed:
        return function

    @functools.wraps(function.python_function)
    def run(*arguments: Any) -> Any:
        values = [(variable, tf.cast(value, tf.float32)) for variable, value in changed]
        # Code traced in this scope uses these values for the variables.
        with keras.StatelessScope(state_mapping=values):
            return function(*arguments)

    return tf.function(run, input_signature=function.input_signature, autograph=False)


def rebuild(folder: pathlib.Path) -> Any:
    """Rebuilds the Keras model that a SavedModel folder was written from, in float32.

    Raises:
        UserError: the folder is damaged, or its network's class is not available.
    """
    import keras
    import tensorflow as tf

    # These register the classes that the settings refer to.
    import models.registry  # noqa: F401
    from models import separator as separator_lib

    info = read_info(folder)
    try:
        separator = separator_lib.wrap(
            keras.saving.deserialize_keras_object(dict(info.network)),
            mean=info.constants.get("mean", 0.0),
            deviation=info.constants.get("deviation", 1.0),
            active_level_db=info.constants["active_level_db"],
            sample_rate=info.sample_rate,
            num_sources=info.num_sources,
        )
        separator.build((None, None))
        saved = tf.saved_model.load(os.fspath(folder))
        for variable, value in zip(separator.variables, saved.weights, strict=True):
            variable.assign(tf.cast(value, variable.dtype))
    except Exception as error:  # Keras passes on any error of its readers.
        raise errors.UserError(
            f"{folder}: its network cannot be built again ({errors.first_line(error)}); convert "
            f"the trainer's folder or its {file_names.BEST_MODEL} instead"
        ) from error
    return separator
