"""Several devices, played by one processor, take the same step as one."""

import os
import pathlib
import subprocess
import sys
import types

import keras
import numpy as np
import pytest

from pipeline import errors
from trainer.run import devices

_STEP = """
import sys
import keras
import numpy as np
from models import registry, separator
from pipeline import schema
from trainer.run import devices; from trainer import training_models

backend, count = sys.argv[1], int(sys.argv[2])
assert keras.backend.backend() == backend
if backend == "tensorflow":
    import tensorflow as tf

    processor = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(processor, parts)
    made = tf.distribute.MirroredStrategy
    tf.distribute.MirroredStrategy = lambda: made([f"/cpu:{i}" for i in range(count)])
else:
    assert len(keras.distribution.list_devices("cpu")) == count
devices._count = lambda kind: count

scope, replicas = devices.use_all(4)
rng = np.random.default_rng(0)
with scope():
    network = registry.create("ffn", units=6)
    whole = separator.Separator(network, -3.0, 0.8, -25.0, 8000, 2)
    model = training_models.MaskLearner(whole, "psm", "pit", replicas)
    model.build()
    model.set_weights([rng.normal(size=w.shape) / 10 for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.1))
# Both halves of the batch are the same, so that each part weighs as much as the other.
half = {
    "log_magnitude": rng.normal(-3, 1, (2, 5, schema.NUM_BINS)).astype("float16"),
    "psm": rng.integers(0, 255, (2, 1, 5, schema.NUM_BINS)).astype("uint8"),
    "frame_mask": np.ones((2, 5), "uint8"),
}
batch = {name: np.concatenate([value, value]) for name, value in half.items()}
model.fit(batch, batch_size=4, epochs=2, shuffle=False, verbose=0)
np.savez(sys.argv[3], *model.get_weights())
"""


@pytest.mark.parametrize("found", [False, True])
def test_pytorch_is_asked_itself_since_keras_does_not_list_its_devices(monkeypatch, found):
    cuda = types.SimpleNamespace(is_available=lambda: found)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(keras.distribution, "list_devices", None)
    assert devices.has_gpu() == found
    assert devices.describe().startswith("1 GPU" if found else "CPU (")
    assert devices.use_all(4)[1] == 1


def test_jax_shares_a_batch_equally(monkeypatch):
    monkeypatch.setattr(devices, "_count", lambda kind: 3)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(errors.UserError, match="--batch_size=8 must be a multiple of the 3 GPUs"):
        devices.use_all(8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16\n", False),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("Features\t: fp asimd\n", True),
        ("nothing that is known\n", False),
    ],
)
def test_bfloat16_is_emulated_where_the_processor_does_not_know_it(tmp_path, text, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert devices.emulates_bfloat16(path) == expected
    assert not devices.emulates_bfloat16(tmp_path / "missing")


@pytest.mark.slow
def test_two_devices_take_the_step_of_one(tmp_path):
    weights = []
    for backend, count in (("tensorflow", 1), ("tensorflow", 2), ("jax", 2)):
        path = tmp_path / f"{backend}{count}.npz"
        subprocess.run(
            [sys.executable, "-c", _STEP, backend, str(count), path],
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
            },
            cwd=pathlib.Path(__file__).parents[3],
            check=True,
            timeout=300,
        )
        weights.append(np.load(path))
    assert len(weights[0].files) == 6
    for other in weights[1:]:
        for name in other.files:
            np.testing.assert_allclose(other[name], weights[0][name], atol=1e-6)
