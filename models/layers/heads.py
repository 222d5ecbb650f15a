"""Output layers of networks: hidden features to masks or embeddings."""

from typing import Any

import keras
from keras import ops

from pipeline import ideal_masks

Tensor = Any

_PSM = ideal_masks.MASKS["psm"].range

# Output range of each activation, limited to the range of the stored masks.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "relu": (0.0, _PSM[1]),
    "linear": _PSM,
}
ACTIVATIONS = tuple(RANGES)


def activate(outputs: Tensor, activation: str) -> Tensor:
    """Applies one of `ACTIVATIONS` to the last layer's outputs; `[batch, output, frame, bin]`."""
    if activation == "softmax":
        return ops.softmax(outputs, axis=1)
    return keras.activations.get(activation)(outputs)


@keras.saving.register_keras_serializable("voices_apart")
class MaskHead(keras.layers.Layer):
    """A dense layer whose output is split into one mask per output.

    Args:
        num_outputs: number of masks.
        num_bins: number of bins of each mask.
        activation: `sigmoid` (masks in [0, 1]), `linear`, `relu`, or `softmax` over the outputs
            (masks that sum to one).

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
    """A dense layer that gives a point on the unit sphere for each bin (Hershey et al. 2016).

    Args:
        dimension: dimension of the embeddings.
        num_bins: number of bins of the spectrogram.

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
        # Epsilon keeps the gradient finite for a zero vector, which has no direction.
        return x / ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (*input_shape[:2], self.num_bins, self.dimension)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dimension": self.dimension,
            "num_bins": self.num_bins,
        }
