"""The weights that a run starts from, where `--init_from` names some."""

import json
import pathlib
from typing import Any

import keras
import numpy as np

from pipeline import errors, file_names


def load(path: str, model: Any) -> None:
    """Gives a separator the weights of another of the same network.

    The other may be a smaller network of the same class, if that has `parts`: what it lacks keeps
    its initial values, and a line says what that is. The normalisation stays the new dataset's.

    Args:
        path: a run's folder, a `.keras` file, or a folder that `export.saved_model` wrote.
        model: the separator.

    Raises:
        UserError: there is no such model, or it is of another network or does not fit into this.
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
        except Exception as error:  # Keras raises whatever its readers of zip, JSON and HDF5 do.
            raise errors.UserError(
                f"--init_from={path}: {file} is damaged or no separator"
            ) from error
        weights = other.get_weights()
    own = model.network.get_weights()
    if [w.shape for w in weights] == [w.shape for w in own]:
        model.network.set_weights(weights)
        return
    missing = _grow(model.network, other) if type(other) is type(model.network) else None
    if missing is None:
        raise errors.UserError(
            f"--init_from={path} is another network or has another size "
            f"({sum(w.size for w in weights):,} weights, not {sum(w.size for w in own):,}); name "
            "the same --model with the same settings"
        )
    print(f"--init_from={path} lacks {', '.join(missing)}: initial values there", flush=True)


def _grow(network: Any, smaller: Any) -> list[str] | None:
    """Gives a network the weights of a smaller one, part by part.

    Returns:
        Names of the parts that the smaller one lacks; None, and nothing is changed, if they have no
        parts or those do not fit.
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
    """Weights of a SavedModel's network, in Keras' order, and the network with them if it fits."""
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
    return weights, _network(info, weights)


def _network(info: dict[str, Any], weights: list[np.ndarray]) -> Any:
    """The network that the facts of an export describe; None if this version does not know it."""
    try:
        network = keras.saving.deserialize_keras_object(info["network"])
        if not network.built:
            network.build_from_config(info["network"]["build_config"])
        network.set_weights(weights)
    except Exception:  # As above, and what the constructor of another version's network raises.
        return None
    return network
