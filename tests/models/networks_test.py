"""What every network must do. A new one is a row in `NETWORKS`."""

import inspect
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from models import registry, separator

# Small settings of each network, and the shape of its input: batch and frame and bin, or sample.
NETWORKS = {
    "ffn": ({"units": 24, "num_layers": 2, "dropout": 0.1}, (3, 20, 129)),
    "lstm": ({"units": 24, "num_layers": 2, "dropout": 0.1}, (3, 20, 129)),
    "blstm": ({"units": 12, "num_layers": 1, "dropout": 0.1}, (2, 9, 129)),
    "deep_clustering": (
        {"units": 12, "num_layers": 1, "dimension": 6, "dropout": 0.1},
        (2, 9, 129),
    ),
    "chimera": ({"units": 12, "num_layers": 1, "dimension": 6, "dropout": 0.1}, (2, 9, 129)),
    "tcn": (
        {"width": 12, "units": 16, "num_layers": 2, "dropout": 0.1, "head": "sigmoid"},
        (2, 9, 129),
    ),
    "band_split": ({"channels": 8, "units": 6, "band_units": 4, "num_layers": 1}, (2, 500)),
    "conv_tasnet": (
        {"filters": 32, "filter_length": 16, "bottleneck": 12, "hidden": 16, "blocks": 2},
        (2, 500),
    ),
    "sepreformer": (
        {
            "channels": 16,
            "num_stages": 1,
            "kernel": 8,
            "filters": 32,
            "heads": 2,
            "local_kernel": 5,
            "encoder_repeats": 1,
            "decoder_repeats": 1,
            "dropout": 0.1,
            "auxiliary": False,
        },
        (2, 500),
    ),
    "tf_locoformer": (
        {"channels": 16, "num_blocks": 1, "hidden": 16, "attention_channels": 16, "dropout": 0.1},
        (2, 500),
    ),
}
ROWS = [pytest.param(name, *row, id=name) for name, row in NETWORKS.items()]
MASKS = [row for row in ROWS if len(row.values[2]) == 3]
WAVEFORMS = [row for row in ROWS if len(row.values[2]) == 2]
# Networks that cluster embeddings: they have no head, need voices to tell apart, and learn with a
# loss of their own, in their own tests.
CLUSTERING = ("deep_clustering",)


def _inputs(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def _still(name, settings):
    """The settings with which a network does not draw at random, for comparisons."""
    return {k: 0.0 if k == "dropout" else v for k, v in settings.items()}


def _squared_error(network, inputs, targets):
    """As `evaluate` gives it, without the graph that takes longer to make than to run."""
    return float(np.mean((np.asarray(network(inputs)) - targets) ** 2))


def _any_length(shape):
    """What a network is built for."""
    return (None,) * 2 if len(shape) == 2 else (None, None, shape[-1])


def test_every_network_has_a_row():
    assert set(NETWORKS) == set(registry.names())


@pytest.mark.parametrize(("name", "settings", "shape"), ROWS)
def test_says_what_it_takes(name, settings, shape):
    takes = {2: "waveform", 3: "log_magnitude"}[len(shape)]
    assert registry.NETWORKS[name].takes == takes
    assert registry.settings(name)["num_outputs"] == 2


@pytest.mark.parametrize(("name", "settings", "shape"), MASKS)
def test_gives_a_mask_for_each_output(name, settings, shape):
    inputs = _inputs(shape)
    for num_outputs in (2, 3) if name in CLUSTERING else (1, 2, 3):
        masks = np.asarray(registry.create(name, num_outputs=num_outputs, **settings)(inputs))
        assert masks.shape == (shape[0], num_outputs, *shape[1:])
        assert masks.dtype == np.float32
        assert masks.min() >= 0
        assert masks.max() <= 1


@pytest.mark.parametrize(("name", "settings", "shape"), MASKS)
def test_takes_every_number_of_frames(name, settings, shape):
    network = registry.create(name, **settings)
    for frames in (1, 2, 33):
        assert network(_inputs((2, frames, 129))).shape == (2, 2, frames, 129)


@pytest.mark.parametrize(("name", "settings", "shape"), WAVEFORMS)
def test_gives_a_waveform_for_each_output(name, settings, shape):
    for num_outputs in (1, 2, 3):
        voices = registry.create(name, num_outputs=num_outputs, **settings)(_inputs(shape))
        assert voices.shape == (shape[0], num_outputs, shape[1])
        assert keras.backend.standardize_dtype(voices.dtype) == "float32"
        assert np.std(voices) > 0


@pytest.mark.parametrize(("name", "settings", "shape"), WAVEFORMS)
def test_takes_every_number_of_samples(name, settings, shape):
    network = registry.create(name, **settings)
    for samples in (1, 2, 333):
        assert network(_inputs((2, samples))).shape == (2, 2, samples)


@pytest.mark.parametrize(("name", "settings", "shape"), MASKS)
def test_heads(name, settings, shape):
    if name in CLUSTERING:
        pytest.skip("has no head")
    inputs = 10 * _inputs(shape)
    masks = {
        head: np.asarray(registry.create(name, **{**settings, "head": head})(inputs))
        for head in ("sigmoid", "linear", "relu", "softmax")
    }
    assert masks["linear"].min() < 0 <= masks["relu"].min()
    np.testing.assert_allclose(masks["softmax"].sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "settings", "shape"), ROWS)
def test_config_holds_every_argument(name, settings, shape):
    network = registry.create(name, num_outputs=3, **settings)
    config = json.loads(json.dumps(network.get_config()))
    arguments = set(inspect.signature(type(network).__init__).parameters) - {"self", "kwargs"}
    assert arguments <= set(config)
    assert config["num_outputs"] == 3
    again = type(network).from_config(config)
    again.build(_any_length(shape))
    network.build(_any_length(shape))
    assert [w.shape for w in again.weights] == [w.shape for w in network.weights]
    assert again.get_config() == network.get_config()


@pytest.mark.parametrize(("name", "settings", "shape"), ROWS)
def test_is_saved_and_loaded_within_a_separator(name, settings, shape, tmp_path):
    network = registry.create(name, **settings)
    whole = separator.wrap(
        network, mean=-3.0, deviation=0.8, active_level_db=-25.0, sample_rate=8000, num_sources=2
    )
    waveform = 0.1 * _inputs((2, 1500))
    expected = np.asarray(whole(waveform))
    whole.save(tmp_path / "best.keras")
    loaded = keras.saving.load_model(tmp_path / "best.keras")
    np.testing.assert_allclose(loaded(waveform), expected, atol=1e-6)
    waveform[0] = 0
    voices = np.asarray(loaded(waveform))
    assert not voices[0].any()
    np.testing.assert_allclose(voices[1], expected[1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "shape"),
    [
        # Their steps take long to trace.
        pytest.param(*row.values, id=row.id, marks=[pytest.mark.slow] if row in WAVEFORMS else [])
        for row in ROWS
    ],
)
def test_learns_one_batch_by_heart(name, settings, shape):
    if name in CLUSTERING:
        pytest.skip("learns its embeddings")
    keras.utils.set_random_seed(0)
    network = registry.create(name, **_still(name, settings))
    if len(shape) == 3:
        inputs = _inputs((2, 8, 129))
        targets = np.random.default_rng(1).uniform(0.2, 0.8, (2, 2, 8, 129)).round()
    else:
        # Two tones each.
        hertz = np.array([[300, 1900], [1100, 500]])[..., None]
        targets = np.sin(2 * np.pi * hertz * np.arange(400) / 8000)
        inputs = targets.sum(axis=1)
    inputs, targets = inputs.astype("float32"), targets.astype("float32")
    network.compile(keras.optimizers.Adam(0.02), "mean_squared_error", jit_compile=False)
    before = _squared_error(network, inputs, targets)
    # Else it is built while the step is traced, which is then traced twice.
    network.optimizer.build(network.trainable_variables)
    # The same batch in every step of one epoch: an epoch costs far more than a step.
    network.fit(
        np.concatenate([inputs] * 80),
        np.concatenate([targets] * 80),
        batch_size=len(inputs),
        shuffle=False,
        verbose=0,
    )
    assert _squared_error(network, inputs, targets) < 0.1 * before


@pytest.mark.parametrize(("name", "settings", "shape"), ROWS)
def test_mixed_precision_keeps_results_and_weights_in_float32(name, settings, shape):
    keras.utils.set_random_seed(0)
    exact = registry.create(name, **_still(name, settings))
    exact.build(_any_length(shape))
    inputs = _inputs(shape)
    mixed = registry.create(name, dtype="mixed_bfloat16", **_still(name, settings))
    mixed.build(_any_length(shape))
    mixed.set_weights(exact.get_weights())
    found = np.asarray(mixed(inputs))
    assert found.dtype == np.float32
    assert {w.dtype for w in mixed.trainable_weights} == {"float32"}
    if name in CLUSTERING:
        # A cluster more or less is another mask altogether.
        expected, found = (np.asarray(n.embeddings(inputs)) for n in (exact, mixed))
    else:
        expected = np.asarray(exact(inputs))
    difference = found - expected
    if len(shape) == 3:
        assert np.abs(difference).max() < (0.05 if name in CLUSTERING else 0.02)
    assert np.std(difference) < 0.03 * np.std(expected)
    assert difference.any()  # It did compute in another precision.


_OTHER_BACKEND = """
import sys
import numpy as np
import keras
from models import registry
assert keras.backend.backend() == sys.argv[1]
jax = __import__("jax") if sys.argv[1] == "jax" else None
data = np.load(sys.argv[2], allow_pickle=True).item()
results = {}
for name, (settings, inputs, weights) in data.items():
    network = registry.create(name, **settings)
    network.build(inputs.shape)
    network.set_weights(weights)
    # Operation by operation JAX would compile for a minute.
    results[name] = np.asarray(jax.jit(network)(inputs) if jax else network(inputs))
np.save(sys.argv[3], results)
"""


@pytest.mark.slow
def test_the_other_backend_gives_the_same(tmp_path):
    pytest.importorskip("jax")
    other = "jax" if keras.backend.backend() == "tensorflow" else "tensorflow"
    data, expected = {}, {}
    for name, (settings, shape) in NETWORKS.items():
        network, inputs = registry.create(name, **settings), _inputs(shape)
        expected[name] = np.asarray(network(inputs))
        data[name] = (settings, inputs, network.get_weights())
    np.save(tmp_path / "data.npy", data)
    subprocess.run(
        [sys.executable, "-c", _OTHER_BACKEND, other, tmp_path / "data.npy", tmp_path / "out.npy"],
        env={**os.environ, "KERAS_BACKEND": other},
        cwd=os.path.dirname(os.path.dirname(registry.__file__)),
        check=True,
        timeout=300,
    )
    results = np.load(tmp_path / "out.npy", allow_pickle=True).item()
    for name, found in results.items():
        np.testing.assert_allclose(found, expected[name], atol=1e-5 * np.abs(expected[name]).max())
