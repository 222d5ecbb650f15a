"""What networks end in: hidden features to masks."""

from typing import Any

import keras
from keras import ops

from pipeline import ideal_masks

Tensor = Any

_PSM = ideal_masks.MASKS["psm"].range

# What each activation can give, within the range of the masks that are stored.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "relu": (0.0, _PSM[1]),
    "linear": _PSM,
}
ACTIVATIONS = tuple(RANGES)


def activate(outputs: Tensor, activation: str) -> Tensor:
    """Masks `[batch, output, frame, bin]` from what a last layer gives, by one of `ACTIVATIONS`."""
    if activation == "softmax":
        return ops.softmax(outputs, axis=1)
    return keras.activations.get(activation)(outputs)


@keras.saving.register_keras_serializable("voices_apart")
class MaskHead(keras.layers.Layer):
    """One dense layer, cut into one mask for each output.

    Args:
        num_outputs: masks to give.
        num_bins: bins of each.
        activation: `sigmoid` (masks in [0, 1]), `linear`, `relu`, or `softmax` over the outputs
            (masks that add up to one).

    Call arguments:
        inputs: features, `[batch, frame, feature]`.

    Returns:
        float32, also under mixed precision: `[batch, output, frame, bin]`.
    """

    def __init__(
        self, num_outputs: int, num_bins: int, activation: str = "sigmoid", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; known are {ACTIVATIONS}")
        self.num_outputs = num_outputs
        self.num_bins = num_bins
        self.activation = activation
        self.dense = keras.layers.Dense(num_outputs * num_bins, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.cast(self.dense(inputs), "float32")
        batch, frames = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, frames, self.num_outputs, self.num_bins))
        x = ops.transpose(x, (0, 2, 1, 3))
        return activate(x, self.activation)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (input_shape[0], self.num_outputs, input_shape[1], self.num_bins)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "num_bins": self.num_bins,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable("voices_apart")
class EmbeddingHead(keras.layers.Layer):
    """One dense layer, cut into a point on the unit sphere for each bin (Hershey et al. 2016).

    Args:
        dimension: of the sphere's space.
        num_bins: bins of the spectrogram.

    Call arguments:
        inputs: features, `[batch, frame, feature]`.

    Returns:
        float32, also under mixed precision: `[batch, frame, bin, dimension]`.
    """

    def __init__(self, dimension: int, num_bins: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dimension = dimension
        self.num_bins = num_bins
        self.dense = keras.layers.Dense(
            num_bins * dimension, activation="tanh", dtype=self.dtype_policy
        )

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        x = ops.cast(self.dense(inputs), "float32")
        batch, frames = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, frames, self.num_bins, self.dimension))
        # No point at all has a direction of its own, and no infinite gradient.
        return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape[:2], self.num_bins, self.dimension)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dimension": self.dimension,
            "num_bins": self.num_bins,
        }
