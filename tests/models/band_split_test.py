"""The band-split network: its masks, its padding, its guide, and the fast way of training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import band_split, registry
from models.layers import fused_lstm

SMALL = {"channels": 8, "units": 6, "band_units": 4, "num_layers": 2}


def _network(seed=0, **settings):
    """A network whose layers all do something: the last layers of its paths are zero at first."""
    keras.utils.set_random_seed(seed)
    network = registry.create("band_split", **{**SMALL, **settings})
    network.build((None, None))
    rng = np.random.default_rng(seed)
    for variable in network.trainable_variables:
        if not np.any(variable):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    return network


def _waveform(shape, seed=0):
    return (0.05 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def test_bands_cover_all_bins_once():
    widths = [width for count, width in band_split.BANDS for _ in range(count)]
    assert sum(widths) >= 129 > sum(widths[:-1])


@pytest.mark.parametrize(("real", "imaginary"), [(1.0, 0.0), (0.0, 1.0), (-0.5, 0.0)])
def test_masks_multiply_the_spectrogram(real, imaginary):
    network = _network(num_outputs=1)
    for mask, (_, width) in zip(network.masks, band_split.BANDS, strict=True):
        mask.kernel.assign(np.zeros(mask.kernel.shape))
        bias = np.repeat([real, imaginary], 2 * width)  # Two frames in a step.
        mask.bias.assign(np.broadcast_to(bias, mask.bias.shape))
    # A tone: a mask of i turns its phase by a quarter.
    time = np.arange(4000) / 8000
    tone = 0.1 * np.cos(2 * np.pi * 1000 * time).astype("float32")
    turned = 0.1 * np.sin(2 * np.pi * 1000 * time)
    found = np.asarray(network(tone[None]))[0, 0, 400:-400]
    expected = (real * tone - imaginary * turned)[400:-400]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_padding_changes_nothing_before_it():
    network = _network()
    short = _waveform((2, 1500))
    expected = np.asarray(network(short))
    for more in (1, 64, 100, 1000):
        found = np.asarray(network(np.pad(short, [(0, 0), (0, more)])))
        # With padding, frames that are centred after the end reach back over the last samples.
        np.testing.assert_allclose(
            found[:, :, :1372], expected[:, :, :1372], atol=1e-5 * np.abs(expected).max()
        )


def test_rows_of_a_batch_do_not_mix():
    network, batch = _network(), _waveform((3, 1500))
    batch[1, 700:] = 0
    whole = np.asarray(network(batch))
    for row in range(3):
        alone = np.asarray(network(batch[row : row + 1]))[0]
        np.testing.assert_allclose(whole[row], alone, atol=1e-6)


def test_new_layers_change_nothing():
    keras.utils.set_random_seed(0)
    deep = registry.create("band_split", **{**SMALL, "num_layers": 3})
    deep.build((None, None))
    x = _waveform((1, 1500))
    before = np.asarray(deep(x))
    deep.over_time, deep.over_bands = deep.over_time[:1], deep.over_bands[:1]
    np.testing.assert_allclose(deep(x), before, atol=1e-6)


def test_the_fast_way_gives_the_same_results_and_gradients():
    network, x = _network(), _waveform((2, 1500))
    target = _waveform((2, 2, 1500), seed=1)

    def run(fused):
        fused_lstm.set_fused(network, fused)

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                error = tf.reduce_mean((network(x, training=True) - target) ** 2)
            variables = [v.value for v in network.trainable_variables]
            return error, *tape.gradient(error, variables)

        return [np.asarray(values) for values in step(x)]

    for one, other in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_the_fast_way_with_mixed_precision():
    exact, x = _network(), _waveform((2, 1500))
    mixed = _network(dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    fused_lstm.set_fused(mixed, True)
    expected = np.asarray(exact(x, training=True))
    found = np.asarray(tf.function(lambda x: mixed(x, training=True))(x))
    assert np.std(found - expected) < 0.03 * np.std(expected)


def test_a_guide_that_learns_and_one_that_does_not():
    free = registry.create("band_split", **SMALL, guide=True)
    still = registry.create("band_split", **SMALL, guide=True, train_guide=False)
    for network in (free, still):
        network.build((None, None))
    guide = len(free.guide.trainable_variables)
    assert len(free.trainable_variables) == len(still.trainable_variables) + guide
    assert [w.shape for w in free.weights] == [w.shape for w in still.weights]
    # Its masks are heard: with others the voices are different.
    x = _waveform((1, 1500))
    before = np.asarray(free(x))
    free.guide.mask_head.dense.bias.assign(free.guide.mask_head.dense.bias + 1.0)
    assert np.abs(np.asarray(free(x)) - before).max() > 1e-4 * np.abs(before).max()
