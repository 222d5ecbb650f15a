"""The weights that a run starts from, where `--init_from` names some."""

import json
import pathlib
from typing import Any

import keras
import numpy as np

from pipeline import errors, file_names


def load(path: str, model: Any) -> None:
    """Gives a separator the weights of another of the same network.

    The normalisation stays the new dataset's.

    Args:
        path: a run's folder, a `.keras` file, or a folder that `export.saved_model` wrote.
        model: the separator.

    Raises:
        UserError: there is no such model, or it is of another network or size.
    """
    place = pathlib.Path(path)
    if (place / file_names.MODEL_INFO).is_file():
        weights = _exported(place)
    else:
        file = place / file_names.BEST_MODEL if place.is_dir() else place
        if not file.is_file():
            raise errors.UserError(
                f"--init_from={path}: no such run (with {file_names.BEST_MODEL}), .keras file or "
                "exported model"
            )
        try:
            weights = keras.saving.load_model(file, compile=False).network.get_weights()
        except Exception as error:  # Keras raises whatever its readers of zip, JSON and HDF5 do.
            raise errors.UserError(
                f"--init_from={path}: {file} is damaged or no separator"
            ) from error
    own = model.network.get_weights()
    if [w.shape for w in weights] != [w.shape for w in own]:
        raise errors.UserError(
            f"--init_from={path} is another network or has another size "
            f"({sum(w.size for w in weights):,} weights, not {sum(w.size for w in own):,}); name "
            "the same --model with the same settings"
        )
    model.network.set_weights(weights)


def _exported(folder: pathlib.Path) -> list[np.ndarray]:
    """Weights of a SavedModel's network, in Keras' order."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.UserError(
            f"--init_from={folder}: an exported model can be read with TensorFlow alone; name the "
            "run or .keras file that it was made from"
        ) from error
    try:
        info = json.loads((folder / file_names.MODEL_INFO).read_text(encoding="utf-8"))
        if not isinstance(info, dict):
            raise ValueError(f"{file_names.MODEL_INFO} holds no facts")
        reader = tf.train.load_checkpoint(str(folder / file_names.SAVED_VARIABLES / "variables"))
        count = len([n for n in reader.get_variable_to_shape_map() if n.startswith("weights/")])
        variables = [
            reader.get_tensor(f"weights/{i}/.ATTRIBUTES/VARIABLE_VALUE") for i in range(count)
        ]
    except (OSError, ValueError, RecursionError, tf.errors.OpError) as error:
        raise errors.UserError(f"--init_from={folder} is damaged: {error}") from error
    # What is no float is the state of random numbers.
    weights = [v for v in variables if np.issubdtype(v.dtype, np.floating)]
    if sum(w.size for w in weights) < info.get("num_parameters", 0):
        raise errors.UserError(f"--init_from={folder} is damaged: it lacks weights")
    return weights
