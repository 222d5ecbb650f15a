"""A model that is ready to separate, whatever it was saved as."""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.outlets import model_info
from pipeline import errors

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
                "--model=conv_tasnet and --model_arg=causal=true"
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


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != rank:
        raise ValueError(f"{rank} axes are needed, not those of shape {array.shape}")
    return array


def of_any_length(separate: _Function) -> _Function:
    """A function of waveforms that takes empty ones, too, for runtimes that do not."""

    def run(waveform: np.ndarray) -> np.ndarray:
        samples = waveform.shape[1]
        padded = waveform if samples else np.zeros((len(waveform), 1), np.float32)
        return separate(padded)[..., :samples]

    return run
