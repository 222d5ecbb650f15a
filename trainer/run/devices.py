"""The devices used: all GPUs that the backend finds, or the CPU."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import keras

from pipeline.io import cores
from trainer import config as config_lib

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def describe() -> str:
    """Describes the devices, such as `2 GPUs` or `CPU (8 cores)`."""
    gpus = _count("gpu")
    if gpus:
        return f"{gpus} GPU{'s' if gpus > 1 else ''}"
    count = cores.available_cores()
    return f"CPU ({count} core{'s' if count != 1 else ''})"


def has_gpu() -> bool:
    """Whether the backend uses a GPU."""
    return _count("gpu") > 0


def emulates_bfloat16(cpuinfo: pathlib.Path = _CPUINFO) -> bool:
    """Whether the CPU has no bfloat16 instructions, so that bfloat16 is not faster.

    Args:
        cpuinfo: file with Linux's description of the CPU; False if it does not exist.
    """
    if has_gpu():
        return False
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    # The row is named "flags" on x86, "Features" on ARM.
    rows = [line.partition(":") for line in lines]
    known = {
        w for name, _, words in rows if name.strip() in ("flags", "Features") for w in words.split()
    }
    return bool(known) and not known & {"amx_bf16", "avx512_bf16", "bf16"}


def use_all(
    batch_size: int,
) -> tuple[Callable[[], contextlib.AbstractContextManager[Any]], int]:
    """Spreads each batch over all GPUs.

    Args:
        batch_size: number of windows in a batch.

    Returns:
        A function that gives the scope for making models, and the number of replicas. Each replica
        computes the loss of a part of the batch and the gradients are summed. The number is 1 on
        JAX, which computes as if there were one device, and on PyTorch, which uses one device.

    Raises:
        SettingsError: on JAX, the GPUs cannot share a batch equally.
    """
    count = _count("gpu")
    if count < 2:
        return contextlib.nullcontext, 1
    if keras.backend.backend() == "jax":
        if batch_size % count:
            raise config_lib.SettingsError(
                f"--batch_size={batch_size} must be a multiple of the {count} GPUs that share a "
                "batch"
            )
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
    if keras.backend.backend() == "torch":
        import torch

        # Keras does not list PyTorch's devices; it uses the first.
        return int(kind == "gpu" and torch.cuda.is_available())
    return len(keras.distribution.list_devices(kind)) if _has(kind) else 0


def _has(kind: str) -> bool:
    try:
        return bool(keras.distribution.list_devices(kind))
    except RuntimeError:  # Raised by JAX if there is no platform of that kind.
        return False
