"""Loads a model of any format."""

import os
import pathlib

from export.outlets import formats, keras_model
from export.outlets.loaded_model import LoadedModel

__all__ = ["LoadedModel", "load"]


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a model.

    Args:
        path: a SavedModel folder from `export.saved_model`, a training run's `model_dir` (its best
            weights are used), a `.keras` file, or a file from `export.lite` or `export.onnx`.

    Raises:
        UserError: there is no such model, or it is damaged.
    """
    row = formats.of(path)
    if row is not None:
        return row.load(pathlib.Path(path))
    return keras_model.loaded(keras_model.read(path), os.fspath(path))
