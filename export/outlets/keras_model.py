"""Models saved by Keras: a training run's folder, or a `.keras` file. Loading them needs Keras."""

import os
import pathlib
import sys
from typing import Any

from export.outlets import loaded_model
from pipeline import errors, file_names


def find(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the `.keras` file at `path`, which is the file or the training run's folder.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(path)
    kinds = (
        "a folder of export.saved_model, a folder of trainer.task (--model_dir), or a .keras file"
    )
    if path.is_dir():
        if (path / file_names.BEST_MODEL).is_file():
            return path / file_names.BEST_MODEL
        if (path / file_names.RUN_CONFIG).is_file():
            raise errors.UserError(
                f"{path} has no {file_names.BEST_MODEL} yet: its run of trainer.task has not ended "
                "an epoch"
            )
        raise errors.UserError(f"{path} is no model; a model is {kinds}")
    if not path.exists():
        raise errors.UserError(f"no such model: {path}; a model is {kinds}")
    if path.suffix != ".keras":
        raise errors.UserError(f"{path} is no model; a model is {kinds}")
    return path


def read(path: str | os.PathLike[str]) -> Any:
    """Loads the Keras model (`models.separator.Separator`) of a training run or a `.keras` file.

    Raises:
        UserError: there is none, it is damaged, or Keras runs on another backend.
    """
    file = find(path)
    keras = import_keras()
    # These register the classes that the file refers to.
    import models.registry
    import models.separator  # noqa: F401

    try:
        separator = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras passes on errors of its zip, JSON and HDF5 readers.
        raise errors.UserError(
            f"{file} is damaged or no Keras model ({errors.first_line(error)})"
        ) from error
    if not hasattr(separator, "num_sources"):
        raise errors.UserError(
            f"{file} holds a bare {type(separator).__name__}; needed is a whole separator, such as "
            f"the {file_names.BEST_MODEL} that trainer.task writes"
        )
    return separator


def loaded(separator: Any, path: str = "") -> loaded_model.LoadedModel:
    """Wraps a separator in memory so that it runs as its SavedModel would."""
    from export.outlets import signatures

    separator = signatures.in_float32(separator)
    functions = signatures.functions(separator)
    masks = functions.get(signatures.MASKS)
    stream = functions.get(signatures.STREAM)

    def step(inputs: dict[str, Any]) -> dict[str, Any]:
        assert stream is not None
        own = [inputs.pop(name) for name in ("waveform", "length", "gain_db")]
        return stream(*own, inputs)

    return loaded_model.LoadedModel(
        signatures.describe(separator),
        path,
        lambda waveform: functions[signatures.WAVEFORM](waveform)["sources"].numpy(),
        None if masks is None else lambda magnitude: masks(magnitude)["masks"].numpy(),
        None if stream is None else step,
    )


def import_keras() -> Any:
    """Imports Keras with the TensorFlow backend, which export needs for models of any backend.

    Raises:
        UserError: this process has already imported Keras with another backend.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    if keras.backend.backend() != "tensorflow":
        raise errors.UserError(
            f"this process runs Keras on {keras.backend.backend()}; loading a .keras file for "
            "separation needs KERAS_BACKEND=tensorflow"
        )
    return keras


def hide_gpus() -> None:
    """Hides GPUs, so that graphs traced from now on have no GPU-only operations.

    Keras' recurrent layers use such operations when a GPU is visible.

    Raises:
        UserError: this process has already used a GPU.
    """
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:
        raise errors.UserError(
            "this process has already used a GPU; export or convert in a process of its own"
        ) from error
