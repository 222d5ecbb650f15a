"""The table of what a model is exported to, and what reads it: another format is another row.

A row is found by the path of a model. What no row fits is a model of Keras
(`export.outlets.keras_model`).
"""

import dataclasses
import importlib
import importlib.util
import os
import pathlib
from collections.abc import Callable
from typing import Any

from export.outlets import litert, loaded_model, model_info, onnx_model, tensorflow_model
from pipeline import errors, file_names


@dataclasses.dataclass(frozen=True)
class Format:
    """One row.

    Attributes:
        name: of what runs it, for people.
        suffix: of its files; empty where a model is a folder.
        runtime: the module that runs it.
        extra: of this package, which installs the runtime; empty where the package itself does.
        writers: further modules that writing one takes.
        loader: from a path and the runtime's module to the model.
        converter: writes a separator (`models.separator.BaseSeparator`) to a path, and gives what
            it says of itself; raises what TensorFlow and converters raise.
        reader: from a path to what the model says of itself, where that does not take loading it.
    """

    name: str
    suffix: str
    runtime: str
    extra: str
    writers: tuple[str, ...]
    loader: Callable[[pathlib.Path, Any], loaded_model.LoadedModel]
    converter: Callable[..., model_info.ModelInfo]
    reader: Callable[[pathlib.Path], model_info.ModelInfo] | None = None

    @property
    def is_installed(self) -> bool:
        """Whether its runtime is."""
        # Not of the module itself: looking for that imports its package.
        return importlib.util.find_spec(self.runtime.partition(".")[0]) is not None

    def require(self) -> Any:
        """The module that runs it.

        Raises:
            UserError: it is not installed.
        """
        try:
            return importlib.import_module(self.runtime)
        except ModuleNotFoundError as error:
            raise errors.UserError(
                f"{self.suffix or 'SavedModel'} files are run by {self.name}, which is not "
                f"installed: pip install {self._package}"
            ) from error

    @property
    def _package(self) -> str:
        return f"'voices-apart[{self.extra}]'" if self.extra else self.runtime

    def require_writers(self) -> None:
        """Raises UserError where one cannot be written, or not be held to the model afterwards."""
        self.require()
        for module in self.writers:
            if importlib.util.find_spec(module) is None:
                raise errors.UserError(
                    f"{self.suffix} files are written by {module}, which is not installed: "
                    f"pip install {self._package}"
                )

    def load(self, path: pathlib.Path) -> loaded_model.LoadedModel:
        """The model at a path.

        Raises:
            UserError: there is none, it is damaged, or its runtime is not installed.
        """
        if not path.exists():
            raise errors.UserError(f"no such model: {path}")
        if self.runtime == "tensorflow":
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return self.loader(path, self.require())

    def files(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Those that decide what the model at a path gives."""
        return [path] if self.suffix else tensorflow_model.files(path)

    def read_info(self, path: pathlib.Path) -> model_info.ModelInfo:
        """What the model at a path says of itself; raises as `load` does."""
        return self.reader(path) if self.reader and path.exists() else self.load(path).info


SAVED_MODEL = Format(
    "TensorFlow", "", "tensorflow", "", (),
    tensorflow_model.load, tensorflow_model.convert, tensorflow_model.read_info,
)  # fmt: skip
LITERT = Format(
    "LiteRT", ".tflite", "ai_edge_litert.interpreter", "lite", ("tensorflow",),
    litert.load, litert.convert, litert.read_info,
)  # fmt: skip
ONNX = Format(
    "ONNX Runtime", ".onnx", "onnxruntime", "onnx", ("tensorflow", "tf2onnx"),
    onnx_model.load, onnx_model.convert,
)  # fmt: skip
FORMATS = (SAVED_MODEL, LITERT, ONNX)
SUFFIXES = tuple(row.suffix for row in FORMATS if row.suffix)


def of(path: str | os.PathLike[str]) -> Format | None:
    """The row that a path belongs to, whether or not a whole model is there; None for Keras'."""
    path = pathlib.Path(path)
    if path.is_dir():
        return SAVED_MODEL if tensorflow_model.is_here(path) else None
    return next((row for row in FORMATS if row.suffix and row.suffix == path.suffix), None)


def quickest(path: str | os.PathLike[str]) -> pathlib.Path:
    """The file of LiteRT that lies in a SavedModel's folder, where LiteRT is here; else the path.

    The voices are the SavedModel's to rounding. LiteRT starts in a fraction of a second, and
    TensorFlow in several.
    """
    path = pathlib.Path(path)
    lite = path / file_names.LITE_MODEL
    return lite if of(path) is SAVED_MODEL and lite.is_file() and LITERT.is_installed else path
