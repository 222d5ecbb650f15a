"""The loss of deep clustering: pulls bins of one voice together and bins of two voices apart.

J. R. Hershey, Z. Chen, J. Le Roux, S. Watanabe: "Deep clustering: discriminative embeddings for
segmentation and separation", ICASSP 2016.
"""

from typing import Any

from keras import ops

Tensor = Any


def clustering_loss(
    embeddings: Tensor, ideal_binary: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the affinities of all pairs of bins, `|V Vᵀ − Y Yᵀ|²`.

    The affinity of two bins is the scalar product of their embeddings; its target is 1 within a
    voice and 0 between voices. The low-rank form avoids the matrix of all pairs. Axes as in
    `trainer.losses`. Error over weight is the mean over pairs; it lies in [0, 1] for unit
    embeddings without negative products.

    Args:
        embeddings: embeddings of unit length, `[batch, frame, bin, dimension]`.
        ideal_binary: 1 for the voice that a bin belongs to, `[batch, source, frame, bin]`.
        weights: weights of the bins, `[batch, frame, bin]`; the weight of a pair is the product of
            its two. With `models.masks.counted_bins` silent bins have weight zero.

    Returns:
        error and weight (sum of the bins' weights), float32 `[batch]`.
    """
    weights = _flat(ops.cast(weights, "float32"), 1)
    total = ops.sum(weights, axis=(1, 2))
    # Normalise first: sums of squares far from 1 lose precision in float32.
    share = ops.sqrt(weights / ops.where(total > 0, total, 1.0)[:, None, None])
    v = _flat(ops.cast(embeddings, "float32"), embeddings.shape[-1]) * share
    voices = ops.moveaxis(ops.cast(ideal_binary, "float32"), 1, -1)
    y = _flat(voices, ideal_binary.shape[1]) * share
    mean = _squares(v, v) - 2 * _squares(v, y) + _squares(y, y)
    return mean * total, total


def _flat(x: Tensor, last: int) -> Tensor:
    """Reshapes `[batch, frame, bin, ...]` to `[batch, frame · bin, last]`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, last))


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius norm of `aᵀ b`, `[batch]`."""
    return ops.sum(ops.square(ops.matmul(ops.transpose(a, (0, 2, 1)), b)), axis=(1, 2))
