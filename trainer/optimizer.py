"""The optimizer of a run: Adam or AdamW, the learning rate schedule, and weight averages."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from trainer import config as config_lib


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
    """Makes the optimizer set by `--learning_rate`, `--schedule`, `--warmup_steps` and others.

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
    optimizer: keras.optimizers.Optimizer
    if config.weight_decay:
        optimizer = AdamW(rate, weight_decay=config.weight_decay, warmup_steps=warmup, **common)
        # Weight decay is not useful for gains and biases.
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    else:
        optimizer = Adam(rate, warmup_steps=warmup, **common)
    optimizer.build(list(variables))
    return optimizer


class _WarmUp(keras.optimizers.Optimizer):
    """Raises the learning rate from zero in the first steps; weight decay uses the full rate.

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
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


class Adam(_WarmUp, keras.optimizers.Adam):
    """Adam with a warm-up of `warmup_steps`; otherwise see `keras.optimizers.Adam`."""


class AdamW(_WarmUp, keras.optimizers.AdamW):
    """AdamW with a warm-up of `warmup_steps`; otherwise see `keras.optimizers.AdamW`."""
