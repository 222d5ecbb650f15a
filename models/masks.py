"""Ideal masks, how to apply masks, and mask accuracy, in `keras.ops`.

`pipeline.ideal_masks` computes the ideal masks of the record in NumPy and defines their ranges and
codes; this module computes them for mixtures made on the device. Axes are
`[..., source, frame, bin]`.
"""

from collections.abc import Callable
from typing import Any, Protocol

from keras import ops

from pipeline import schema

Tensor = Any


def ideal_binary(magnitudes: Tensor) -> Tensor:
    """Ideal binary mask: 1 for the loudest voice of each bin, else 0; ties go to the first voice.

    Args:
        magnitudes: magnitudes of the voices, `[..., source, frame, bin]`.

    Returns:
        float32, the same shape.
    """
    loudest = ops.argmax(magnitudes, axis=-3)
    return ops.moveaxis(ops.one_hot(loudest, magnitudes.shape[-3], dtype="float32"), -1, -3)


def ideal_ratio(magnitudes: Tensor, noise: Tensor | None = None) -> Tensor:
    """Ideal ratio mask: `|S_s| / sum_k |S_k|`, and 1 / S where all are zero.

    Args:
        magnitudes: magnitudes of the voices, `[..., source, frame, bin]`.
        noise: magnitudes of the noise, `[..., frame, bin]`, a further term of the sum.

    Returns:
        float32, the shape of the magnitudes.
    """
    total = ops.sum(magnitudes, axis=-3, keepdims=True)
    if noise is not None:
        total = total + ops.expand_dims(noise, -3)
    share = magnitudes / ops.where(total > 0, total, 1.0)
    return ops.where(total > 0, share, 1 / magnitudes.shape[-3])


def phase_sensitive(
    real: Tensor, imaginary: Tensor, mixture: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Phase-sensitive mask: `Re(S_s / X)`, X the mixture (Erdogan et al. 2015), not clipped.

    Args:
        real: real parts of the voices' spectrograms, `[..., source, frame, bin]`.
        imaginary: imaginary parts, of the same shape.
        mixture: real and imaginary part of the mixture's spectrogram, `[..., frame, bin]`; by
            default the sum of the voices.

    Returns:
        float32, the same shape; 1 / S where the mixture is zero.
    """
    if mixture is None:
        mixture = ops.sum(real, axis=-3), ops.sum(imaginary, axis=-3)
    mixture_real, mixture_imaginary = (ops.expand_dims(part, -3) for part in mixture)
    power = ops.square(mixture_real) + ops.square(mixture_imaginary)
    projection = real * mixture_real + imaginary * mixture_imaginary
    share = projection / ops.where(power > 0, power, 1.0)
    return ops.where(power > 0, share, 1 / real.shape[-3])


class Mixtures(Protocol):
    """The input of the ideal masks; `trainer.objectives.Mixtures` provides it.

    `spectrograms` are the real and imaginary parts of the voices, `[batch, source, frame, bin]`,
    and `magnitudes` their magnitudes. `spectrogram` is that of the mixture, `[batch, frame, bin]`
    each. `noise_magnitude` is None without noise, otherwise `[batch, frame, bin]`.
    """

    @property
    def spectrograms(self) -> tuple[Tensor, Tensor]: ...
    @property
    def magnitudes(self) -> Tensor: ...
    @property
    def spectrogram(self) -> tuple[Tensor, Tensor]: ...
    @property
    def noise_magnitude(self) -> Tensor | None: ...


def _phase_sensitive(mixtures: Mixtures) -> Tensor:
    # Without noise the mixture is the sum of the voices, which needs no further STFT.
    noisy = mixtures.noise_magnitude is not None
    return phase_sensitive(*mixtures.spectrograms, mixtures.spectrogram if noisy else None)


# The masks of all voices, keyed by the names in `pipeline.ideal_masks.MASKS`.
IDEAL: dict[str, Callable[[Mixtures], Tensor]] = {
    "ibm": lambda mixtures: ideal_binary(mixtures.magnitudes),
    "irm": lambda mixtures: ideal_ratio(mixtures.magnitudes, mixtures.noise_magnitude),
    "psm": _phase_sensitive,
}


def complete(masks: Tensor, num_sources: int) -> Tensor:
    """Returns the masks of all voices; a single output is completed to two voices by 1 - mask.

    Args:
        masks: `[batch, output, frame, bin]` with 1 or `num_sources` outputs.
        num_sources: number of voices.

    Returns:
        `[batch, source, frame, bin]`.
    """
    if masks.shape[1] == num_sources:
        return masks
    return ops.concatenate([masks, 1 - masks], axis=1)


def make_consistent(estimates: Tensor, mixture: Tensor) -> Tensor:
    """Adds an equal share of the residual to each estimate, so that they sum to the mixture.

    Mixture consistency: Wisdom et al. 2019.

    Args:
        estimates: `[batch, source, sample]`.
        mixture: `[batch, sample]`.

    Returns:
        `[batch, source, sample]`; the sum over the voices is the mixture.
    """
    missing = mixture[:, None] - ops.sum(estimates, axis=1, keepdims=True)
    return estimates + missing / estimates.shape[1]


def counted_bins(mixture: Tensor, frame_mask: Tensor | None = None) -> Tensor:
    """Returns the bins counted by mask accuracy: those within 40 dB of the mixture's loudest bin.

    Ties are not excluded here. In digital silence, where all bins are at the floor, no bin counts.

    Args:
        mixture: magnitudes of the mixture, `[batch, frame, bin]`.
        frame_mask: 1 for valid frames, `[batch, frame]`.

    Returns:
        float32 of 0 and 1, `[batch, frame, bin]`.
    """
    if frame_mask is not None:
        mixture = mixture * ops.cast(frame_mask, mixture.dtype)[..., None]
    loudest = ops.max(mixture, axis=(-2, -1), keepdims=True)
    threshold = loudest * 10 ** (-schema.ACTIVITY_RANGE_DB / 20)
    # The floor may have changed slightly by a round trip through the logarithm.
    return ops.cast((mixture >= threshold) & (mixture > 1.01 * schema.MAGNITUDE_FLOOR), "float32")
