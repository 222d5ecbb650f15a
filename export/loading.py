"""One way to load a model, whatever it was saved as: SavedModel, trainer's folder, `.keras` file.

A SavedModel needs TensorFlow alone; Keras is imported for the other two.
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from export import model_info
from pipeline import errors

BEST_FILE = "best.keras"
_GRAPH_FILE = "saved_model.pb"

_Function = Callable[[np.ndarray], np.ndarray]


class LoadedModel:
    """A model that is ready to separate.

    Attributes:
        info: its facts.
        path: where it came from.
    """

    def __init__(
        self,
        info: model_info.ModelInfo,
        path: str,
        separate: _Function,
        masks: _Function | None = None,
    ) -> None:
        """Puts a model together; `load` is what people call.

        Args:
            info: its facts.
            path: where it came from.
            separate: float32 `[batch, sample]` to float32 `[batch, source, sample]`.
            masks: float32 `[batch, frame, bin]` to `[batch, source, frame, bin]`, if it has masks.
        """
        self.info = info
        self.path = path
        self._separate = separate
        self._masks = masks

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return self.info.sample_rate

    @property
    def num_sources(self) -> int:
        """Voices that it gives."""
        return self.info.num_sources

    @property
    def name(self) -> str:
        """The network's."""
        return self.info.name

    def separate(self, waveform: np.ndarray) -> np.ndarray:
        """The voices of each mixture; they add up to it.

        Args:
            waveform: float32 `[batch, sample]` at `sample_rate`, of any level.

        Returns:
            float32 `[batch, source, sample]`.
        """
        return self._separate(_of_rank(waveform, 2))

    def masks(self, log_magnitude: np.ndarray) -> np.ndarray:
        """The masks of all voices.

        Args:
            log_magnitude: float32 `[batch, frame, bin]` of a mixture at the level that the model
                was trained at, as the dataset's records have it.

        Returns:
            float32 `[batch, source, frame, bin]`.

        Raises:
            UserError: the network works on waveforms and has no masks.
        """
        if self._masks is None:
            raise errors.UserError(f"{self.path}: the network {self.name} has no masks")
        return self._masks(_of_rank(log_magnitude, 3))


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a model.

    Args:
        path: folder of a SavedModel that `export.saved_model` wrote, a trainer's `model_dir` (its
            best weights are taken), or a `.keras` file.

    Raises:
        UserError: no such model, or it is damaged.
    """
    if is_saved_model(path):
        return _load_saved_model(pathlib.Path(path))
    return from_separator(load_separator(path), os.fspath(path))


def is_saved_model(path: str | os.PathLike[str]) -> bool:
    """Whether `load` will treat `path` as a SavedModel, for which it needs no Keras."""
    folder = pathlib.Path(path)
    return (folder / _GRAPH_FILE).is_file() or (folder / model_info.FILE).is_file()


def load_separator(path: str | os.PathLike[str]) -> Any:
    """The Keras model (`models.separator.Separator`) in a trainer's folder or a `.keras` file.

    Raises:
        UserError: there is none, it is damaged, or Keras runs on another backend.
    """
    file = keras_file(path)
    keras = import_keras()
    # These register what the file names.
    import models.registry
    import models.separator  # noqa: F401

    try:
        separator = keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever its readers of zip, JSON and HDF5 do.
        raise errors.UserError(
            f"{file} is damaged or no Keras model ({_first_line(error)})"
        ) from error
    if not hasattr(separator, "num_sources"):
        raise errors.UserError(
            f"{file} holds a bare {type(separator).__name__}; needed is a whole separator, such as "
            f"the {BEST_FILE} that trainer.task writes"
        )
    return separator


def from_separator(separator: Any, path: str = "") -> LoadedModel:
    """A separator that is in memory, run as its SavedModel would be."""
    from export import signatures

    separator = signatures.in_float32(separator)
    functions = signatures.functions(separator)
    masks = functions.get(signatures.MASKS)
    return LoadedModel(
        signatures.describe(separator),
        path,
        lambda waveform: functions[signatures.WAVEFORM](waveform)["sources"].numpy(),
        None if masks is None else lambda magnitude: masks(magnitude)["masks"].numpy(),
    )


def keras_file(path: str | os.PathLike[str]) -> pathlib.Path:
    """The `.keras` file that `path` names, as such or as the trainer's folder that holds it.

    Raises:
        UserError: there is none.
    """
    path = pathlib.Path(path)
    kinds = (
        "a folder of export.saved_model, a folder of trainer.task (--model_dir), or a .keras file"
    )
    if path.is_dir():
        if (path / BEST_FILE).is_file():
            return path / BEST_FILE
        if (path / "config.json").is_file():
            raise errors.UserError(
                f"{path} has no {BEST_FILE} yet: its run of trainer.task has not ended an epoch"
            )
        raise errors.UserError(f"{path} is no model; a model is {kinds}")
    if not path.exists():
        raise errors.UserError(f"no such model: {path}; a model is {kinds}")
    if path.suffix != ".keras":
        raise errors.UserError(f"{path} is no model; a model is {kinds}")
    return path


def import_keras() -> Any:
    """Keras on TensorFlow, which is what models are exported with, whatever they were trained on.

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


def _load_saved_model(folder: pathlib.Path) -> LoadedModel:
    info_file = folder / model_info.FILE
    if not info_file.is_file():
        raise errors.UserError(
            f"{folder} is a SavedModel, but not one of export.saved_model: it has no "
            f"{model_info.FILE}"
        )
    try:
        info = model_info.ModelInfo.from_json(info_file.read_text(encoding="utf-8"))
    except (errors.UserError, UnicodeDecodeError) as error:
        raise errors.UserError(f"{folder}: {error}; export the model again") from error

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    try:
        module = tf.saved_model.load(str(folder))
        separate = module.signatures["serving_default"]
        masks = module.signatures["masks"] if "masks" in info.signatures else None
    except Exception as error:  # OSError, ValueError, KeyError, and all of tf.errors.
        raise errors.UserError(
            f"{folder} is damaged ({_first_line(error)}); export the model again"
        ) from error

    # The module has to live as long as its signatures: they do not keep its variables alive.
    def run(function: Any, name: str, values: np.ndarray, output: str, _: Any = module) -> Any:
        return function(**{name: tf.constant(values)})[output].numpy()

    return LoadedModel(
        info,
        str(folder),
        lambda waveform: run(separate, "waveform", waveform, "sources"),
        None if masks is None else lambda values: run(masks, "log_magnitude", values, "masks"),
    )


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != rank:
        raise ValueError(f"{rank} axes are needed, not those of shape {array.shape}")
    return array


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
