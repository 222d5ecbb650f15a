"""What is computed on: all GPUs that the backend finds, or the processor."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from pipeline.io import cores


def describe() -> str:
    """The devices in words, such as `2 GPUs` or `CPU (8 cores)`."""
    gpus = _count("gpu")
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''}"
    count = cores.available_cores()
    return f"CPU ({count} core{'s' if count != 1 else ''})"


def has_gpu() -> bool:
    """Whether the backend computes on one."""
    return _count("gpu") > 0


def use_all() -> tuple[Callable[[], contextlib.AbstractContextManager[Any]], int]:
    """Spreads each batch over all GPUs.

    Returns:
        What gives the scope to make models in, and into how many parts a batch falls, each with a
        loss of its own whose gradients are added up (JAX computes as if there were one device: 1).
    """
    if _count("gpu") < 2:
        return contextlib.nullcontext, 1
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
        return contextlib.nullcontext, 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy()
        return strategy.scope, strategy.num_replicas_in_sync
    return contextlib.nullcontext, 1


def _count(kind: str) -> int:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return len(tf.config.list_logical_devices(kind.upper()))
    return len(keras.distribution.list_devices(kind)) if _has(kind) else 0


def _has(kind: str) -> bool:
    try:
        return bool(keras.distribution.list_devices(kind))
    except RuntimeError:  # JAX raises where there is no platform of that kind.
        return False
