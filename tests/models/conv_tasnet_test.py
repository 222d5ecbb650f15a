"""Conv-TasNet: what it hears, against Keras' own layers and the paper's receptive field."""

import keras
import numpy as np
import pytest

from models import conv_tasnet
from models.layers import normalisation

SMALL = {
    "filters": 12, "filter_length": 8, "bottleneck": 6, "hidden": 8, "skip": 6, "blocks": 3,
    "repeats": 2,
}  # fmt: skip


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def make(**settings):
    keras.utils.set_random_seed(4)
    return conv_tasnet.ConvTasNet(**{**SMALL, **settings})


@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_nothing_before_it(causal):
    network, waveform = make(causal=causal), noise(2, 301)
    expected = np.asarray(network(waveform))
    padded = np.pad(waveform, [(0, 0), (0, 200)])
    found = np.asarray(network(padded))[..., :301]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Nor do rows of other lengths in the same batch.
    padded[1, 100:] = 0
    alone = np.asarray(network(padded[1:, :100]))
    np.testing.assert_allclose(np.asarray(network(padded))[1:, :, :100], alone, atol=1e-5)


def test_causal_hears_no_more_than_its_frame_ahead():
    waveform = noise(1, 400)
    changed = waveform.copy()
    changed[:, 200:] = noise(1, 200, seed=1)
    for causal in (True, False):
        network = make(causal=causal)
        difference = np.abs(np.asarray(network(changed)) - np.asarray(network(waveform)))
        before = difference.max(axis=(0, 1))[: 200 - SMALL["filter_length"]]
        assert before.any() != causal


def test_hears_as_far_as_its_dilations_reach():
    """With norms by nothing but themselves, a change is heard in just that many frames."""
    network = make(causal=True)
    waveform = noise(1, 800)
    changed = waveform.copy()
    changed[:, 400:404] += 1
    # Statistics of all frames so far would carry a change on for ever.
    for layer in _layers(network, normalisation.CumulativeLayerNorm):
        layer._apply = lambda x, mean, square: x
    difference = np.asarray(network(changed)) - np.asarray(network(waveform))
    heard = np.flatnonzero(np.abs(difference).max(axis=(0, 1)) > 0)
    # Two stacks of dilations 1, 2, 4, two taps before the present each; halves of four samples.
    frames = 2 * 2 * (1 + 2 + 4)
    assert heard.min() >= 396
    assert heard.max() < 404 + 4 * (frames + 2)
    assert heard.max() > 404 + 4 * (frames - 2)


def _layers(network, kind):
    return [layer for layer in network._flatten_layers() if isinstance(layer, kind)]


def test_a_block_is_made_of_keras_layers():
    """The same by Keras' depthwise convolution, group norm and PReLU."""
    block = conv_tasnet.Block(5, 7, 4, 3, dilation=2, causal=False)
    inputs, valid = noise(2, 11, 5), np.ones((2, 11), "float32")
    block.build(inputs.shape)
    random = np.random.default_rng(3)
    block.set_weights([random.uniform(-0.8, 0.8, w.shape) for w in block.weights])

    def slope(layer, x):
        keras_own = keras.layers.PReLU(shared_axes=[1, 2])
        keras_own.build(x.shape)
        keras_own.set_weights([np.full((1, 1), np.asarray(layer.factor))])
        return keras_own(x)

    def norm(layer, x):
        keras_own = keras.layers.GroupNormalization(groups=1, epsilon=1e-8)
        keras_own.build(x.shape)
        keras_own.set_weights(layer.get_weights())
        return keras_own(x)

    convolution = keras.layers.DepthwiseConv1D(3, padding="same", dilation_rate=2)
    convolution.build((2, 11, 7))
    convolution.set_weights([np.asarray(block.kernel)[..., None], np.asarray(block.bias)])
    x = norm(block.first_norm, slope(block.first_slope, block.widen(inputs)))
    x = norm(block.second_norm, slope(block.second_slope, convolution(x)))
    x = np.asarray(block.out(x))
    handed_on, skipped = block(inputs, valid)
    np.testing.assert_allclose(handed_on, inputs + x[..., :5], atol=1e-5)
    np.testing.assert_allclose(skipped, x[..., 5:], atol=1e-5)


def test_the_causal_norm_is_the_global_one_of_what_was_heard():
    inputs = noise(2, 6, 5) + 0.5
    cumulative, whole = normalisation.CumulativeLayerNorm(), normalisation.GlobalLayerNorm()
    found = np.asarray(cumulative(inputs))
    for frame in range(6):
        heard = inputs[:, : frame + 1]
        expected = np.asarray(whole(heard, np.ones(heard.shape[:2], "float32")))[:, -1]
        np.testing.assert_allclose(found[:, frame], expected, atol=1e-4)


def test_softmax_masks_share_out_what_the_filters_give():
    network, waveform = make(mask="softmax", num_outputs=3), noise(2, 100)
    voices = np.asarray(network(waveform))
    encoded = network.encoder(conv_tasnet._frames(waveform, 4))
    frames = np.asarray(network.decoder(encoded))
    whole = np.zeros((2, 4 * (frames.shape[1] + 1)))
    for t in range(frames.shape[1]):
        whole[:, 4 * t : 4 * t + 8] += frames[:, t]
    np.testing.assert_allclose(voices.sum(axis=1), whole[:, 4:104], atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"), [("filter_length", 7), ("kernel_size", 2), ("mask", "tanh")]
)
def test_settings_that_cannot_be_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        conv_tasnet.ConvTasNet(**{setting: value})
