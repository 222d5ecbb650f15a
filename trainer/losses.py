"""Targets and losses, on masks and on waveforms, in `keras.ops`.

Each loss is a pair (error, weight) for each example; the loss of many is the sum of their errors
over the sum of their weights, whatever the batches they came in.
"""

import math
from collections.abc import Callable
from typing import Any

from keras import ops

from models import masks, permutation, spectral
from pipeline import ideal_masks
from trainer import metrics

Tensor = Any

# What is nearer to its voice than that needs no more work: its gradient fades out.
CLAMP_DB = 30.0
# A voice that far below its mixture is silent in this window: the range of voice activity.
SILENT_DB = -40.0
# An estimate of a silent voice that far below the mixture is silent enough: the floor of its loss.
FLOOR_DB = -30.0
_TINY = 1e-10
# Far below it, so that a silent estimate is the worst and not as good as a ratio of one.
_SILENT = 1e-16
# Natural logarithms of powers to dB.
_DB = 10 / math.log(10)


def decode_targets(codes: Tensor, target: str, num_sources: int) -> Tensor:
    """The ideal masks of all voices from the codes in the record.

    Args:
        codes: uint8 `[batch, K, frame, bin]`, as `trainer.data.stored_windows` gives them.
        target: one of `schema.MASKS`.
        num_sources: voices.

    Returns:
        float32 `[batch, source, frame, bin]`.
    """
    encoding = ideal_masks.MASKS[target].encoding
    values = ops.cast(codes, "float32") * encoding.scale + encoding.offset
    return masks.complete(values, num_sources)


def fixed_assignment(
    estimates: Tensor, targets: Tensor, frame_mask: Tensor
) -> tuple[Tensor, Tensor]:
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


def on_masks(
    estimates: Tensor, targets: Tensor, magnitude: Tensor, frame_mask: Tensor, *, fixed: bool
) -> tuple[Tensor, Tensor]:
    """The loss that `--assignment` names: `fixed` or `permutation_invariant`."""
    if fixed:
        return fixed_assignment(estimates, targets, frame_mask)
    return permutation_invariant(estimates, targets, magnitude, frame_mask)


def negative_si_sdr(estimates: Tensor, sources: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Negative SI-SDR in dB under the best permutation, which fades out at 30 dB.

    A voice that is silent over the window has no SI-SDR. Its loss is the energy of its estimate
    over that of all voices together, in dB, with a floor at -30 dB (Wisdom et al.: "What's all the
    FUSS about free universal sound separation data?", ICASSP 2021). The permutation is the best
    for the sum of both kinds.

    Y. Luo, N. Mesgarani: "Conv-TasNet", IEEE/ACM Transactions on Audio, Speech, and Language
    Processing 27(8), 2019; the clamp is Zeghidour's and Grangier's (Wavesplit, 2021). Both signals
    are made zero-mean.

    Args:
        estimates: `[batch, source, sample]`.
        sources: the voices, likewise.
        valid: 1 for samples that are not padding, `[batch, sample]`.

    Returns:
        error (sum over the voices) and weight (their number; 0 where all of them are silent),
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

    It asks for the level too. S. Wisdom et al.: "Unsupervised sound separation using mixture
    invariant training", NeurIPS 2020 (their thresholded SNR). Silent voices, arguments and returns
    are those of `negative_si_sdr`.
    """
    valid = ops.cast(valid, "float32")[:, None]
    estimates, sources = estimates * valid, sources * valid
    sources = _assigned(estimates, sources, _cost)
    return _combined(_ratio_db(sources, estimates - sources), estimates, sources)


def negative_magnitude_si_sdr(
    estimates: Tensor, sources: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Negative SI-SDR in dB of the magnitudes of the spectrograms, for auxiliary outputs.

    Of all frames and bins together, through the spectrogram of `models.spectral`. U.-H. Shin et al.
    (SepReformer, NeurIPS 2024) take a longer window. Arguments and returns are those of
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
    """The voices in the estimates' order.

    The order is that of the least cost, a function of the pairs' energies and products
    `[batch, output, source]`; what follows compares the chosen pairs alone.
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
    """1 for voices that are not silent `[batch, source]`; energy of their sum `[batch, 1]`."""
    mixture = ops.sum(ops.square(ops.sum(sources, axis=1)), axis=-1, keepdims=True)
    power = ops.sum(ops.square(sources), axis=-1)
    active = power > mixture * 10 ** (SILENT_DB / 10) + _TINY
    return ops.cast(active, "float32"), mixture


# All are in dB but for a factor, as the losses are: a sum over voices is then a permutation's.
def _scale_invariant_cost(own: Tensor, cross: Tensor, power: Tensor) -> Tensor:
    # SI-SDR = ρ² / (1 - ρ²).
    correlation = ops.square(cross) / (own * power + _TINY)
    ratio = ops.clip(correlation, 1e-6, 1.0)
    return ops.log((1 - ratio) / ratio + 10 ** (-CLAMP_DB / 10))


def _cost(own: Tensor, cross: Tensor, power: Tensor) -> Tensor:
    rest = ops.maximum(own - 2 * cross + power, 0.0)
    return ops.log(rest + 10 ** (-CLAMP_DB / 10) * power + _TINY) - ops.log(power + _SILENT)


def _silence_cost(own: Tensor, mixture: Tensor) -> Tensor:
    """Of estimates of energy `own` that should be silent beside `mixture`."""
    return ops.log(own / (mixture + _TINY) + 10 ** (FLOOR_DB / 10))


def _ratio_db(target: Tensor, noise: Tensor) -> Tensor:
    signal = ops.sum(ops.square(target), axis=-1)
    rest = ops.sum(ops.square(noise), axis=-1) + 10 ** (-CLAMP_DB / 10) * signal
    return _DB * (ops.log(signal + _SILENT) - ops.log(rest + _TINY))


def _combined(ratio_db: Tensor, estimates: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Error and weight of estimates and the voices that they are taken for.

    Args:
        ratio_db: what is wanted of the voices that are active, `[batch, output]`.
        estimates: `[batch, output, sample]`.
        sources: in the order of the outputs, likewise.
    """
    active, mixture = _activity(sources)
    silence_db = _DB * _silence_cost(ops.sum(ops.square(estimates), axis=-1), mixture)
    error = ops.where(active > 0, -ratio_db, silence_db)
    # Of a window without any voice there is nothing to learn.
    heard = ops.max(active, axis=1)
    return ops.sum(error, axis=1) * heard, heard * error.shape[1]


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
