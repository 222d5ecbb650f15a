"""The optimizer of a run: Adam or Muon, the learning rate schedule, and weight averages."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from trainer import config as config_lib

# Momentum of Muon, and the root mean square of its steps at a rate of 1: that of Adam in practice.
_MOMENTUM = 0.95
_RMS = 0.2
# Smaller weights are no matrices, such as the taps of a depthwise convolution.
_SMALLEST = 8


def cosine(config: config_lib.Config, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """Returns the learning rate schedule of `--schedule=cosine`.

    Args:
        config: all settings.
        steps: number of steps in an epoch.
    """
    warmup, rate = config.warmup_steps, config.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else rate,
        max(steps * config.epochs - warmup, 1),
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def make(
    config: config_lib.Config, steps: int, variables: Sequence[keras.Variable]
) -> keras.optimizers.Optimizer:
    """Makes the optimizer set by `--optimizer`, `--learning_rate`, `--schedule` and others.

    Args:
        config: all settings.
        steps: number of steps in an epoch.
        variables: trainable variables.

    Returns:
        The optimizer, built.
    """
    warmup = config.warmup_steps
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate, warmup = cosine(config, steps), 0
    common: dict[str, Any] = {"global_clipnorm": config.clip_norm or None}
    if config.ema:
        common |= {"use_ema": True, "ema_momentum": config.ema}
    kind = Muon if config.optimizer == "muon" else Adam
    optimizer = kind(rate, weight_decay=config.weight_decay or None, warmup_steps=warmup, **common)
    # Weight decay is not useful for gains and biases.
    optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    optimizer.build(list(variables))
    return optimizer


class Adam(keras.optimizers.Adam):
    """Adam with a warm-up of `warmup_steps`; weight decay uses the full rate from the start.

    The optimizer does this because a callback or schedule cannot: on JAX, optimizer variables are
    not accessible during an epoch, and a plateau callback cannot change the rate of a schedule.
    """

    def __init__(self, *arguments: Any, warmup_steps: int = 0, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.warmup_steps = warmup_steps

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.warmup_steps:
            share = ops.cast(self.iterations + 1, learning_rate.dtype) / self.warmup_steps
            learning_rate = learning_rate * ops.minimum(share, 1.0)
        self.change(gradient, variable, learning_rate)

    def last_rate(self) -> float:
        """Returns the learning rate of the last step, warm-up included."""
        step = max(int(ops.convert_to_numpy(self.iterations)) - 1, 0)
        rate: Any = self._learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = rate(step)
        share = min((step + 1) / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        return share * float(ops.convert_to_numpy(rate))

    def change(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Changes a variable by its gradient at a learning rate."""
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


class Muon(Adam):
    """Muon for matrices, Adam for everything else and the layers that make the masks.

    K. Jordan et al.: "Muon: an optimizer for hidden layers in neural networks", 2024. A step is the
    momentum with all its singular values set to about 1. It is scaled as by J. Liu et al.: "Muon is
    scalable for LLM training", arXiv:2502.16982, so that elements change as much as with Adam.

    `keras.optimizers.Muon` takes two-dimensional weights as one matrix each. Here the gates of an
    LSTM and the bands of a kernel are matrices of their own.
    """

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        self._paths = [v.path for v in variables]

    def change(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        path, shape = self._paths[index], variable.shape
        if len(shape) < 2 or min(shape[-2:]) < _SMALLEST or "mask" in path:
            super().change(gradient, variable, learning_rate)
            return
        momentum = self._momentums[index]
        self.assign(momentum, momentum * _MOMENTUM + gradient)
        step = momentum * _MOMENTUM + gradient
        gates = 4 if "lstm_cell" in path else 1
        # The gates, [input, gate · unit], become [gate, input, unit].
        step = ops.reshape(step, (*shape[:-1], gates, shape[-1] // gates))
        step = ops.moveaxis(step, -2, 0)
        step = orthogonalised(step) * (_RMS * max(step.shape[-2:]) ** 0.5)
        step = ops.reshape(ops.moveaxis(step, 0, -2), shape)
        self.assign_sub(variable, learning_rate * step)


def orthogonalised(matrices: Any) -> Any:
    """Sets all singular values of matrices `[..., row, column]` to between about 0.7 and 1.2.

    Five Newton-Schulz iterations with the coefficients of Jordan et al.; the singular vectors stay.
    Singular values below about a thousandth of the largest become smaller than that.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = ops.swapaxes(matrices, -1, -2) if tall else matrices
    x = x / (ops.sqrt(ops.sum(ops.square(x), axis=(-2, -1), keepdims=True)) + 1e-7)
    for _ in range(5):
        square = ops.matmul(x, ops.swapaxes(x, -1, -2))
        change = -4.7750 * square + 2.0315 * ops.matmul(square, square)
        x = 3.4445 * x + ops.matmul(change, x)
    return ops.swapaxes(x, -1, -2) if tall else x
