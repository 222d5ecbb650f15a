"""The loss of deep clustering: bins of one voice belong together, those of two apart.

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

    Two bins' affinity is the scalar product of their embeddings; it should be 1 within a voice and
    0 between two. In its low-rank form no matrix of all pairs is ever made. Axes as in
    `trainer.losses`: error over weight is the mean over pairs, and lies in [0, 1] for unit
    embeddings with no product below zero.

    Args:
        embeddings: of unit length, `[batch, frame, bin, dimension]`.
        ideal_binary: 1 for the voice that a bin belongs to, `[batch, source, frame, bin]`.
        weights: of the bins, `[batch, frame, bin]`; a pair counts as the product of its two. With
            `models.masks.counted_bins` only bins that are not silent count.

    Returns:
        error and weight (sum of the bins' weights), float32 `[batch]`.
    """
    weights = _flat(ops.cast(weights, "float32"), 1)
    total = ops.sum(weights, axis=(1, 2))
    # Each pair's share of the mean: sums of squares of numbers far from 1 lose digits in float32.
    share = ops.sqrt(weights / ops.where(total > 0, total, 1.0)[:, None, None])
    v = _flat(ops.cast(embeddings, "float32"), embeddings.shape[-1]) * share
    voices = ops.moveaxis(ops.cast(ideal_binary, "float32"), 1, -1)
    y = _flat(voices, ideal_binary.shape[1]) * share
    mean = _squares(v, v) - 2 * _squares(v, y) + _squares(y, y)
    return mean * total, total


def _flat(x: Tensor, last: int) -> Tensor:
    """`[batch, frame, bin, ...]` to `[batch, frame · bin, last]`."""
    return ops.reshape(x, (ops.shape(x)[0], -1, last))


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius norm of `aᵀ b`, `[batch]`."""
    return ops.sum(ops.square(ops.matmul(ops.transpose(a, (0, 2, 1)), b)), axis=(1, 2))
