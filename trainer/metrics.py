"""Metrics in `keras.ops`: agreement of masks, and SI-SDR improvement."""

from typing import Any

from keras import ops

from models import masks, permutation

Tensor = Any

_TINY = 1e-10
# Far below `_TINY`, so that a silent estimate gets the worst ratio, not a ratio of one.
_SILENT = 1e-16


def mask_agreement(
    estimates: Tensor,
    targets: Tensor,
    magnitude: Tensor,
    frame_mask: Tensor,
    *,
    fixed: bool = False,
    no_tie: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Counts the bins in which the mask finds the loudest voice.

    Only bins within 40 dB of the loudest bin count: the loudest of the window, or of the whole
    mixture in validation.

    Args:
        estimates: masks, `[batch, source, frame, bin]`.
        targets: ideal masks of any kind, of the same shape.
        magnitude: magnitude of the mixture, `[batch, frame, bin]`.
        frame_mask: 1 for valid frames, `[batch, frame]`.
        fixed: whether the outputs are in the order of the voices; otherwise the best permutation is
            taken.
        no_tie: 1 where no two voices are equally loud, `[batch, frame, bin]`.

    Returns:
        Number of bins that agree and of bins that count, float32 `[batch]`.
    """
    counted = masks.counted_bins(magnitude, frame_mask)
    if no_tie is not None:
        counted = counted * ops.cast(no_tie, "float32")
    found = masks.ideal_binary(estimates) * counted[:, None]
    ideal = masks.ideal_binary(targets)
    batch, num_sources = ops.shape(found)[0], found.shape[1]
    found = ops.reshape(found, (batch, num_sources, -1))
    ideal = ops.reshape(ideal, (batch, num_sources, -1))
    agreement = ops.matmul(found, ops.transpose(ideal, (0, 2, 1)))
    if fixed:
        chosen = ops.eye(num_sources)[None]
    else:
        chosen = ops.one_hot(permutation.assign(-agreement), num_sources, dtype="float32")
    return ops.sum(agreement * chosen, axis=(1, 2)), ops.sum(counted, axis=(1, 2))


def si_sdr(estimates: Tensor, references: Tensor, valid: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019) of the zero-mean signals.

    Args:
        estimates: `[..., sample]`.
        references: references, broadcastable to `estimates`.
        valid: 1 for samples that are not padding, broadcastable to it.

    Returns:
        float32 `[...]`, dB.
    """
    valid = ops.cast(valid, "float32")
    estimates, references = centred(estimates, valid), centred(references, valid)
    power = ops.sum(ops.square(references), axis=-1, keepdims=True)
    scale = ops.sum(estimates * references, axis=-1, keepdims=True) / (power + _TINY)
    target = scale * references
    signal = ops.sum(ops.square(target), axis=-1)
    noise = ops.sum(ops.square(estimates - target), axis=-1)
    return 10 * (ops.log10(signal + _SILENT) - ops.log10(noise + _TINY))


def centred(signals: Tensor, valid: Tensor) -> Tensor:
    """Removes the mean over valid samples of `[..., sample]`; sets the others to zero."""
    count = ops.maximum(ops.sum(valid, axis=-1, keepdims=True), 1.0)
    signals = signals * valid
    return (signals - ops.sum(signals, axis=-1, keepdims=True) / count) * valid


def si_sdr_improvement(estimates: Tensor, sources: Tensor, valid: Tensor) -> Tensor:
    """SI-SDR improvement of the estimates over the mixture.

    Args:
        estimates: `[batch, source, sample]`.
        sources: the voices, of the same shape; the mixture is their sum.
        valid: 1 for samples that are not padding, `[batch, sample]`.

    Returns:
        float32 `[batch]`, in dB: mean over the voices for the best permutation.
    """
    mixture = ops.sum(sources, axis=1, keepdims=True)
    before = ops.mean(si_sdr(mixture, sources, valid[:, None]), axis=1)
    pairs = si_sdr(estimates[:, :, None], sources[:, None], valid[:, None, None])
    chosen = ops.one_hot(permutation.assign(-pairs), pairs.shape[-1], dtype="float32")
    return ops.sum(pairs * chosen, axis=(1, 2)) / pairs.shape[-1] - before
