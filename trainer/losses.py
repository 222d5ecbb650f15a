"""Targets and losses on masks, in `keras.ops`.

Each loss is a pair (error, weight) for each example; the loss of many is the sum of their errors
over the sum of their weights, whatever the batches they came in.
"""

from typing import Any

from keras import ops

from models import masks, permutation
from pipeline import schema

Tensor = Any


def decode_targets(codes: Tensor, target: str, num_sources: int) -> Tensor:
    """The ideal masks of all voices from the codes in the record.

    Args:
        codes: uint8 `[batch, K, frame, bin]`, as `trainer.input` gives them.
        target: `ibm`, `irm` or `psm`.
        num_sources: voices.

    Returns:
        float32 `[batch, source, frame, bin]`.
    """
    values = ops.cast(codes, "float32")
    if target == "irm":
        values = values / 255
    elif target == "psm":
        values = values * ((schema.PSM_MAX - schema.PSM_MIN) / 255) + schema.PSM_MIN
    return masks.complete(values, num_sources)


def fixed(estimates: Tensor, targets: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of the first mask, taken for voice 1's: the original experiment's.

    Args:
        estimates: `[batch, source, frame, bin]`.
        targets: likewise.
        frame_mask: 1 for valid frames, `[batch, frame]`.

    Returns:
        error and weight (the number of valid bins), float32 `[batch]`.
    """
    valid = ops.cast(frame_mask, "float32")[..., None]
    squared = ops.square(estimates[:, 0] - targets[:, 0]) * valid
    weight = ops.sum(valid, axis=(1, 2)) * estimates.shape[-1]
    return ops.sum(squared, axis=(1, 2)), weight


def permutation_invariant(
    estimates: Tensor, targets: Tensor, magnitude: Tensor, frame_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared error of the masked mixture under the best permutation (Kolbæk et al. 2017).

    With the phase-sensitive mask as target it is their phase-sensitive approximation. The
    permutation is one for the whole window. Error over weight is relative to the mixture's energy.

    Args:
        estimates: `[batch, source, frame, bin]`.
        targets: likewise.
        magnitude: of the mixture, `[batch, frame, bin]`.
        frame_mask: 1 for valid frames, `[batch, frame]`.

    Returns:
        error and weight (energy of the mixture), float32 `[batch]`.
    """
    magnitude = magnitude * ops.cast(frame_mask, "float32")[..., None]
    assignment = permutation.assign(_pairwise(estimates, targets, magnitude))
    difference = estimates - permutation.reorder(targets, assignment)
    error = ops.sum(ops.square(difference * magnitude[:, None]), axis=(1, 2, 3))
    return error, ops.sum(ops.square(magnitude), axis=(1, 2))


def _pairwise(estimates: Tensor, targets: Tensor, magnitude: Tensor) -> Tensor:
    """Squared error of each output taken for each voice, `[batch, output, source]`; no gradient.

    By products of matrices, without the tensor of all differences.
    """
    a = _flat(ops.stop_gradient(estimates) * magnitude[:, None])
    b = _flat(targets * magnitude[:, None])
    cross = ops.matmul(a, ops.transpose(b, (0, 2, 1)))
    own_a = ops.sum(ops.square(a), axis=-1)[:, :, None]
    own_b = ops.sum(ops.square(b), axis=-1)[:, None, :]
    return own_a - 2 * cross + own_b


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, (ops.shape(x)[0], x.shape[1], -1))
