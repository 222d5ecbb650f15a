"""The table of export formats and how to load them; a new format is a new row.

The path of a model selects the row. A path that matches no row is a Keras model
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
        name: display name of the runtime.
        suffix: suffix of its files; empty if a model is a folder.
        runtime: the runtime's module.
        extra: this package's extra that installs the runtime; empty if the package itself does.
        writers: further modules needed to write the format.
        loader: loads the model, given a path and the runtime's module.
        converter: writes a separator (`models.separator.BaseSeparator`) to a path and returns its
            model info; raises whatever TensorFlow and converters raise.
        reader: reads the model info at a path, if that is possible without loading the model.
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
        """Whether its runtime is installed."""
        # Looks for the top-level package: looking for a submodule would import the package.
        return importlib.util.find_spec(self.runtime.partition(".")[0]) is not None

    def require(self) -> Any:
        """Imports and returns the runtime's module.

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
        """Raises UserError if a module is missing to write the format or to verify the result."""
        self.require()
        for module in self.writers:
            if importlib.util.find_spec(module) is None:
                raise errors.UserError(
                    f"{self.suffix} files are written by {module}, which is not installed: "
                    f"pip install {self._package}"
                )

    def load(self, path: pathlib.Path) -> loaded_model.LoadedModel:
        """Loads the model at a path.

        Raises:
            UserError: there is none, it is damaged, or its runtime is not installed.
        """
        if not path.exists():
            raise errors.UserError(f"no such model: {path}")
        if self.runtime == "tensorflow":
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        return self.loader(path, self.require())

    def files(self, path: pathlib.Path) -> list[pathlib.Path]:
        """Returns the files that determine the output of the model at a path."""
        return [path] if self.suffix else tensorflow_model.files(path)

    def read_info(self, path: pathlib.Path) -> model_info.ModelInfo:
        """Reads the info of the model at a path; raises the same errors as `load`."""
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
    """Returns a path's row, even if no complete model is there; None for Keras models."""
    path = pathlib.Path(path)
    if path.is_dir():
        return SAVED_MODEL if tensorflow_model.is_here(path) else None
    return next((row for row in FORMATS if row.suffix and row.suffix == path.suffix), None)


def quickest(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the LiteRT file in a SavedModel's folder if LiteRT is installed; else the path.

    The voices equal the SavedModel's up to rounding. LiteRT starts in a fraction of a second,
    TensorFlow in several seconds.
    """
    path = pathlib.Path(path)
    lite = path / file_names.LITE_MODEL
    return lite if of(path) is SAVED_MODEL and lite.is_file() and LITERT.is_installed else path
