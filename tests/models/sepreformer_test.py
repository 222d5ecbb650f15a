"""SepReformer's size against the literature's figures, and its parts against NumPy."""

import keras
import numpy as np
import pytest
import scipy.signal
import scipy.special
from keras import ops

from benchmarks import operations
from models import sepreformer
from models.layers import sepreformer_blocks as blocks

SMALL = {
    "channels": 8,
    "num_stages": 2,
    "filters": 16,
    "heads": 2,
    "local_kernel": 5,
    "encoder_repeats": 1,
    "decoder_repeats": 1,
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def randomise(layer, seed=1):
    """Weights that let every part be heard: scales near zero would hide most of them."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        if "variance" in weight.path:
            value = rng.uniform(0.5, 2, weight.shape)
        elif len(weight.shape) == 1:
            value = rng.uniform(0.5, 1.5, weight.shape)
        else:
            value = rng.normal(size=weight.shape) * 0.4
        if "seed" not in weight.path:
            weight.assign(value)
    return layer


def built(layer, channels=4):
    layer.build((None, None, channels))
    return randomise(layer)


def arrays(layer):
    return [np.asarray(w, float) for w in layer.weights]


def layer_norm(x, layer):
    gain, offset = arrays(layer)
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * gain + offset


def dense(x, layer):
    kernel, bias = arrays(layer)
    return x @ kernel + bias


def depthwise(x, layer):
    """By SciPy's correlation, one row and channel after the other."""
    kernel, bias = arrays(layer)
    found = np.empty_like(x)
    for row, channel in np.ndindex(x.shape[0], x.shape[2]):
        line = scipy.signal.correlate(x[row, :, channel], kernel[:, channel, 0], mode="same")
        found[row, :, channel] = line + bias[channel]
    return found


def glu(x):
    first, second = np.split(x, 2, axis=-1)
    return first * scipy.special.expit(second)


def feed_forward(x, layer):
    y = glu(depthwise(dense(layer_norm(x, layer.norm), layer.expand), layer.neighbours))
    return x + dense(y, layer.reduce) * arrays(layer.scale)[0]


def attend(x, layer, heads):
    """Multi-head attention of one row `[position, channel]`, without relative positions."""
    query, key, value = np.split(dense(layer_norm(x, layer.norm), layer.project), 3, axis=-1)
    parts = []
    for q, k, v in zip(*(np.split(y, heads, axis=-1) for y in (query, key, value)), strict=True):
        parts.append(scipy.special.softmax(q @ k.T / np.sqrt(q.shape[-1]), axis=-1) @ v)
    return dense(np.concatenate(parts, axis=-1), layer.merge) * arrays(layer.scale)[0]


@pytest.mark.slow
def test_size_t_is_the_literatures():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("operations are counted on TensorFlow")
    network = sepreformer.SepReformer(auxiliary=False)
    network.build((None, None))
    found = operations.cost(network)
    assert found.parameters == pytest.approx(3.7e6, rel=0.05)
    assert found.multiply_adds == pytest.approx(5.4e9, rel=0.10)


@pytest.mark.parametrize(("size", "parameters"), [("S", 4.5e6), ("B", 14.2e6)])
def test_larger_sizes_are_the_literatures(size, parameters):
    """From the blocks alone, each kind built once: the whole networks take long to make."""
    settings = sepreformer.SIZES[size]
    channels, num_stages, kernel = (settings[k] for k in ("channels", "num_stages", "kernel"))

    def count(layer, width=channels):
        layer.build((None, None, width))
        return layer.count_params()

    common = (channels, 1, 8, 1, 65, 0.0)
    encoder = 2 * count(blocks.Stage(*common))
    decoder = 3 * count(blocks.Stage(*common, num_voices=2))
    ends = 2 * kernel * 256 + 2 * 256 + 256 * channels + count(sepreformer.Head(channels, 256))
    middle = count(sepreformer.Split(channels, 2)) + 4000 * channels // 8
    between = count(sepreformer.Halve(), channels) + (2 * channels + 1) * channels
    total = (num_stages + 1) * encoder + num_stages * (decoder + between) + ends + middle
    assert total == pytest.approx(parameters, rel=0.05)


def test_feed_forward():
    layer, x = built(blocks.FeedForward(4, 0.0)), normal(2, 7, 4)
    np.testing.assert_allclose(layer(x), feed_forward(x, layer), rtol=1e-4, atol=1e-4)


def test_local_block():
    layer, x = built(blocks.LocalBlock(4, 5, 0.0)), normal(2, 9, 4)
    y = depthwise(glu(dense(layer_norm(x, layer.norm), layer.enter)), layer.convolve)
    gain, offset, mean, variance = arrays(layer.batch_norm)
    y = (dense(y, layer.widen) - mean) / np.sqrt(variance + 1e-5) * gain + offset
    y = dense(y * scipy.special.ndtr(y), layer.leave) * arrays(layer.scale)[0]
    expected = feed_forward(x + y, layer.feed_forward)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


def test_global_block_attends_between_means():
    layer, x = built(blocks.GlobalBlock(4, 2, 3, 0.0)), normal(2, 12, 4)
    expected = np.empty_like(x)
    for row in range(2):
        means = np.stack([x[row, i : i + 3].mean(axis=0) for i in range(0, 12, 3)])
        found = np.repeat(attend(means, layer.attention, 2), 3, axis=0)
        gates = scipy.special.expit(dense(layer_norm(x[row], layer.gate_norm), layer.gate))
        expected[row] = x[row] + gates * found
    expected = feed_forward(expected, layer.feed_forward)
    nothing = np.zeros((7, 2), "float32")
    np.testing.assert_allclose(layer(x, nothing), expected, rtol=1e-4, atol=1e-4)


def test_speaker_block_attends_between_the_voices_of_one_mixture():
    layer, x = built(blocks.SpeakerBlock(4, 2, 3, 0.0)), normal(2, 3, 5, 4)
    expected = np.empty_like(x)
    for mixture, frame in np.ndindex(2, 5):
        voices = x[mixture, :, frame]
        expected[mixture, :, frame] = voices + attend(voices, layer.attention, 2)
    expected = feed_forward(expected.reshape(6, 5, 4), layer.feed_forward)
    np.testing.assert_allclose(layer(x.reshape(6, 5, 4)), expected, rtol=1e-4, atol=1e-4)


def test_voices_change_places_with_their_part_of_the_split():
    """Behind the split nothing knows which voice is which."""
    network = built(sepreformer.SepReformer(num_outputs=3, **SMALL))
    x = 0.1 * normal(2, 700)
    found, auxiliary = network.with_auxiliary(x)
    order = [2, 0, 1]
    for weight in network.split.leave.weights:
        parts = np.split(np.asarray(weight), 3, axis=-1)
        weight.assign(np.concatenate([parts[i] for i in order], axis=-1))
    changed, changed_auxiliary = network.with_auxiliary(x)
    assert np.abs(np.asarray(found)[:, 0] - np.asarray(found)[:, 1]).max() > 1e-3
    for one, other in zip([found, *auxiliary], [changed, *changed_auxiliary], strict=True):
        one = np.asarray(one)
        np.testing.assert_allclose(other, one[:, order], atol=1e-4 * np.abs(one).max())


def test_auxiliary_outputs():
    network = sepreformer.SepReformer(**SMALL)
    x = 0.1 * normal(2, 333)
    expected = np.asarray(network(x))
    found, auxiliary = network.with_auxiliary(x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert [a.shape for a in auxiliary] == [(2, 2, 333)] * 2
    assert sepreformer.SepReformer(**SMALL, auxiliary=False).with_auxiliary(x)[1] == []


def test_an_auxiliary_mask_of_ones_gives_the_encoders_frames_back():
    """With filters that undo the encoder, what the masks leave is the mixture."""
    network = sepreformer.SepReformer(**{**SMALL, "filters": 32, "kernel": 16, "stride": 4})
    x = 0.1 * normal(1, 200)
    network.build((None, None))
    # x and -x through GELU: their difference is x.
    filters = np.concatenate([np.eye(16), -np.eye(16)], axis=1)
    network.encoder.kernel.assign(filters[:, None])
    for head, decoder in zip(network.auxiliary_heads, network.auxiliary_decoders, strict=True):
        head.leave.kernel.assign(np.zeros(head.leave.kernel.shape))
        head.leave.bias.assign(np.ones(head.leave.bias.shape))
        decoder.kernel.assign(filters.T / 4)
    for voices in network.with_auxiliary(x)[1]:
        np.testing.assert_allclose(np.asarray(voices)[0], np.repeat(x, 2, axis=0), atol=1e-5)


def test_every_sample_lies_in_equally_many_frames():
    network = sepreformer.SepReformer(**SMALL)
    network.build((None, None))
    frames, features, _ = network._encode(np.eye(37, dtype="float32"))
    touched = np.abs(np.asarray(frames)).max(axis=-1) > 0
    np.testing.assert_array_equal(touched.sum(axis=1), 4)
    assert features.shape[1] % 4 == 0


def test_batch_statistics_are_of_training_alone():
    network = sepreformer.SepReformer(**SMALL)
    x = 0.1 * normal(2, 500)
    network.build((None, None))
    moving = [w for w in network.non_trainable_weights if "moving_mean" in w.path]
    # One in each of 3 stages and of 2, and 2 between stages.
    assert len(moving) == 3 + 2 + 2
    before = [np.asarray(w) for w in moving]
    network(x)
    assert all((np.asarray(w) == b).all() for w, b in zip(moving, before, strict=True))
    network(x, training=True)
    assert all((np.asarray(w) != b).any() for w, b in zip(moving, before, strict=True))


def test_silence_stays_finite():
    network = sepreformer.SepReformer(**SMALL)
    assert np.isfinite(np.asarray(network(np.zeros((1, 400), "float32")))).all()
    assert ops.shape(network(np.zeros((1, 1), "float32"))) == (1, 2, 1)


def test_padding_changes_nothing_before_it():
    network = built(sepreformer.SepReformer(**SMALL))
    x = 0.1 * normal(2, 700)
    x[1, 333:] = 0
    expected = np.asarray(network(x))
    scale = np.abs(expected).max()
    padded = np.asarray(network(np.pad(x, [(0, 0), (0, 900)])))
    np.testing.assert_allclose(padded[..., :700], expected, atol=1e-4 * scale)
    alone = np.asarray(network(x[1:, :333]))
    np.testing.assert_allclose(expected[1:, :, :333], alone, atol=1e-4 * scale)


@pytest.mark.parametrize(
    "settings", [{"size": "XXL"}, {"kernel": 10, "stride": 4}, {"channels": 12, "heads": 8}]
)
def test_wrong_settings(settings):
    with pytest.raises(ValueError, match=r"size|kernel|channels"):
        sepreformer.SepReformer(**settings)
