"""The initial weights of a run with `--init_from`."""

import json
import pathlib
from typing import Any

import keras
import numpy as np

from pipeline import errors, file_names


def load(path: str, model: Any) -> None:
    """Copies the weights of another separator with the same network into a separator.

    The other network may be a smaller one of the same class if the class has `parts`: parts that it
    lacks keep their initial values, and a message names them. It may also be the `guide` of the
    network alone. The normalisation constants stay those of the new dataset.

    Args:
        path: folder of a run, a `.keras` file, or a folder written by `export.saved_model`.
        model: the separator to be changed.

    Raises:
        UserError: there is no such model, or its network is different or does not fit.
    """
    place = pathlib.Path(path)
    if (place / file_names.MODEL_INFO).is_file():
        weights, other = _exported(place)
    else:
        file = place / file_names.BEST_MODEL if place.is_dir() else place
        if not file.is_file():
            raise errors.UserError(
                f"--init_from={path}: no such run (with {file_names.BEST_MODEL}), .keras file or "
                "exported model"
            )
        try:
            other = keras.saving.load_model(file, compile=False).network
        except Exception as error:  # Keras passes on any error of its zip, JSON or HDF5 readers.
            raise errors.UserError(
                f"--init_from={path}: {file} is damaged or no separator"
            ) from error
        weights = other.get_weights()
    own = model.network.get_weights()
    if _fits(model.network, weights):
        model.network.set_weights(weights)
        return
    guide = getattr(model.network, "guide", None)
    if guide is not None and _fits(guide, weights):
        guide.set_weights(weights)
        print(f"--init_from={path} is the guide: initial values elsewhere", flush=True)
        return
    missing = _grow(model.network, other) if type(other) is type(model.network) else None
    if missing is None:
        raise errors.UserError(
            f"--init_from={path} is another network or has another size "
            f"({sum(w.size for w in weights):,} weights, not {sum(w.size for w in own):,}); name "
            "the same --model with the same settings"
        )
    print(f"--init_from={path} lacks {', '.join(missing)}: initial values there", flush=True)


def _fits(network: Any, weights: list[np.ndarray]) -> bool:
    return [w.shape for w in network.get_weights()] == [w.shape for w in weights]


def _grow(network: Any, smaller: Any) -> list[str] | None:
    """Copies the weights of a smaller network into a network, part by part.

    Returns:
        Names of the parts that the smaller network lacks. None, without any change, if the networks
        have no parts or the parts do not fit.
    """
    if not hasattr(network, "parts"):
        return None
    own, given = network.parts(), {k: v.get_weights() for k, v in smaller.parts().items()}
    for name, weights in given.items():
        shapes = [w.shape for w in own[name].get_weights()] if name in own else None
        if shapes != [w.shape for w in weights]:
            return None
    for name, weights in given.items():
        own[name].set_weights(weights)
    return [name for name in own if name not in given]


def _exported(folder: pathlib.Path) -> tuple[list[np.ndarray], Any]:
    """Reads a SavedModel: its weights in Keras' order, and the network with them if they fit."""
    try:
        import tensorflow as tf
    except ImportError as error:
        raise errors.UserError(
            f"--init_from={folder}: an exported model can only be read with TensorFlow; name the "
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
    # Non-float variables are states of random number generators.
    weights = [v for v in variables if np.issubdtype(v.dtype, np.floating)]
    if sum(w.size for w in weights) < info.get("num_parameters", 0):
        raise errors.UserError(f"--init_from={folder} is damaged: it lacks weights")
    return weights, _network(info, weights)


def _network(info: dict[str, Any], weights: list[np.ndarray]) -> Any:
    """Builds the network described in an export's info; None if this version does not know it."""
    try:
        network = keras.saving.deserialize_keras_object(info["network"])
        if not network.built:
            network.build_from_config(info["network"]["build_config"])
        network.set_weights(weights)
    except Exception:  # As above, or any error of the constructor for another version's settings.
        return None
    return network
