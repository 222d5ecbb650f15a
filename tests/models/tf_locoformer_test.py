"""TF-Locoformer's size against the literature's figures, and its parts against NumPy."""

import keras
import numpy as np
import pytest
import scipy.signal
import scipy.special
from keras import ops

from benchmarks import operations
from models import tf_locoformer

SMALL = {"channels": 8, "num_blocks": 1, "hidden": 12, "attention_channels": 16, "heads": 2}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


# Multiply-adds as counted for the literature's 16,000 samples.
@pytest.mark.parametrize(
    ("size", "parameters", "multiply_adds"),
    [("S", 5.0e6, 48e9), ("M", 15.0e6, 132e9), ("tiny", 0.95e6, 9.2e9)],
)
def test_sizes_are_the_literatures(size, parameters, multiply_adds):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("operations are counted on TensorFlow")
    network = tf_locoformer.TFLocoformer(size=size)
    network.build((None, None))
    found = operations.cost(network)
    assert found.parameters == pytest.approx(parameters, rel=0.05)
    assert found.multiply_adds == pytest.approx(multiply_adds, rel=0.10)


def test_rms_group_norm():
    layer = tf_locoformer.RMSGroupNorm(groups=2)
    x = 3 * normal(2, 5, 6)
    layer(x)
    gain = np.arange(1, 7)
    layer.gain.assign(gain)
    first, second = x[..., :3], x[..., 3:]
    expected = [y / np.sqrt((y**2).mean(axis=-1, keepdims=True) + 1e-5) for y in (first, second)]
    np.testing.assert_allclose(layer(x), np.concatenate(expected, axis=-1) * gain, rtol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 4])
def test_conv_feed_forward_is_a_convolution_and_a_transposed_one(kernel):
    """Against SciPy's full convolutions, channel by channel."""
    channels, hidden, positions = 4, 5, 9
    layer = tf_locoformer.ConvFeedForward(channels, hidden, kernel, 2, 0.0)
    x = normal(2, positions, channels)
    layer(x)
    rng = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(rng.normal(size=weight.shape))
    into, offset = (np.asarray(w) for w in layer.expand.weights)
    into = into.reshape(kernel, channels, 2 * hidden)
    back = np.asarray(layer.reduce.kernel).reshape(hidden, kernel, channels)
    normed = np.asarray(layer.norm(x))
    for row in range(2):
        wide = np.empty((positions + kernel - 1, 2 * hidden))
        for c in range(2 * hidden):
            # A convolution in the sense of networks turns no kernel around.
            parts = [np.convolve(normed[row, :, d], into[::-1, d, c]) for d in range(channels)]
            wide[:, c] = sum(parts) + offset[c]
        gated = wide[:, :hidden] * wide[:, hidden:] * scipy.special.expit(wide[:, hidden:])
        for d in range(channels):
            parts = [np.convolve(gated[:, c], back[c, :, d]) for c in range(hidden)]
            expected = sum(parts)[kernel - 1 :][:positions] + np.asarray(layer.bias)[d]
            np.testing.assert_allclose(layer(x)[row, :, d], expected, rtol=1e-3, atol=1e-3)


def test_attention_knows_distances_alone():
    """What is repeated further on attends alike: rotary positions have no origin."""
    layer = tf_locoformer.RotaryAttention(8, 16, 2, 4, 0.0)
    x = normal(1, 6, 8)
    found = np.asarray(layer(x))
    # The order of positions matters, ...
    turned = np.asarray(layer(x[:, ::-1]))[:, ::-1]
    assert np.abs(turned - found).max() > 1e-3
    # ... not where they start.
    query_and_key = layer.project(layer.norm(x))
    assert query_and_key.shape == (1, 6, 48)
    same = np.asarray(layer(np.repeat(x[:, :1], 6, axis=1)))
    np.testing.assert_allclose(same, np.repeat(same[:, :1], 6, axis=1), atol=1e-5)


def test_a_path_mixes_positions_of_one_row_alone():
    path = tf_locoformer.Path(8, 12, 16, 2, 4, 4, 0.0)
    x = normal(3, 10, 8)
    changed = x.copy()
    changed[1, 4] += 1
    before, after = np.asarray(path(x)), np.asarray(path(changed))
    np.testing.assert_allclose(after[[0, 2]], before[[0, 2]], atol=1e-6)
    assert (np.abs(after[1] - before[1]).max(axis=-1) > 1e-6).all()


def test_level_in_level_out():
    network = tf_locoformer.TFLocoformer(**SMALL)
    x = normal(2, 1000)
    found = np.asarray(network(x))
    np.testing.assert_allclose(
        np.asarray(network(1e-3 * x)) * 1e3, found, atol=1e-4 * np.abs(found).max()
    )


def test_spectra_come_out_as_they_went_in():
    """The last layer, told to copy the first one's input, gives the mixture back."""
    network = tf_locoformer.TFLocoformer(**SMALL)
    x = 0.2 * normal(1, 1500)
    network(x)
    for path in (*network.along_frequency, *network.along_time):
        for weight in path.trainable_weights:
            weight.assign(np.zeros(weight.shape))
    enter, leave = np.zeros((3, 3, 2, 8)), np.zeros((3, 3, 4, 8))
    enter[1, 1, 0, 0] = enter[1, 1, 1, 1] = 1
    # Voice 1 gets real and imaginary part, voice 2 nothing.
    leave[1, 1, 0, 0] = leave[1, 1, 2, 1] = 1
    network.enter.kernel.assign(enter)
    network.leave.kernel.assign(leave)
    found = np.asarray(network(x))
    assert np.abs(found[0, 1]).max() < 1e-6
    # The norm over everything changed the scale, and nothing else but a little at zero frequency.
    scale = np.dot(found[0, 0], x[0]) / np.dot(x[0], x[0])
    error = found[0, 0] / scale - x[0]
    assert np.square(error).sum() < 0.01 * np.square(x).sum()


def test_noise_of_variance_one_has_bins_of_variance_one():
    network = tf_locoformer.TFLocoformer(**SMALL)
    network.build((None, None))
    seen = []

    def enter(spectra):
        seen.append(np.asarray(spectra))
        return ops.zeros((1, 126, 65, 8))

    network.enter.call = enter
    network(5 * normal(1, 8000))
    # Real and imaginary part together, away from the ends.
    assert np.square(seen[0][0, 2:-2, 2:-2]).sum(axis=-1).mean() == pytest.approx(1, rel=0.05)


def test_silence_stays_silent():
    network = tf_locoformer.TFLocoformer(**SMALL)
    found = np.asarray(network(np.zeros((1, 400), "float32")))
    np.testing.assert_allclose(found, 0, atol=1e-9)
    assert ops.shape(network(np.zeros((1, 1), "float32"))) == (1, 2, 1)


def test_padding_changes_nothing_before_it():
    network = tf_locoformer.TFLocoformer(**SMALL)
    x = 0.1 * normal(2, 700)
    x[1, 333:] = 0
    expected = np.asarray(network(x))
    scale = np.abs(expected).max()
    padded = np.asarray(network(np.pad(x, [(0, 0), (0, 900)])))
    np.testing.assert_allclose(padded[..., :700], expected, atol=1e-4 * scale)
    alone = np.asarray(network(x[1:, :333]))
    np.testing.assert_allclose(expected[1:, :, :333], alone, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "settings", [{"size": "XXL"}, {"channels": 10}, {"attention_channels": 36, "heads": 4}]
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"size|groups|heads"):
        tf_locoformer.TFLocoformer(**settings)
