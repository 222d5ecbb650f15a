"""Chimera: masks and embeddings from one BLSTM; embeddings help training, masks separate.

Z.-Q. Wang, J. Le Roux, J. R. Hershey: "Alternative objective functions for deep clustering",
ICASSP 2018 (chimera++; their network has four layers of 600 units and dropout 0.3).
"""

from typing import Any

import keras

from models.layers import heads, recurrent
from pipeline import schema

Tensor = Any


@keras.saving.register_keras_serializable("voices_apart")
class Chimera(keras.Model):
    """BLSTM layers with two heads: a mask for each output, an embedding for each bin.

    A call gives the masks; the embeddings are only used by the loss.

    Args:
        num_outputs: number of masks: one, or one per voice.
        units: units of each LSTM layer, per direction.
        num_layers: number of LSTM layers.
        dropout: dropout rate.
        head: activation of the masks, `sigmoid`, `linear`, `relu` or `softmax` (over the outputs).
        dimension: dimension of the embeddings.
        num_bins: number of bins of the spectrogram.

    Call arguments:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        float32 masks, `[batch, output, frame, bin]`.

    Example:
        masks = Chimera(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    takes = "log_magnitude"

    def __init__(
        self,
        num_outputs: int = 2,
        units: int = 300,
        num_layers: int = 2,
        dropout: float = 0.0,
        head: str = "sigmoid",
        dimension: int = 20,
        num_bins: int = schema.NUM_BINS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_outputs = num_outputs
        self.units = units
        self.num_layers = num_layers
        self.dropout = dropout
        self.head = head
        self.dimension = dimension
        self.num_bins = num_bins
        self.recurrent = recurrent.Recurrent(
            units, num_layers, dropout, bidirectional=True, dtype=self.dtype_policy
        )
        self.mask_head = heads.MaskHead(num_outputs, num_bins, head, dtype=self.dtype_policy)
        self.embedding_head = heads.EmbeddingHead(dimension, num_bins, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.recurrent.build((None, None, self.num_bins))
        self.mask_head.build((None, None, self.recurrent.width))
        self.embedding_head.build((None, None, self.recurrent.width))
        self.built = True

    def both(self, inputs: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Returns the results of both heads, in one pass.

        Args:
            inputs: normalised log-magnitudes, `[batch, frame, bin]`.
            training: whether dropout is active.

        Returns:
            Masks `[batch, output, frame, bin]`, and embeddings of unit length `[batch, frame, bin,
            dimension]`; float32.
        """
        features = self.recurrent(inputs, training=training)
        return self.mask_head(features), self.embedding_head(features)

    def embeddings(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the embeddings of `both`."""
        return self.embedding_head(self.recurrent(inputs, training=training))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return self.mask_head(self.recurrent(inputs, training=training))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "head": self.head,
            "dimension": self.dimension,
            "num_bins": self.num_bins,
        }
