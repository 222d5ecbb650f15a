"""What is trained and what is validated: Keras models around a `Separator`, on any backend."""

from typing import Any

import keras
from keras import ops

from models import heads, masks, separator, spectral
from pipeline import schema
from trainer import losses, metrics

Tensor = Any


class MaskLearner(keras.Model):
    """A separator with the loss on its masks; `fit` takes `trainer.input.windows`.

    Args:
        model: the separator, whose weights are trained.
        target: the ideal mask to learn: `ibm`, `irm` or `psm`.
        assignment: `fixed` or `pit`.
        replicas: devices that each take a part of the batch and add up their gradients
            (TensorFlow's MirroredStrategy); elsewhere 1.

    Call arguments:
        inputs: dict with `log_magnitude` `[batch, frame, bin]`, as stored.

    Returns:
        float32 masks `[batch, source, frame, bin]`.
    """

    def __init__(
        self, model: separator.Separator, target: str, assignment: str, replicas: int = 1
    ) -> None:
        super().__init__(dtype="float32")
        self.separator = model
        self.target = target
        self.fixed = assignment == "fixed"
        self.replicas = replicas
        # Keras' own mean is over batches; these are over what the loss is relative to.
        self.mean_loss = keras.metrics.Mean(name="loss")
        self.mask_accuracy = keras.metrics.Mean(name="mask_accuracy")

    def build(self, input_shape: Any = None) -> None:
        if not self.separator.built:
            self.separator.build(None)
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        return self.separator.masks(inputs["log_magnitude"], training=training)

    def _targets(self, x: dict[str, Tensor]) -> Tensor:
        decoded = losses.decode_targets(x[self.target], self.target, self.separator.num_sources)
        return _within_reach(decoded, self.separator)

    def _error(self, x: dict[str, Tensor], y_pred: Tensor) -> tuple[Tensor, Tensor]:
        return mask_loss(y_pred, self._targets(x), _magnitude(x), x["frame_mask"], fixed=self.fixed)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        error, weight = self._error(x, y_pred)
        return ops.sum(error) / (ops.sum(weight) + 1e-12) / self.replicas

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        error, weight = self._error(x, y_pred)
        self.mean_loss.update_state(_ratio(error, weight), weight)
        agreed, counted = metrics.mask_agreement(
            y_pred, self._targets(x), _magnitude(x), x["frame_mask"], fixed=self.fixed
        )
        self.mask_accuracy.update_state(_ratio(agreed, counted), counted)
        return {"loss": self.mean_loss.result(), "mask_accuracy": self.mask_accuracy.result()}


class WholeMixtures(keras.Model):
    """The figures of a separator on whole mixtures; `predict` takes `trainer.input.mixtures`.

    Args:
        model: the separator.
        target: the ideal mask that the loss is about.
        assignment: `fixed` or `pit`.

    Call arguments:
        inputs: dict with `sources`, int16 `[batch, source, sample]`, and `num_samples` `[batch]`.

    Returns:
        Dict of float32 `[batch]`: `error` and `weight` of the loss, `agreed` and `counted` bins,
        `si_sdr_improvement` in dB, and `real`, 0 for a row that only fills the batch.
    """

    def __init__(self, model: separator.Separator, target: str, assignment: str) -> None:
        super().__init__(dtype="float32")
        self.separator = model
        self.target = target
        self.fixed = assignment == "fixed"

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        num_samples = inputs["num_samples"]
        sources = ops.cast(inputs["sources"], "float32") / schema.FULL_SCALE
        valid = ops.cast(
            ops.arange(ops.shape(sources)[-1], dtype="int32")[None] < num_samples[:, None],
            "float32",
        )
        mixture = ops.sum(sources, axis=1)
        real, imaginary = spectral.stft(sources)
        magnitudes = spectral.magnitude(real, imaginary)
        mixed = ops.sum(real, axis=1), ops.sum(imaginary, axis=1)
        magnitude = spectral.magnitude(*mixed)
        num_frames = (num_samples + schema.HOP - 1) // schema.HOP + 1
        frames = ops.arange(ops.shape(real)[2], dtype="int32")[None]
        frame_mask = ops.cast(frames < num_frames[:, None], "float32")

        ideal = _within_reach(_ideal(self.target, real, imaginary, magnitudes), self.separator)
        found = self.separator.masks(spectral.log_magnitude(*mixed))
        error, weight = mask_loss(found, ideal, magnitude, frame_mask, fixed=self.fixed)
        loudest = ops.max(magnitudes, axis=1, keepdims=True)
        no_tie = ops.sum(ops.cast(magnitudes == loudest, "float32"), axis=1) == 1
        agreed, counted = metrics.mask_agreement(
            found, magnitudes, magnitude, frame_mask, fixed=self.fixed, no_tie=no_tie
        )
        estimates = self.separator(mixture)
        return {
            "error": error,
            "weight": weight,
            "agreed": agreed,
            "counted": counted,
            "si_sdr_improvement": metrics.si_sdr_improvement(estimates, sources, valid),
            "real": ops.cast(num_samples > 0, "float32"),
        }


def mask_loss(
    estimates: Tensor, targets: Tensor, magnitude: Tensor, frame_mask: Tensor, *, fixed: bool
) -> tuple[Tensor, Tensor]:
    """Error and weight `[batch]` of the loss that `--assignment` names; see `trainer.losses`."""
    if fixed:
        return losses.fixed(estimates, targets, frame_mask)
    return losses.permutation_invariant(estimates, targets, magnitude, frame_mask)


def _ideal(target: str, real: Tensor, imaginary: Tensor, magnitudes: Tensor) -> Tensor:
    if target == "ibm":
        return masks.ideal_binary(magnitudes)
    if target == "irm":
        return masks.ideal_ratio(magnitudes)
    return masks.phase_sensitive(real, imaginary)


def _within_reach(targets: Tensor, model: separator.Separator) -> Tensor:
    """Targets that the network's head can give: a sigmoid learns the PSM clipped to [0, 1]."""
    return ops.clip(targets, *heads.RANGES[getattr(model.network, "head", "linear")])


def _magnitude(x: dict[str, Tensor]) -> Tensor:
    return 10 ** ops.cast(x["log_magnitude"], "float32")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / ops.where(denominator > 0, denominator, 1.0)
