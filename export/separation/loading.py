"""One way to load a model, whatever it was saved as."""

import os
import pathlib

from export.outlets import formats, keras_model
from export.outlets.loaded_model import LoadedModel

__all__ = ["LoadedModel", "load"]


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a model.

    Args:
        path: folder of a SavedModel that `export.saved_model` wrote, a trainer's `model_dir` (its
            best weights are taken), a `.keras` file, or a file of `export.lite` or `export.onnx`.

    Raises:
        UserError: no such model, or it is damaged.
    """
    row = formats.of(path)
    if row is not None:
        return row.load(pathlib.Path(path))
    return keras_model.loaded(keras_model.read(path), os.fspath(path))
