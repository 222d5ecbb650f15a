"""LSTM over the frames, in one direction or both, shared by several networks."""

from typing import Any

import keras
from keras import ops

from models.layers import fused_lstm

Tensor = Any

# The logarithm of equal values may differ in the last bit between bins, due to vector units.
_FLAT = 1e-3


@keras.saving.register_keras_serializable("voices_apart")
class Recurrent(keras.layers.Layer):
    """LSTM layers, each followed by dropout.

    The backward direction starts at the last frame whose bins are not all equal. What follows is
    padding or digital silence, from which nothing can be learned. The amount of padding therefore
    does not change the output before it.

    Args:
        units: units of each layer and direction (Hochreiter and Schmidhuber 1997).
        num_layers: number of layers.
        dropout: dropout rate after each layer.
        bidirectional: whether each layer also runs over the frames backwards (Schuster and Paliwal
            1997) and concatenates both results.

    Call arguments:
        inputs: `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        `[batch, frame, feature]` in the layer's compute dtype, with `units` features, or twice as
        many if bidirectional.
    """

    def __init__(
        self,
        units: int,
        num_layers: int,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_layers = num_layers
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.forward = [self._lstm(f"forward_{i}") for i in range(num_layers)]
        # Separate layers over reversed frames instead of `go_backwards`: the padding would need a
        # mask, which disables the fast GPU kernels.
        self.backward = [self._lstm(f"backward_{i}") for i in range(num_layers * bidirectional)]
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def _lstm(self, name: str) -> keras.layers.Layer:
        layer = fused_lstm.LSTM(
            self.units, return_sequences=True, dtype=self.dtype_policy, name=name
        )
        layer.alone = not self.bidirectional
        return layer

    @property
    def width(self) -> int:
        """Number of output features."""
        return self.units * (2 if self.bidirectional else 1)

    def build(self, input_shape: Any) -> None:
        for layers in (self.forward, self.backward):
            width = input_shape[-1]
            for layer in layers:
                layer.build((None, None, width))
                width = self.width
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = ops.cast(inputs, self.compute_dtype)
        turned = _turned(inputs) if self.bidirectional else None
        for i, forward in enumerate(self.forward):
            y = forward(x, training=training)
            if self.bidirectional:
                z = self.backward[i](_take(x, turned), training=training)
                y = ops.concatenate([y, _take(z, turned)], axis=-1)
            x = self.drop(y, training=training)
        return x

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """Returns the state before the first frame: zeros."""
        shape = (batch, self.num_layers, self.units)
        return {name: ops.zeros(shape, self.compute_dtype) for name in ("hidden", "cell")}

    def step(
        self, inputs: Tensor, state: dict[str, Tensor], valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Processes the next frames of a stream (`models.streaming`); for one direction only.

        Args:
            inputs: `[batch, frame, bin]`.
            state: `hidden` and `cell`, `[batch, layer, unit]`.
            valid: 1 for valid frames, 0 for frames that do not change the state, float32 `[frame]`.

        Returns:
            `[batch, frame, unit]`, and the new state.
        """
        x = ops.transpose(ops.cast(inputs, self.compute_dtype), (1, 0, 2))
        valid = ops.cast(valid, self.compute_dtype)[:, None, None] * ops.ones_like(x[..., :1])
        hidden, cell = [], []
        for i, layer in enumerate(self.forward):

            def advance(carry: Any, now: Any, layer: Any = layer) -> tuple[Any, Any]:
                _, carry = layer.cell(now[:, :-1], list(carry), training=False)
                carry = tuple(now[:, -1:] * number for number in carry)
                return carry, carry

            start = (state["hidden"][:, i], state["cell"][:, i])
            # One tensor: with TensorFlow, Keras 3.15 fails on several of unknown length.
            now = ops.concatenate([x, valid], axis=-1)
            last, (x, _) = ops.scan(advance, start, now)
            hidden.append(last[0])
            cell.append(last[1])
        return ops.transpose(x, (1, 0, 2)), {
            "hidden": ops.stack(hidden, axis=1),
            "cell": ops.stack(cell, axis=1),
        }

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "bidirectional": self.bidirectional,
        }


def flat_frames(inputs: Tensor) -> Tensor:
    """Frames whose bins are all equal: padding or digital silence. bool `[batch, frame]`."""
    return ops.max(inputs, axis=-1) - ops.min(inputs, axis=-1) < _FLAT


def _turned(inputs: Tensor) -> Tensor:
    """Returns frame indices that reverse the frames but leave the padding at the end in place.

    `[batch, frame, bin]` to int32 `[batch, frame]`. Applied twice, they restore the order.
    """
    frames = ops.arange(1, ops.shape(inputs)[1] + 1, dtype="int32")[None]
    sounding = ops.cast(ops.logical_not(flat_frames(inputs)), "int32")
    length = ops.max(frames * sounding, axis=1, keepdims=True)
    return ops.where(frames <= length, length - frames, frames - 1)


def _take(x: Tensor, frames: Tensor) -> Tensor:
    """Gathers the frames of `[batch, frame, feature]` by the indices `[batch, frame]`."""
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    # Gather whole rows of one table: `take_along_axis` would look up every value separately.
    rows = frames + length * ops.arange(batch, dtype="int32")[:, None]
    taken = ops.take(ops.reshape(x, (batch * length, x.shape[-1])), rows, axis=0)
    return ops.reshape(taken, (batch, length, x.shape[-1]))
