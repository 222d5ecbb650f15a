"""The optimizer of a run: Adam or AdamW, its learning rate over the steps, averages of weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from trainer import config as config_lib


def cosine(config: config_lib.Config, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """The learning rate of `--schedule=cosine` by the number of the step.

    Args:
        config: all settings.
        steps: of an epoch.
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
    """What `--learning_rate`, `--schedule`, `--warmup_steps` and their like ask for.

    Args:
        config: all settings.
        steps: of an epoch.
        variables: that are trained.

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
        # Gains and biases have no reason to be small.
        optimizer.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
    else:
        optimizer = Adam(rate, warmup_steps=warmup, **common)
    optimizer.build(list(variables))
    return optimizer


class _WarmUp(keras.optimizers.Optimizer):
    """Raises the learning rate from zero in a run's first steps; that of the decay is the full one.

    It is the optimizer's own doing, and no callback's: on JAX its variables are out of reach while
    an epoch runs, and of a schedule the plateau could not change the rate.
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
