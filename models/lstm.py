"""LSTM over the frames, the simplest network here that can track a voice over time.

M. Kolbæk, D. Yu, Z.-H. Tan, J. Jensen: "Multitalker speech separation with utterance-level
permutation invariant training of deep recurrent neural networks", IEEE/ACM Transactions on Audio,
Speech, and Language Processing 25(10), 2017 (uPIT-LSTM; their network has three layers of 896
units).
"""

from typing import Any

import keras

from models.layers import heads, recurrent
from pipeline import schema

Tensor = Any


@keras.saving.register_keras_serializable("voices_apart")
class LongShortTermMemory(keras.Model):
    """LSTM layers over the frames, then a mask for each output. Causal.

    Args:
        num_outputs: number of masks: one, or one per voice.
        units: units of each LSTM layer.
        num_layers: number of LSTM layers.
        dropout: dropout rate.
        head: activation of the masks, `sigmoid`, `linear`, `relu` or `softmax` (over the outputs).
        num_bins: number of bins of the spectrogram.

    Call arguments:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        float32 masks, `[batch, output, frame, bin]`.

    Example:
        masks = LongShortTermMemory(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    takes = "log_magnitude"
    bidirectional = False

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
        self.recurrent = recurrent.Recurrent(
            units, num_layers, dropout, self.bidirectional, dtype=self.dtype_policy
        )
        self.mask_head = heads.MaskHead(num_outputs, num_bins, head, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.recurrent.build((None, None, self.num_bins))
        self.mask_head.build((None, None, self.recurrent.width))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.mask_head(self.recurrent(inputs, training=training))

    @property
    def causal(self) -> bool:
        """Whether it uses only past frames, and so can process a stream (`models.streaming`)."""
        return not self.bidirectional

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """Returns the state of `Recurrent.step` before the first frame."""
        return self.recurrent.initial_state(batch)

    def step(
        self, inputs: Tensor, state: dict[str, Tensor], valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the masks of the next frames and the new state; see `models.streaming`."""
        x, state = self.recurrent.step(inputs, state, valid)
        return self.mask_head(x), state

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
