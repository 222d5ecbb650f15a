"""Targets and losses, on masks and on waveforms, in `keras.ops`.

Each loss returns a pair (error, weight) per example. The mean loss is the sum of the errors over
the sum of the weights, independent of how examples are batched.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from models import masks, permutation, spectral
from pipeline import ideal_masks
from trainer import metrics

Tensor = Any

# Above this ratio (SI-SDR or SNR) the gradient fades out.
CLAMP_DB = 30.0
# A voice this far below its mixture counts as silent in a window: the range of voice activity.
SILENT_DB = -40.0
# Floor of the loss of silent voices: an estimate this far below the mixture is silent enough.
FLOOR_DB = -30.0
_TINY = 1e-10
# Far below `_TINY`, so that a silent estimate gets the worst ratio, not a ratio of one.
_SILENT = 1e-16
# From natural logarithms of power to dB.
_DB = 10 / math.log(10)


def decode_targets(codes: Tensor, target: str, num_sources: int) -> Tensor:
    """Decodes the ideal masks of all voices from the codes in the record.

    Args:
        codes: uint8 `[batch, K, frame, bin]`, from `trainer.data.stored_windows`.
        target: one of `schema.MASKS`.
        num_sources: number of voices.

    Returns:
        float32 `[batch, source, frame, bin]`.
    """
    encoding = ideal_masks.MASKS[target].encoding
    values = ops.cast(codes, "float32") * encoding.scale + encoding.offset
    return masks.complete(values, num_sources)


def fixed_assignment(
    estimates: Tensor, targets: Tensor, frame_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean squared error of the first mask against that of voice 1, as in the original experiment.

    Args:
        estimates: `[batch, source, frame, bin]`.
        targets: ideal masks, of the same shape.
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

    With the phase-sensitive mask as target, this is their phase-sensitive approximation. There is
    one permutation per window. Error over weight is relative to the energy of the mixture.

    Args:
        estimates: `[batch, source, frame, bin]`.
        targets: ideal masks, of the same shape.
        magnitude: magnitude of the mixture, `[batch, frame, bin]`.
        frame_mask: 1 for valid frames, `[batch, frame]`.

    Returns:
        error and weight (energy of the mixture), float32 `[batch]`.
    """
    magnitude = magnitude * ops.cast(frame_mask, "float32")[..., None]
    assignment = permutation.assign(_pairwise(estimates, targets, magnitude))
    difference = estimates - permutation.reorder(targets, assignment)
    error = ops.sum(ops.square(difference * magnitude[:, None]), axis=(1, 2, 3))
    return error, ops.sum(ops.square(magnitude), axis=(1, 2))


def on_masks(
    estimates: Tensor, targets: Tensor, magnitude: Tensor, frame_mask: Tensor, *, fixed: bool
) -> tuple[Tensor, Tensor]:
    """The loss selected by `--assignment`: `fixed_assignment` or `permutation_invariant`."""
    if fixed:
        return fixed_assignment(estimates, targets, frame_mask)
    return permutation_invariant(estimates, targets, magnitude, frame_mask)


def negative_si_sdr(estimates: Tensor, sources: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Negative SI-SDR in dB under the best permutation; the gradient fades out above 30 dB.

    A voice that is silent over the window has no SI-SDR. Its loss is the energy of its estimate
    relative to that of all voices together, in dB, with a floor at -30 dB (Wisdom et al.: "What's
    all the FUSS about free universal sound separation data?", ICASSP 2021). The permutation
    minimises the sum of both kinds.

    Y. Luo, N. Mesgarani: "Conv-TasNet", IEEE/ACM Transactions on Audio, Speech, and Language
    Processing 27(8), 2019; the clamp follows Zeghidour and Grangier (Wavesplit, 2021). Both signals
    are made zero-mean.

    Args:
        estimates: `[batch, source, sample]`.
        sources: the voices, of the same shape.
        valid: 1 for samples that are not padding, `[batch, sample]`.

    Returns:
        error (sum over the voices) and weight (number of voices; 0 if all of them are silent),
        float32 `[batch]`.
    """
    valid = ops.cast(valid, "float32")[:, None]
    estimates, sources = metrics.centred(estimates, valid), metrics.centred(sources, valid)
    sources = _assigned(estimates, sources, _scale_invariant_cost)
    power = ops.sum(ops.square(sources), axis=-1, keepdims=True)
    scale = ops.sum(estimates * sources, axis=-1, keepdims=True) / (power + _TINY)
    target = scale * sources
    return _combined(_ratio_db(target, estimates - target), estimates, sources)


def negative_snr(estimates: Tensor, sources: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Negative signal-to-noise ratio in dB under the best permutation, with a threshold at 30 dB.

    Unlike SI-SDR, it depends on the level. S. Wisdom et al.: "Unsupervised sound separation using
    mixture invariant training", NeurIPS 2020 (their thresholded SNR). Silent voices, arguments and
    returns are as for `negative_si_sdr`.
    """
    valid = ops.cast(valid, "float32")[:, None]
    estimates, sources = estimates * valid, sources * valid
    sources = _assigned(estimates, sources, _cost)
    return _combined(_ratio_db(sources, estimates - sources), estimates, sources)


def negative_magnitude_si_sdr(
    estimates: Tensor, sources: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Negative SI-SDR in dB of magnitude spectrograms, for auxiliary outputs.

    It is computed over all frames and bins together, with the STFT of `models.spectral`; U.-H. Shin
    et al. (SepReformer, NeurIPS 2024) use a longer window. Arguments and returns are as for
    `negative_si_sdr`.
    """
    valid = ops.cast(valid, "float32")[:, None]
    found, voices = (
        spectral.magnitude(*spectral.stft(signals * valid)) for signals in (estimates, sources)
    )
    shape = (ops.shape(found)[0], found.shape[1], -1)
    found, voices = ops.reshape(found, shape), ops.reshape(voices, shape)
    return negative_si_sdr(found, voices, ops.ones_like(found[:, 0]))


def _assigned(
    estimates: Tensor, sources: Tensor, cost: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> Tensor:
    """Returns the voices in the order of the estimates.

    The order minimises `cost`, a function of the energies and products of the pairs
    `[batch, output, source]`. Only the chosen pairs are then compared.
    """
    estimates = ops.stop_gradient(estimates)
    cross = ops.matmul(estimates, ops.transpose(sources, (0, 2, 1)))
    own = ops.sum(ops.square(estimates), axis=-1)
    power = ops.sum(ops.square(sources), axis=-1)
    active, mixture = _activity(sources)
    silence = _silence_cost(own, mixture)[:, :, None]
    costs = cost(own[:, :, None], cross, power[:, None])
    costs = ops.where(active[:, None] > 0, costs, silence)
    return permutation.reorder(sources, permutation.assign(costs))


def _activity(sources: Tensor) -> tuple[Tensor, Tensor]:
    """1 for active voices, `[batch, source]`, and the energy of their sum, `[batch, 1]`."""
    mixture = ops.sum(ops.square(ops.sum(sources, axis=1)), axis=-1, keepdims=True)
    power = ops.sum(ops.square(sources), axis=-1)
    active = power > mixture * 10 ** (SILENT_DB / 10) + _TINY
    return ops.cast(active, "float32"), mixture


# Costs are logarithmic like the losses (in dB up to a factor), so that they may be summed.
def _scale_invariant_cost(own: Tensor, cross: Tensor, power: Tensor) -> Tensor:
    # SI-SDR = ρ² / (1 - ρ²).
    correlation = ops.square(cross) / (own * power + _TINY)
    ratio = ops.clip(correlation, 1e-6, 1.0)
    return ops.log((1 - ratio) / ratio + 10 ** (-CLAMP_DB / 10))


def _cost(own: Tensor, cross: Tensor, power: Tensor) -> Tensor:
    rest = ops.maximum(own - 2 * cross + power, 0.0)
    return ops.log(rest + 10 ** (-CLAMP_DB / 10) * power + _TINY) - ops.log(power + _SILENT)


def _silence_cost(own: Tensor, mixture: Tensor) -> Tensor:
    """Cost of estimates of energy `own` that should be silent relative to `mixture`."""
    return ops.log(own / (mixture + _TINY) + 10 ** (FLOOR_DB / 10))


def _ratio_db(target: Tensor, noise: Tensor) -> Tensor:
    signal = ops.sum(ops.square(target), axis=-1)
    rest = ops.sum(ops.square(noise), axis=-1) + 10 ** (-CLAMP_DB / 10) * signal
    return _DB * (ops.log(signal + _SILENT) - ops.log(rest + _TINY))


def _combined(ratio_db: Tensor, estimates: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Error and weight of estimates against the assigned voices.

    Args:
        ratio_db: quantity to maximise for active voices, `[batch, output]`.
        estimates: `[batch, output, sample]`.
        sources: voices in the order of the outputs, of the same shape.
    """
    active, mixture = _activity(sources)
    silence_db = _DB * _silence_cost(ops.sum(ops.square(estimates), axis=-1), mixture)
    error = ops.where(active > 0, -ratio_db, silence_db)
    # A window without any voice has no loss.
    heard = ops.max(active, axis=1)
    return ops.sum(error, axis=1) * heard, heard * error.shape[1]


def _pairwise(estimates: Tensor, targets: Tensor, magnitude: Tensor) -> Tensor:
    """Squared error of each output against each voice, `[batch, output, source]`; no gradient.

    It uses matrix products and avoids the tensor of all differences.
    """
    a = _flat(ops.stop_gradient(estimates) * magnitude[:, None])
    b = _flat(targets * magnitude[:, None])
    cross = ops.matmul(a, ops.transpose(b, (0, 2, 1)))
    own_a = ops.sum(ops.square(a), axis=-1)[:, :, None]
    own_b = ops.sum(ops.square(b), axis=-1)[:, None, :]
    return own_a - 2 * cross + own_b


def _flat(x: Tensor) -> Tensor:
    return ops.reshape(x, (ops.shape(x)[0], x.shape[1], -1))
