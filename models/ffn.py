"""The feed-forward network of the original experiment, which processes each frame separately."""

from typing import Any

import keras
from keras import ops

from models.layers import heads
from pipeline import schema

Tensor = Any


@keras.saving.register_keras_serializable("voices_apart")
class FeedForward(keras.Model):
    """Dense layers over the normalised log-magnitudes of one frame, then a mask for each output.

    It sees only the frame that it masks, so it can only use the shape of a single spectrum.

    Args:
        num_outputs: number of masks: one, or one per voice.
        units: units of each hidden layer.
        num_layers: number of hidden layers.
        dropout: dropout rate of the hidden units.
        head: activation of the masks, `sigmoid`, `linear`, `relu` or `softmax` (over the outputs).
        num_bins: number of bins of the spectrogram.

    Call arguments:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        float32 masks, `[batch, output, frame, bin]`.

    Example:
        masks = FeedForward(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    takes = "log_magnitude"

    def __init__(
        self,
        num_outputs: int = 2,
        units: int = 300,
        num_layers: int = 2,
        dropout: float = 0.0,
        head: str = "sigmoid",
        num_bins: int = schema.NUM_BINS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.units = units
        self.num_layers = num_layers
        self.dropout = dropout
        self.head = head
        self.num_bins = num_bins
        self.hidden = [
            keras.layers.Dense(
                units, activation="tanh", dtype=self.dtype_policy, name=f"hidden_{i}"
            )
            for i in range(num_layers)
        ]
        self.drop = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.mask_head = heads.MaskHead(num_outputs, num_bins, head, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        width = self.num_bins
        for layer in self.hidden:
            layer.build((None, None, width))
            width = self.units
        self.mask_head.build((None, None, width))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        x = ops.cast(inputs, self.compute_dtype)
        for layer in self.hidden:
            x = self.drop(layer(x), training=training)
        return self.mask_head(x)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "head": self.head,
            "num_bins": self.num_bins,
        }
