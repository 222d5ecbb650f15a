"""Streams, block by block, against the same separators' calls for the whole."""

import functools

import keras
import numpy as np
import pytest

from models import conv_tasnet, registry, separator, streaming
from models.layers import normalisation

RATE = 8000
NETWORKS = {
    "lstm": ("lstm", {"units": 16}),
    "one mask": ("lstm", {"units": 8, "num_layers": 1, "num_outputs": 1}),
    "tcn": ("tcn", {"width": 12, "units": 16, "num_layers": 3, "repeats": 1, "causal": True}),
    "tcn, three frames a step": (
        "tcn", {
            "width": 12, "units": 16, "num_layers": 2, "repeats": 1, "stack": 3,
            "head": "softmax",
            "causal": True,
        },
    ),
    "conv_tasnet": (
        "conv_tasnet", {"filters": 24, "bottleneck": 12, "hidden": 16, "skip": 12, "blocks": 3,
                        "repeats": 1, "causal": True},
    ),
}  # fmt: skip


def speech(length, seed=0):
    """Noise in syllables, with a pause of zeros."""
    random = np.random.default_rng(seed)
    envelope = np.repeat(random.uniform(0, 0.3, -(-length // 700)), 700)[:length]
    envelope[length // 3 : length // 3 + 900] = 0
    return (envelope * random.standard_normal(length)).astype(np.float32)


def make(name):
    kind, settings = NETWORKS[name]
    keras.utils.set_random_seed(3)
    network = registry.create(kind, **settings)
    model = separator.wrap(
        network, mean=-3.2, deviation=0.9, active_level_db=-26.0, sample_rate=RATE, num_sources=2
    )
    model.build(None)
    random = np.random.default_rng(1)
    scale = 0.5 if kind == "lstm" else 0.15
    for variable in network.trainable_variables:
        # No block is the identity, and voices differ.
        variable.assign(variable + scale * random.standard_normal(variable.shape))
    return model


def follow(model, waveform, sizes, gain_db, step=None):
    """The voices by blocks of so many hops, less the delay and what follows the end."""
    follower = streaming.wrap(model)
    step = step or follower.step
    state, given, place, samples = follower.initial_state(), [], 0, waveform.shape[-1]
    while place < samples + follower.delay:
        block = follower.hop * next(sizes)
        part = waveform[place : place + block]
        part = np.pad(part, (0, block - len(part)))[np.newaxis]
        length = np.int32(np.clip(samples - place, 0, block))
        voices, state = step(part, length, np.float32(gain_db), state)
        given.append(np.asarray(voices)[0])
        place += block
    given = np.concatenate(given, axis=1)
    assert not given[:, : follower.delay].any()
    return given[:, follower.delay :][:, :samples]


def random_sizes(seed, most=40):
    random = np.random.default_rng(seed)
    while True:
        yield int(random.integers(1, most))


@pytest.fixture(scope="module")
def followed():
    """A separator by the name of its row, its call and a step of its stream as one graph each."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        pytest.skip("graphs are TensorFlow's")

    @functools.cache
    def make_both(name):
        model = make(name)
        follower = streaming.wrap(model)
        state = {
            name: tf.TensorSpec(tensor.shape, tensor.dtype)
            for name, tensor in follower.initial_state().items()
        }
        specs = [tf.TensorSpec([1, None]), tf.TensorSpec([], tf.int32), tf.TensorSpec([])]
        step = tf.function(follower.step, input_signature=[*specs, state], autograph=False)

        def whole(waveform, gain_db):
            return model(waveform, gain_db=gain_db)

        if NETWORKS[name][0] == "lstm":  # The loop over its frames is slow without a graph.
            signature = [specs[0], specs[2]]
            whole = tf.function(whole, input_signature=signature, autograph=False)
        return model, whole, step

    return make_both


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_give_the_samples_of_the_whole(name, followed):
    model, whole, step = followed(name)
    # Lengths that fill no hop, and one that fills it.
    for samples in (1, 64, 65, 12_013):
        waveform = speech(samples, seed=samples)
        expected = np.asarray(whole(waveform[np.newaxis], 4.0))[0]
        found = follow(model, waveform, random_sizes(samples), 4.0, step)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=0), waveform, atol=1e-6)
    # Else one voice would do for both.
    assert np.std(expected[0] - expected[1]) > 0.1 * np.std(waveform)


@pytest.mark.parametrize("name", ["lstm", "tcn", "conv_tasnet"])
def test_hop_by_hop(name, followed):
    (model, whole, step), waveform = followed(name), speech(2001)
    expected = np.asarray(whole(waveform[np.newaxis], -3.0))[0]
    found = follow(model, waveform, iter(lambda: 1, 0), -3.0, step)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "tcn", "conv_tasnet"])
def test_the_gain_is_heard(name, followed):
    """A mixture at half the level, with twice the gain, has voices at half the level."""
    (model, _, step), waveform = followed(name), speech(3000)
    first = follow(model, waveform, random_sizes(1), 0.0, step)
    second = follow(model, waveform / 2, random_sizes(2), 20 * np.log10(2), step)
    np.testing.assert_allclose(2 * second, first, atol=1e-5)
    other = follow(model, waveform, random_sizes(1), 20.0, step)
    # The norms of Conv-TasNet, whose filters have no bias, take every level out.
    assert (np.abs(other - first).max() > 1e-3 * np.abs(first).max()) == (name != "conv_tasnet")


@pytest.mark.parametrize("name", ["lstm", "tcn", "conv_tasnet"])
def test_no_voice_comes_before_its_delay_is_over(name, followed):
    """What comes out by a sample does not depend on what comes in after it."""
    model, _, step = followed(name)
    follower = streaming.wrap(model)
    waveform, other = speech(20 * follower.hop, seed=1), speech(20 * follower.hop, seed=2)
    place = 10 * follower.hop
    other[:place] = waveform[:place]
    first, second = (
        follow(model, signal, iter(lambda: 2, 0), 0.0, step)[:, : place - follower.delay]
        for signal in (waveform, other)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "hop", "delay"), [("lstm", 64, 192), ("tcn", 128, 256), ("conv_tasnet", 20, 20)]
)
def test_the_delay_is_what_docs_say(name, hop, delay, followed):
    model, _, step = followed(name)
    follower = streaming.wrap(model)
    assert (follower.hop, follower.delay) == (hop, delay)
    # And no longer than it need be: an impulse comes out with the block in which it is due.
    waveform = np.zeros(40 * hop, np.float32)
    waveform[10 * hop] = 1
    voices, _ = step(
        waveform[np.newaxis], np.int32(len(waveform)), np.float32(0), follower.initial_state()
    )
    assert int(np.abs(np.asarray(voices)[0].sum(axis=0)).argmax()) == 10 * hop + delay


@pytest.mark.parametrize(
    ("name", "settings"),
    [("blstm", {"units": 4}), ("tcn", {}), ("conv_tasnet", {}), ("ffn", {}), ("chimera", {})],
)
def test_networks_that_hear_what_comes_later_are_refused(name, settings):
    network = registry.create(name, **settings)
    model = separator.wrap(
        network, mean=0, deviation=1, active_level_db=-26, sample_rate=RATE, num_sources=2
    )
    with pytest.raises(streaming.NotCausalError, match=type(network).__name__):
        streaming.wrap(model)


def test_the_state_stays_finite_and_of_one_size(followed):
    model, _, step = followed("conv_tasnet")
    follower = streaming.wrap(model)
    state = follower.initial_state()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    waveform = speech(200 * follower.hop)[np.newaxis]
    for part in (waveform, np.zeros_like(waveform), 1e4 * waveform, 1e-4 * waveform):
        voices, state = step(part, np.int32(part.size), np.float32(0), state)
        assert np.isfinite(voices).all()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


def test_days_of_frames_cost_the_cumulative_norm_no_digits():
    """Sums in float32 would stand still long before: their last digit is then worth 4."""
    layer = normalisation.CumulativeLayerNorm()
    layer.build((None, None, 5))
    random = np.random.default_rng(0)
    frames, mean, square = 50_000_000, 1.25, 1.8
    inputs = random.normal(1.25, 0.5, (1, 300, 5)).astype(np.float32)
    state = np.array([[mean, square]], np.float32)
    found, new = layer.step(inputs, state, np.int64(frames))
    exact = inputs.astype(np.float64)
    count = frames + np.arange(1, 301)
    means = (frames * mean + np.cumsum(exact.mean(axis=-1)[0])) / count
    squares = (frames * square + np.cumsum((exact**2).mean(axis=-1)[0])) / count
    expected = (exact[0] - means[:, None]) / np.sqrt(squares - means**2)[:, None]
    np.testing.assert_allclose(np.asarray(found)[0], expected, atol=1e-4)
    np.testing.assert_allclose(np.asarray(new)[0], [means[-1], squares[-1]], rtol=1e-6)


@pytest.mark.parametrize("dilation", [1, 3])
def test_dilated_is_keras_depthwise_convolution(dilation):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 17, 4)).astype(np.float32)
    layer = keras.layers.DepthwiseConv1D(3, dilation_rate=dilation, padding="valid", use_bias=False)
    layer.build(x.shape)
    kernel = random.normal(size=(3, 4)).astype(np.float32)
    layer.set_weights([kernel[..., None]])
    found = streaming.dilated(keras.ops.convert_to_tensor(x), kernel, dilation)
    np.testing.assert_allclose(found, layer(x), atol=1e-5)


def test_networks_of_their_own_can_follow_streams():
    """What `models.streaming` asks of a network's class is all that it takes."""

    class Half(keras.Model):
        takes = "waveform"
        causal = True
        hop, delay = 10, 10

        def call(self, inputs, training=None):
            return keras.ops.stack([inputs / 2, -inputs], axis=1)

        def initial_state(self, batch):
            return {"before": keras.ops.zeros((batch, 10))}

        def step(self, waveform, state):
            both = keras.ops.concatenate([state["before"], waveform], axis=1)
            return self.call(both[:, :-10]), {"before": both[:, -10:]}

    model = separator.WaveformSeparator(Half(), -26.0, RATE, 2)
    waveform = speech(501)
    expected = np.asarray(model(waveform[np.newaxis], gain_db=2.0))[0]
    found = follow(model, waveform, random_sizes(0), 2.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_conv_tasnet_makes_nothing_of_silence():
    """On which streams rely: they cannot know that what has been silent stays so."""
    network = conv_tasnet.ConvTasNet(filters=8, bottleneck=4, hidden=4, skip=4, blocks=1)
    network.build((None, None))
    random = np.random.default_rng(0)
    network.set_weights([random.normal(size=w.shape) for w in network.get_weights()])
    assert not np.any(network(np.zeros((1, 400), np.float32)))
