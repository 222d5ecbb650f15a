"""Training objectives for mixtures with known voices: the losses by name.

Each objective chooses the outputs of the separator (`outputs`) and compares them with the reference
(`error`). Spectrograms and ideal masks of the mixtures are computed on the device.
"""

import dataclasses
import functools
from typing import Any

import keras
from keras import ops

from models import masks, separator, spectral
from models.layers import heads
from pipeline import schema
from trainer import clustering_loss, losses

Tensor = Any

LOSSES = ("mask", "sisdr", "snr", "clustering")
# Chimera++ (Wang, Le Roux, Hershey: "Alternative objective functions for deep clustering", 2018).
_CLUSTERING_SHARE = 0.975
# U.-H. Shin et al.: "Separate and reconstruct" (SepReformer), NeurIPS 2024.
_AUXILIARY_SHARE = 0.4


def default_loss(network: type[keras.Model]) -> str:
    """Returns the default loss of a network."""
    if getattr(network, "takes", "log_magnitude") == "waveform":
        return "sisdr"
    return "clustering" if hasattr(network, "embeddings") else "mask"


def learns_masks(loss: str, network: type[keras.Model]) -> bool:
    """Whether an ideal mask (`--target`) is part of what the network learns."""
    return loss == "mask" or (loss == "clustering" and hasattr(network, "both"))


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """A batch of mixtures and derived quantities, each computed on first use.

    Attributes:
        sources: the voices, float32 `[batch, source, sample]`, full scale 1.
        mixture: float32 `[batch, sample]`.
        num_samples: number of valid samples of each row, int32 `[batch]`.
        noise: noise in the mixture, float32 `[batch, sample]`, or None. The target is the voices
            without noise, although the estimates add up to the mixture and so contain all of it;
            the network may distribute it freely. Noise r dB below two equal voices, shared equally,
            limits each to an SI-SDR of r + 3 dB. Targets with half of the noise each would be
            reachable, but would forbid any other share.
    """

    sources: Tensor
    mixture: Tensor
    num_samples: Tensor
    noise: Tensor | None = None

    @classmethod
    def of(cls, batch: dict[str, Tensor]) -> "Mixtures":
        """Makes mixtures from a batch of `trainer.data` (dynamic, stored or validation).

        Args:
            batch: `sources`, int16 or float32 `[batch, source, sample]`; with noise, also `noise`
                `[batch, sample]`; with padding, also `num_samples` `[batch]` or `frame_mask`
                `[batch, frame]`.
        """
        sources = batch["sources"]
        if "int" in keras.backend.standardize_dtype(sources.dtype):
            sources = ops.cast(sources, "float32") / schema.FULL_SCALE
        mixture = ops.sum(sources, axis=1)
        noise = batch.get("noise")
        if noise is not None:
            mixture = mixture + noise
        count, length = ops.shape(mixture)
        if "num_samples" in batch:
            num_samples = batch["num_samples"]
        elif "frame_mask" in batch:
            num_samples = schema.HOP * ops.sum(ops.cast(batch["frame_mask"], "int32"), axis=1)
        else:
            num_samples = ops.full((count,), length, dtype="int32")
        return cls(sources, mixture, num_samples, noise)

    @functools.cached_property
    def valid(self) -> Tensor:
        """1 for samples that are not padding, float32 `[batch, sample]`."""
        positions = ops.arange(ops.shape(self.mixture)[-1], dtype="int32")[None]
        return ops.cast(positions < self.num_samples[:, None], "float32")

    @functools.cached_property
    def frame_mask(self) -> Tensor:
        """1 for frames that contain valid samples, float32 `[batch, frame]`."""
        num_frames = (self.num_samples + schema.HOP - 1) // schema.HOP + 1
        frames = ops.arange(ops.shape(self.spectrograms[0])[2], dtype="int32")[None]
        return ops.cast(frames < num_frames[:, None], "float32")

    @functools.cached_property
    def spectrograms(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of the voices, `[batch, source, frame, bin]`."""
        return spectral.stft(self.sources)

    @functools.cached_property
    def magnitudes(self) -> Tensor:
        """Magnitudes of the voices, `[batch, source, frame, bin]`."""
        return spectral.magnitude(*self.spectrograms)

    @functools.cached_property
    def spectrogram(self) -> tuple[Tensor, Tensor]:
        """Real and imaginary part of the mixture, `[batch, frame, bin]`."""
        return spectral.stft(self.mixture)

    @functools.cached_property
    def magnitude(self) -> Tensor:
        """Magnitude of the mixture, `[batch, frame, bin]`."""
        return spectral.magnitude(*self.spectrogram)

    @functools.cached_property
    def noise_magnitude(self) -> Tensor | None:
        """Magnitude of the noise, `[batch, frame, bin]`, or None without noise."""
        return None if self.noise is None else spectral.magnitude(*spectral.stft(self.noise))

    def log_magnitude(self, gain: Tensor | float = 1.0) -> Tensor:
        """Log-magnitude of the mixture times a gain `[batch]`; `[batch, frame, bin]`."""
        real, imaginary = self.spectrogram
        gain = ops.reshape(ops.convert_to_tensor(gain), (-1, 1, 1))
        return spectral.log_magnitude(real * gain, imaginary * gain)

    def ideal_masks(self, target: str) -> Tensor:
        """Returns the ideal masks of all voices, of one of the kinds in `schema.MASKS`."""
        return masks.IDEAL[target](self)


def within_reach(targets: Tensor, network: keras.Model) -> Tensor:
    """Clips targets to the range of a network's head, such as [0, 1] for a sigmoid."""
    return ops.clip(targets, *heads.RANGES[getattr(network, "head", "linear")])


class Objective:
    """A training objective for a separator.

    Args:
        loss: one of `LOSSES`.
        target: the ideal mask that the loss `mask` learns.
        fixed: whether the outputs are in the order of the voices (`--assignment=fixed`).
    """

    def __init__(self, loss: str, target: str = "psm", fixed: bool = False) -> None:
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; known are {LOSSES}")
        self.loss = loss
        self.target = target
        self.fixed = fixed

    def outputs(
        self, model: separator.Separator, mixtures: Mixtures, training: bool | None = None
    ) -> dict[str, Any]:
        """Returns the model outputs that `error` needs."""
        if self.loss in ("sisdr", "snr"):
            if training and hasattr(model.network, "with_auxiliary"):
                estimates, auxiliary = model.with_auxiliary(mixtures.mixture, training=training)
                return {"estimates": estimates, "auxiliary": auxiliary}
            return {"estimates": model(mixtures.mixture, training=training)}
        log_magnitude = mixtures.log_magnitude(model.gain(mixtures.mixture))
        if self.loss == "mask":
            return {"masks": model.masks(log_magnitude, training=training)}
        normalised = model.normalise(log_magnitude)
        if hasattr(model.network, "both"):
            found, embeddings = model.network.both(normalised, training=training)
            return {"masks": ops.cast(found, "float32"), "embeddings": embeddings}
        return {"embeddings": model.network.embeddings(normalised, training=training)}

    def error(
        self, outputs: dict[str, Any], mixtures: Mixtures, network: keras.Model
    ) -> tuple[Tensor, Tensor]:
        """Error and weight, float32 `[batch]`; a mean loss is the ratio of their sums."""
        if "estimates" in outputs:
            return self._waveform_error(outputs, mixtures)
        if "embeddings" not in outputs:
            return self._mask_error(outputs["masks"], mixtures, network)
        error, weight = clustering_loss.clustering_loss(
            outputs["embeddings"],
            masks.ideal_binary(mixtures.magnitudes),
            masks.counted_bins(mixtures.magnitude, mixtures.frame_mask),
        )
        if "masks" not in outputs:
            return error, weight
        other, other_weight = self._mask_error(outputs["masks"], mixtures, network)
        total = _CLUSTERING_SHARE * error / ops.maximum(weight, 1e-9)
        total += (1 - _CLUSTERING_SHARE) * other / ops.maximum(other_weight, 1e-9)
        # Silence has no loss.
        heard = ops.cast(weight > 0, total.dtype)
        return total * heard, heard

    def _waveform_error(self, outputs: dict[str, Any], mixtures: Mixtures) -> tuple[Tensor, Tensor]:
        measure = losses.negative_snr if self.loss == "snr" else losses.negative_si_sdr
        error, weight = measure(outputs["estimates"], mixtures.sources, mixtures.valid)
        auxiliary = outputs.get("auxiliary")
        if not auxiliary:
            return error, weight
        others = [
            losses.negative_magnitude_si_sdr(estimates, mixtures.sources, mixtures.valid)[0]
            for estimates in auxiliary
        ]
        mean = sum(others) / len(others)
        return (1 - _AUXILIARY_SHARE) * error + _AUXILIARY_SHARE * mean, weight

    def _mask_error(
        self, found: Tensor, mixtures: Mixtures, network: keras.Model
    ) -> tuple[Tensor, Tensor]:
        return losses.on_masks(
            found,
            within_reach(mixtures.ideal_masks(self.target), network),
            mixtures.magnitude,
            mixtures.frame_mask,
            fixed=self.fixed,
        )
