"""A model that is ready to separate, whatever its format."""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.outlets import model_info
from pipeline import errors

_Function = Callable[[np.ndarray], np.ndarray]
# Maps a signature's named inputs to its named outputs, as NumPy arrays or TensorFlow tensors.
_Step = Callable[[dict[str, Any]], dict[str, Any]]


class LoadedModel:
    """A model that is ready to separate.

    Attributes:
        info: the model info.
        path: the path it was loaded from.
    """

    def __init__(
        self,
        info: model_info.ModelInfo,
        path: str,
        separate: _Function,
        masks: _Function | None = None,
        stream: _Step | None = None,
    ) -> None:
        """Assembles a model; use `export.separation.loading.load` to load one.

        Args:
            info: the model info.
            path: the path it was loaded from.
            separate: maps float32 `[batch, sample]` to float32 `[batch, source, sample]`.
            masks: maps float32 `[batch, frame, bin]` to `[batch, source, frame, bin]`, if the model
                has masks.
            stream: the signature `stream`, if the network is causal.
        """
        self.info = info
        self.path = path
        self._separate = separate
        self._masks = masks
        self._stream = stream

    @property
    def sample_rate(self) -> int:
        """The sample rate in Hz."""
        return self.info.sample_rate

    @property
    def num_sources(self) -> int:
        """Number of voices that it separates."""
        return self.info.num_sources

    @property
    def name(self) -> str:
        """The network's name."""
        return self.info.name

    def separate(self, waveform: np.ndarray) -> np.ndarray:
        """Separates each mixture into voices that add up to it.

        Args:
            waveform: float32 `[batch, sample]` at `sample_rate`, of any level.

        Returns:
            float32 `[batch, source, sample]`.
        """
        return self._separate(_of_rank(waveform, 2))

    def masks(self, log_magnitude: np.ndarray) -> np.ndarray:
        """Computes the masks of all voices.

        Args:
            log_magnitude: float32 `[batch, frame, bin]`, of a mixture at the level at which the
                model was trained, as in the dataset's records.

        Returns:
            float32 `[batch, source, frame, bin]`.

        Raises:
            UserError: the network works in the time domain and has no masks.
        """
        if self._masks is None:
            raise errors.UserError(f"{self.path}: the network {self.name} has no masks")
        return self._masks(_of_rank(log_magnitude, 3))

    def initial_state(self) -> dict[str, Any]:
        """Returns the initial state for `stream`.

        Raises:
            UserError: the network was not trained causally.
        """
        if self._stream is None or self.info.stream is None:
            raise errors.UserError(
                f"{self.path}: this network ({self.name}) hears what comes later and cannot follow "
                "a stream; train with --model=lstm, or causally with --model=tcn or "
                "--model=conv_tasnet and --model_arg=causal=true"
                + (" (or export it again: an older version did)" if self.info.format < 2 else "")
            )
        tensors = self.info.stream.state.items()
        return {name: np.zeros(tensor.shape, tensor.dtype) for name, tensor in tensors}

    def stream(
        self, waveform: np.ndarray, length: int, gain_db: float, state: dict[str, Any]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Separates the next samples of a stream; prefer `export.separation.stream.Stream`.

        Args:
            waveform: float32 `[1, k · info.stream.hop]`, full scale 1.
            length: how many of the samples belong to the signal: all except at its end.
            gain_db: gain applied to the mixture before the network.
            state: `initial_state`, or the state returned by the previous call.

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


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != rank:
        raise ValueError(f"{rank} axes are needed, not those of shape {array.shape}")
    return array


def of_any_length(separate: _Function) -> _Function:
    """Extends a function of waveforms to empty ones, for runtimes that do not support them."""

    def run(waveform: np.ndarray) -> np.ndarray:
        samples = waveform.shape[1]
        padded = waveform if samples else np.zeros((len(waveform), 1), np.float32)
        return separate(padded)[..., :samples]

    return run
