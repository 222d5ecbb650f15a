"""One way to load a model, whatever it was saved as: SavedModel, trainer's folder, `.keras` file.

A SavedModel needs TensorFlow alone; Keras is imported for the other two.
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from export.outlets import model_info
from pipeline import errors

BEST_FILE = "best.keras"
_GRAPH_FILE = "saved_model.pb"

_Function = Callable[[np.ndarray], np.ndarray]
# Named inputs of a signature to its named outputs, NumPy's or TensorFlow's.
_Step = Callable[[dict[str, Any]], dict[str, Any]]


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
        stream: _Step | None = None,
    ) -> None:
        """Puts a model together; `load` is what people call.

        Args:
            info: its facts.
            path: where it came from.
            separate: float32 `[batch, sample]` to float32 `[batch, source, sample]`.
            masks: float32 `[batch, frame, bin]` to `[batch, source, frame, bin]`, if it has masks.
            stream: the signature `stream`, if its network is causal.
        """
        self.info = info
        self.path = path
        self._separate = separate
        self._masks = masks
        self._stream = stream

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

    def initial_state(self) -> dict[str, Any]:
        """What `stream` starts from.

        Raises:
            UserError: the network was not trained causally.
        """
        if self._stream is None or self.info.stream is None:
            raise errors.UserError(
                f"{self.path}: this network ({self.name}) hears what comes later and cannot follow "
                "a stream; train with --model=lstm, or causally with --model=tcn or "
                "--model=conv_tasnet and --network=causal=true"
                + (" (or export it again: an older version did)" if self.info.format < 2 else "")
            )
        tensors = self.info.stream.state.items()
        return {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in tensors}

    def stream(
        self, waveform: np.ndarray, length: int, gain_db: float, state: dict[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The next samples of a stream; `export.separation.stream.Stream` is what people use.

        Args:
            waveform: float32 `[1, k · info.stream.hop]`, full scale 1.
            length: how many of them are the signal's: all, but at its end.
            gain_db: what the mixture is changed by before the network sees it.
            state: `initial_state`, or that of the call before.

        Returns:
            float32 `[1, source, k · hop]`, `info.stream.delay` samples behind the waveform, and the
            new state.
        """
        assert self._stream is not None, "initial_state raises"
        inputs = {
            "waveform": _of_rank(waveform, 2),
            "length": np.int32(length),
            "gain_db": np.float32(gain_db),
        }
        outputs = dict(self._stream({**inputs, **state}))
        return outputs.pop("sources").numpy(), outputs


def load(path: str | os.PathLike[str]) -> LoadedModel:
    """Loads a model.

    Args:
        path: folder of a SavedModel that `export.saved_model` wrote, a trainer's `model_dir` (its
            best weights are taken), a `.keras` file, or a file of `export.lite` or `export.onnx`.

    Raises:
        UserError: no such model, or it is damaged.
    """
    if is_saved_model(path):
        return _load_saved_model(pathlib.Path(path))
    if is_portable(path):
        from export.separation import runtimes

        return runtimes.load(path)
    return from_separator(load_separator(path), os.fspath(path))


def is_saved_model(path: str | os.PathLike[str]) -> bool:
    """Whether `load` will treat `path` as a SavedModel, for which it needs no Keras."""
    folder = pathlib.Path(path)
    return (folder / _GRAPH_FILE).is_file() or (folder / model_info.FILE).is_file()


def is_portable(path: str | os.PathLike[str]) -> bool:
    """Whether `load` will treat `path` as a file of LiteRT or ONNX, without TensorFlow."""
    return pathlib.Path(path).suffix in (".tflite", ".onnx") and not pathlib.Path(path).is_dir()


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
    from export.outlets import signatures

    separator = signatures.in_float32(separator)
    functions = signatures.functions(separator)
    masks = functions.get(signatures.MASKS)
    stream = functions.get(signatures.STREAM)

    def step(inputs: dict[str, Any]) -> dict[str, Any]:
        assert stream is not None
        own = [inputs.pop(name) for name in ("waveform", "length", "gain_db")]
        return stream(*own, inputs)

    return LoadedModel(
        signatures.describe(separator),
        path,
        lambda waveform: functions[signatures.WAVEFORM](waveform)["sources"].numpy(),
        None if masks is None else lambda magnitude: masks(magnitude)["masks"].numpy(),
        None if stream is None else step,
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


def hide_gpus() -> None:
    """Keeps graphs that are about to be traced free of operations that only a GPU has.

    Keras' recurrent layers write such where they see one.

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
        stream = module.signatures["stream"] if "stream" in info.signatures else None
    except Exception as error:  # OSError, ValueError, KeyError, and all of tf.errors.
        raise errors.UserError(
            f"{folder} is damaged ({_first_line(error)}); export the model again"
        ) from error

    # The module has to live as long as its signatures: they do not keep its variables alive.
    def run(function: Any, name: str, values: np.ndarray, output: str, _: Any = module) -> Any:
        return function(**{name: tf.constant(values)})[output].numpy()

    def step(inputs: dict[str, Any], _: Any = module) -> dict[str, Any]:
        assert stream is not None
        return stream(**{name: tf.convert_to_tensor(value) for name, value in inputs.items()})

    return LoadedModel(
        info,
        str(folder),
        lambda waveform: run(separate, "waveform", waveform, "sources"),
        None if masks is None else lambda values: run(masks, "log_magnitude", values, "masks"),
        None if stream is None else step,
    )


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != rank:
        raise ValueError(f"{rank} axes are needed, not those of shape {array.shape}")
    return array


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
