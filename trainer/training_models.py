"""Keras models for training and validation around a `Separator`, on any backend."""

from typing import Any

import keras
from keras import ops

from models import separator, spectral
from trainer import losses, metrics, objectives

Tensor = Any


class _Learner(keras.Model):
    """A separator and its loss: the error over the weight of a batch, both from `_error`.

    Args:
        model: separator to train.
        replicas: see `MaskLearner`.
    """

    def __init__(self, model: separator.Separator, replicas: int) -> None:
        super().__init__(dtype="float32")
        self.separator = model
        self.replicas = replicas
        # Keras averages over batches; this mean is weighted by the weight of the loss.
        self.mean_loss = keras.metrics.Mean(name="loss")

    def build(self, input_shape: Any = None) -> None:
        if not self.separator.built:
            self.separator.build(None)
        self.built = True

    def _error(self, x: dict[str, Tensor], y_pred: Any) -> tuple[Tensor, Tensor]:
        """Returns error and weight of the loss, `[batch]`."""
        raise NotImplementedError

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
        return {"loss": self.mean_loss.result()}


class MaskLearner(_Learner):
    """A separator trained with a loss on its masks, against the ideal masks of the dataset.

    `fit` takes the dataset from `trainer.data.stored_windows.windows`.

    Args:
        model: separator to train.
        target: ideal mask to learn, one of `schema.MASKS`.
        assignment: `fixed` or `pit`.
        replicas: number of devices that share a batch and sum their gradients (TensorFlow's
            MirroredStrategy); otherwise 1.

    Call arguments:
        inputs: dict with `log_magnitude` `[batch, frame, bin]`, as stored.

    Returns:
        float32 masks `[batch, source, frame, bin]`.
    """

    def __init__(
        self, model: separator.Separator, target: str, assignment: str, replicas: int = 1
    ) -> None:
        super().__init__(model, replicas)
        self.target = target
        self.fixed = assignment == "fixed"
        self.mask_accuracy = keras.metrics.Mean(name="mask_accuracy")

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        return self.separator.masks(inputs["log_magnitude"], training=training)

    def _targets(self, x: dict[str, Tensor]) -> Tensor:
        decoded = losses.decode_targets(x[self.target], self.target, self.separator.num_sources)
        return objectives.within_reach(decoded, self.separator.network)

    def _error(self, x: dict[str, Tensor], y_pred: Tensor) -> tuple[Tensor, Tensor]:
        return losses.on_masks(
            y_pred, self._targets(x), _magnitude(x), x["frame_mask"], fixed=self.fixed
        )

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        loss = super().compute_metrics(x, y, y_pred)
        agreed, counted = metrics.mask_agreement(
            y_pred, self._targets(x), _magnitude(x), x["frame_mask"], fixed=self.fixed
        )
        self.mask_accuracy.update_state(_ratio(agreed, counted), counted)
        return {**loss, "mask_accuracy": self.mask_accuracy.result()}


class MixtureLearner(_Learner):
    """A separator trained with any loss, on mixtures whose STFT is computed on the device.

    `fit` takes `trainer.data.dynamic_mixing.Batches`, or `trainer.data.stored_windows.windows` with
    the feature `sources`.

    Args:
        model: separator to train.
        objective: training objective.
        replicas: see `MaskLearner`.

    Call arguments:
        inputs: a batch for `objectives.Mixtures.of`.

    Returns:
        The outputs of the separator that the objective needs, by name.
    """

    def __init__(
        self, model: separator.Separator, objective: objectives.Objective, replicas: int = 1
    ) -> None:
        super().__init__(model, replicas)
        self.objective = objective

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> dict[str, Tensor]:
        return self.objective.outputs(self.separator, objectives.Mixtures.of(inputs), training)

    def _error(self, x: dict[str, Tensor], y_pred: Any) -> tuple[Tensor, Tensor]:
        mixtures = objectives.Mixtures.of(x)
        return self.objective.error(y_pred, mixtures, self.separator.network)


class WholeMixtures(keras.Model):
    """Computes the metrics of a separator on a batch from `trainer.data.validation_batches`.

    Args:
        model: the separator.
        objective: objective whose loss is one of the metrics.

    Call arguments:
        inputs: dict with `sources`, int16 `[batch, source, sample]`, and `num_samples` `[batch]`.

    Returns:
        Dict of float32 `[batch]`: `error` and `weight` of the loss, `agreed` and `counted` bins,
        `si_sdr_improvement` in dB, and `real`, 0 for an empty row. For a separator without masks,
        the magnitudes of its estimates are used.
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
            # At the stored level, as in training on stored masks.
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
