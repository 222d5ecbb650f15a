"""What is trained and what is validated: Keras models around a `Separator`, on any backend."""

from typing import Any

import keras
from keras import ops

from models import separator, spectral
from trainer import losses, metrics, objectives

Tensor = Any


class MaskLearner(keras.Model):
    """A separator with the loss on its masks, against those that the dataset stores.

    `fit` takes `trainer.data.stored_windows.windows`.

    Args:
        model: the separator, whose weights are trained.
        target: the ideal mask to learn, one of `schema.MASKS`.
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
        return objectives.within_reach(decoded, self.separator.network)

    def _error(self, x: dict[str, Tensor], y_pred: Tensor) -> tuple[Tensor, Tensor]:
        return losses.on_masks(
            y_pred, self._targets(x), _magnitude(x), x["frame_mask"], fixed=self.fixed
        )

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


class MixtureLearner(keras.Model):
    """A separator with any loss, on mixtures that are analysed on the device.

    `fit` takes `trainer.data.dynamic_mixing.Batches`, or `trainer.data.stored_windows.windows` of
    `sources`.

    Args:
        model: the separator, whose weights are trained.
        objective: what is asked of it.
        replicas: see `MaskLearner`.

    Call arguments:
        inputs: what `objectives.Mixtures.of` takes.

    Returns:
        What the objective wants of the separator, by name.
    """

    def __init__(
        self, model: separator.Separator, objective: objectives.Objective, replicas: int = 1
    ) -> None:
        super().__init__(dtype="float32")
        self.separator = model
        self.objective = objective
        self.replicas = replicas
        self.mean_loss = keras.metrics.Mean(name="loss")

    def build(self, input_shape: Any = None) -> None:
        if not self.separator.built:
            self.separator.build(None)
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        return self.objective.outputs(self.separator, objectives.Mixtures.of(inputs), training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        mixtures = objectives.Mixtures.of(x)
        error, weight = self.objective.error(y_pred, mixtures, self.separator.network)
        return ops.sum(error) / (ops.sum(weight) + 1e-12) / self.replicas

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        mixtures = objectives.Mixtures.of(x)
        error, weight = self.objective.error(y_pred, mixtures, self.separator.network)
        self.mean_loss.update_state(_ratio(error, weight), weight)
        return {"loss": self.mean_loss.result()}


class WholeMixtures(keras.Model):
    """The figures of a separator on a batch that `trainer.data.validation_batches` makes.

    Args:
        model: the separator.
        objective: whose loss is a figure.

    Call arguments:
        inputs: dict with `sources`, int16 `[batch, source, sample]`, and `num_samples` `[batch]`.

    Returns:
        Dict of float32 `[batch]`: `error` and `weight` of the loss, `agreed` and `counted` bins,
        `si_sdr_improvement` in dB, and `real`, 0 for a row that only fills the batch. A separator
        without masks is taken to have those of its estimates.
    """

    def __init__(self, model: separator.Separator, objective: objectives.Objective) -> None:
        super().__init__(dtype="float32")
        self.separator = model
        self.objective = objective

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        mixtures = objectives.Mixtures.of(inputs)
        estimates = self.separator(mixtures.mixture)
        found = None
        if hasattr(self.separator, "masks"):
            # At the level that it was stored with, as in training on stored masks.
            found = self.separator.masks(mixtures.log_magnitude())
        if self.objective.loss == "mask":
            outputs = {"masks": found}
        elif self.objective.loss == "clustering":
            outputs = self.objective.outputs(self.separator, mixtures)
        else:
            outputs = {"estimates": estimates}
        error, weight = self.objective.error(outputs, mixtures, self.separator.network)
        magnitudes = mixtures.magnitudes
        loudest = ops.max(magnitudes, axis=1, keepdims=True)
        agreed, counted = metrics.mask_agreement(
            spectral.magnitude(*spectral.stft(estimates)) if found is None else found,
            magnitudes,
            mixtures.magnitude,
            mixtures.frame_mask,
            fixed=self.objective.fixed,
            no_tie=ops.sum(ops.cast(magnitudes == loudest, "float32"), axis=1) == 1,
        )
        return {
            "error": error,
            "weight": weight,
            "agreed": agreed,
            "counted": counted,
            "si_sdr_improvement": metrics.si_sdr_improvement(
                estimates, mixtures.sources, mixtures.valid
            ),
            "real": ops.cast(mixtures.num_samples > 0, "float32"),
        }


def _magnitude(x: dict[str, Tensor]) -> Tensor:
    return 10 ** ops.cast(x["log_magnitude"], "float32")


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / ops.where(denominator > 0, denominator, 1.0)
