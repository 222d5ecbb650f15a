"""Deep clustering: one embedding per bin; the embeddings of one voice form a cluster.

J. R. Hershey, Z. Chen, J. Le Roux, S. Watanabe: "Deep clustering: discriminative embeddings for
segmentation and separation", ICASSP 2016. Y. Isik, J. Le Roux, Z. Chen, S. Watanabe, J. R. Hershey:
"Single-channel multi-speaker separation using deep clustering", Interspeech 2016 (masks by soft
k-means; their network has four layers).
"""

from typing import Any

import keras

from models.layers import clustering, heads, recurrent
from pipeline import schema

Tensor = Any


@keras.saving.register_keras_serializable("voices_apart")
class DeepClustering(keras.Model):
    """BLSTM layers, an embedding of unit length for each bin, k-means, then masks.

    The embeddings are trained with the loss `trainer.clustering_loss`. The number of voices may
    differ from the number in training.

    Args:
        num_outputs: number of voices to find, at least two.
        units: units of each LSTM layer, per direction.
        num_layers: number of LSTM layers.
        dropout: dropout rate.
        dimension: dimension of the embeddings.
        iterations: number of k-means iterations.
        hardness: hardness of the masks: how fast a voice's share of a bin falls with the squared
            distance from its centre.
        span: bins more than this below the mixture's loudest, in standard deviations of the
            log-magnitudes, are ignored when finding the centres. 2.3 is 40 dB where the deviation
            is 17 dB, as in speech.
        num_bins: number of bins of the spectrogram.

    Call arguments:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        float32 masks, `[batch, output, frame, bin]`, which sum to one over the outputs.

    Example:
        masks = DeepClustering(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    takes = "log_magnitude"

    def __init__(
        self,
        num_outputs: int = 2,
        units: int = 300,
        num_layers: int = 2,
        dropout: float = 0.0,
        dimension: int = 20,
        iterations: int = 10,
        hardness: float = clustering.HARDNESS,
        span: float = clustering.SPAN,
        num_bins: int = schema.NUM_BINS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_outputs < 2:
            raise ValueError(f"num_outputs must be two or more, not {num_outputs}")
        self.num_outputs = num_outputs
        self.units = units
        self.num_layers = num_layers
        self.dropout = dropout
        self.dimension = dimension
        self.iterations = iterations
        self.hardness = hardness
        self.span = span
        self.num_bins = num_bins
        self.recurrent = recurrent.Recurrent(
            units, num_layers, dropout, bidirectional=True, dtype=self.dtype_policy
        )
        self.embedding_head = heads.EmbeddingHead(dimension, num_bins, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.recurrent.build((None, None, self.num_bins))
        self.embedding_head.build((None, None, self.recurrent.width))
        self.built = True

    def embeddings(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns an embedding of unit length for each bin.

        Args:
            inputs: normalised log-magnitudes, `[batch, frame, bin]`.
            training: whether dropout is active.

        Returns:
            float32 `[batch, frame, bin, dimension]`.
        """
        return self.embedding_head(self.recurrent(inputs, training=training))

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        embeddings = self.embeddings(inputs, training=training)
        centres = clustering.find_centres(
            clustering.flatten(embeddings),
            clustering.flatten(clustering.heard_bins(inputs, self.span)),
            self.num_outputs,
            self.iterations,
        )
        return clustering.masks(embeddings, centres, self.hardness)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "dimension": self.dimension,
            "iterations": self.iterations,
            "hardness": self.hardness,
            "span": self.span,
            "num_bins": self.num_bins,
        }
