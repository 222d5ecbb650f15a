"""The child process of `benchmarks.step` for training steps on Keras.

`network` is a network of `models` and `keras` the same with Keras' own layers (for a `tcn`, the
network with its blocks run layer by layer); both learn the masks with the mean squared error.
`trainer` is what `trainer.task` runs: the network within the separator, decoding of stored masks,
the best permutation, gradient clipping and metrics.
"""

import json
import sys
import time
import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import children
from models import registry
from models.layers import fused_convolution, fused_lstm
from pipeline import schema
from trainer import config as config_lib
from trainer import training


def main(case: dict[str, Any]) -> None:
    """Serves a `benchmarks.step.Case` plus `variant`: `network`, `keras` or `trainer`."""
    model, batch = {"network": _network, "keras": _keras, "trainer": _trainer}[case["variant"]](
        case
    )
    children.serve(
        {
            "steps": lambda count: _seconds_a_step(model, batch, count),
            "about": lambda: {"parameters": model.count_params()},
            "matmul": _matmul,
            "tanh": _tanh,
        }
    )


def _network(case: dict[str, Any]) -> tuple[keras.Model, Any]:
    if case["bands"]:
        return _bands(case)
    model = registry.create(
        _name(case), num_outputs=2, units=case["units"], num_layers=case["layers"],
        num_bins=case["bins"], dtype=_policy(case), **_arguments(case),
    )  # fmt: skip
    shape = (case["batch"], case["frames"], case["bins"])
    model.build(shape)
    for layers in (fused_lstm, fused_convolution):
        layers.set_fused(model, not case["jit"] and case["variant"] == "network")
    return _compiled(model, case), (_noise(shape), _uniform((shape[0], 2, *shape[1:])))


def _bands(case: dict[str, Any]) -> tuple[keras.Model, Any]:
    model = registry.create("band_split", **_arguments(case), dtype=_policy(case))
    samples = case["frames"] * schema.HOP
    model.build((case["batch"], samples))
    fused_lstm.set_fused(model, case["variant"] == "network")
    x = 0.05 * _noise((case["batch"], samples))
    return _compiled(model, case), (x, 0.05 * _noise((case["batch"], 2, samples)))


def _arguments(case: dict[str, Any]) -> dict[str, int]:
    """Returns the settings that only some networks have."""
    if case["bands"]:
        half = case["units"] // 2
        return {"channels": case["width"], "band_units": half, "stack": case["stack"]}
    return {k: case[k] for k in ("width", "repeats") if case[k]}


def _name(case: dict[str, Any]) -> str:
    """Returns the network's name in the registry."""
    return "tcn" if case["repeats"] else case["network"]


def _keras(case: dict[str, Any]) -> tuple[keras.Model, Any]:
    if case["repeats"] or case["bands"]:
        return _network(case)
    layers: list[keras.layers.Layer] = []
    for _ in range(case["layers"]):
        layer = keras.layers.LSTM(case["units"], return_sequences=True, dtype=_policy(case))
        if case["network"] == "blstm":
            layer = keras.layers.Bidirectional(layer, dtype=_policy(case))
        layers.append(layer)
    layers.append(keras.layers.Dense(2 * case["bins"], activation="sigmoid", dtype=_policy(case)))
    model = keras.Sequential(layers)
    shape = (case["batch"], case["frames"], case["bins"])
    model.build(shape)
    return _compiled(model, case), (_noise(shape), _uniform((*shape[:2], 2 * shape[2])))


def _compiled(model: keras.Model, case: dict[str, Any]) -> keras.Model:
    model.compile(keras.optimizers.Adam(1e-3), loss="mse", jit_compile=case["jit"])
    return model


def _trainer(case: dict[str, Any]) -> tuple[keras.Model, Any]:
    on_waveforms = bool(case["repeats"] or case["bands"])
    config = config_lib.Config(
        model=_name(case), units=case["units"], layers=case["layers"],
        model_arg=tuple(f"{k}={v}" for k, v in _arguments(case).items()),
        loss="sisdr" if on_waveforms else "mask", mixing="dynamic" if on_waveforms else "static",
        frames=case["frames"], batch_size=case["batch"],
        mixed_precision=case["precision"] == "bfloat16", jit_compile=case["jit"],
    )  # fmt: skip
    info: Any = types.SimpleNamespace(
        mean=-3.7, deviation=0.8, active_level_db=-23.0, sample_rate=8000, num_sources=2
    )
    model = training.make_learner(config, info, replicas=1)
    training._compile(model, config, steps=1000)
    if on_waveforms:
        sources = 0.05 * _noise((case["batch"], 2, case["frames"] * schema.HOP))
        return model, {"sources": sources}
    shape = (case["batch"], case["frames"], case["bins"])
    batch = {
        "log_magnitude": (0.8 * _noise(shape) - 3.7).astype(np.float16),
        "psm": (255 * _uniform((shape[0], 1, *shape[1:]))).astype(np.uint8),
        "frame_mask": np.ones(shape[:2], np.uint8),
    }
    return model, batch


def _policy(case: dict[str, Any]) -> str:
    return "mixed_bfloat16" if case["precision"] == "bfloat16" else "float32"


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _uniform(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


class _Clock(keras.callbacks.Callback):
    """Records when each step ends."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.times.append(time.perf_counter())


def _seconds_a_step(model: keras.Model, batch: Any, count: int) -> float:
    """Measures seconds per step of `fit`, after one extra step that covers the start of `fit`."""
    same = tf.data.Dataset.from_tensors(batch).repeat(count + 1)
    clock = _Clock()
    model.fit(same, epochs=1, verbose=0, callbacks=[clock])
    return (clock.times[-1] - clock.times[0]) / count


def _matmul(m: int, k: int, n: int, seconds: float) -> float:
    a, b = tf.random.normal((m, k)), tf.random.normal((k, n))
    return children.fastest(lambda: tf.linalg.matmul(a, b), seconds)


def _tanh(rows: int, columns: int, seconds: float) -> float:
    a = tf.random.normal((rows, columns))
    return children.fastest(lambda: tf.tanh(a), seconds)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
