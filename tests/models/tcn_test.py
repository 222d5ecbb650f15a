import keras
import numpy as np
import pytest

from models import registry, tcn


def _random(network, seed=0):
    """The same network, no block of which is the identity."""
    keras.utils.set_random_seed(seed)
    network.build((None, None, network.num_bins))
    rng = np.random.default_rng(seed)
    network.set_weights([w + rng.normal(size=w.shape) for w in network.get_weights()])
    return network


def _inputs(frames, seed=1):
    return np.random.default_rng(seed).normal(size=(1, frames, 129)).astype("float32")


def _first_and_last_change(network, changed_frame, frames=40):
    """Of the masks' frames, when one frame of the input changes."""
    inputs = _inputs(frames)
    other = inputs.copy()
    other[:, changed_frame] += 5  # At the far end its effect must not drown in rounding.
    change = np.abs(np.asarray(network(inputs)) - np.asarray(network(other))).max(axis=(0, 1, 3))
    changed = np.flatnonzero(change)
    return changed[0], changed[-1]


def _silu(x):
    return x / (1 + np.exp(-x))


def test_a_block_is_its_formula():
    block = tcn.Block(width=3, units=4, kernel=3, dilation=2)
    block.build((None, None, 3))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape).astype("float32") for w in block.get_weights()]
    block.set_weights(weights)
    gain, shift, widen, widen_bias, taps, taps_bias, narrow, narrow_bias = weights
    inputs = rng.normal(size=(2, 9, 3)).astype("float32")
    centred = inputs - inputs.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-3) * gain + shift
    wide = np.pad(_silu(normal @ widen + widen_bias), [(0, 0), (2, 2), (0, 0)])
    taps = taps.reshape(3, 4)
    heard = sum(wide[:, 2 * k : 2 * k + 9] * taps[k] for k in range(3)) + taps_bias
    expected = inputs + _silu(heard) @ narrow + narrow_bias
    np.testing.assert_allclose(block(inputs), expected, atol=2e-5)


@pytest.mark.parametrize("stack", [1, 2, 3])
def test_hears_as_far_as_its_dilations_reach(stack):
    network = _random(
        tcn.TemporalConvolution(
            width=6, units=6, num_layers=2, repeats=2, stack=stack, head="linear"
        )
    )
    # Kernel 3, dilations 1 and 2, twice: six steps of `stack` frames to either side.
    step = 21 // stack
    first, last = _first_and_last_change(network, 21)
    assert first == (step - 6) * stack
    assert last == min((step + 7) * stack, 40) - 1


@pytest.mark.parametrize("stack", [1, 2])
def test_causal_hears_the_past_alone(stack):
    network = _random(
        tcn.TemporalConvolution(
            width=6, units=6, num_layers=2, repeats=1, stack=stack, causal=True, head="linear"
        )
    )
    first, last = _first_and_last_change(network, 21)
    # To the beginning of its own step, and twice three steps on.
    assert first == 21 // stack * stack
    assert last == (21 // stack + 7) * stack - 1


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_frames_need_not_fill_the_last_step(frames):
    network = _random(tcn.TemporalConvolution(width=6, units=6, num_layers=1, repeats=1, stack=3))
    masks = network(_inputs(frames))
    assert masks.shape == (1, 2, frames, 129)
    # What fills the last step is silence: the same as if it were there.
    padded = np.pad(_inputs(frames), [(0, 0), (0, -frames % 3), (0, 0)])
    np.testing.assert_allclose(masks, np.asarray(network(padded))[:, :, :frames], atol=1e-6)


def test_each_frame_of_a_step_has_a_mask_of_its_own():
    """The last layer's columns are output by output, then frame by frame of the step."""
    network = tcn.TemporalConvolution(
        width=4, units=4, num_layers=1, repeats=1, stack=2, head="linear", num_bins=3
    )
    network.build((None, None, 3))
    network.mask_head.dense.kernel.assign(np.zeros((4, 12)))
    network.mask_head.dense.bias.assign(np.arange(12))
    masks = np.asarray(network(np.zeros((1, 4, 3), "float32")))[0]
    np.testing.assert_array_equal(masks[0], [[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(masks[1], [[6, 7, 8], [9, 10, 11], [6, 7, 8], [9, 10, 11]])


def test_softmax_is_over_the_voices():
    network = _random(
        tcn.TemporalConvolution(
            num_outputs=3, width=6, units=6, num_layers=1, repeats=1, head="softmax"
        )
    )
    np.testing.assert_allclose(np.sum(network(_inputs(7)), axis=1), 1, atol=1e-5)


def test_new_blocks_add_nothing_yet():
    keras.utils.set_random_seed(0)
    few = tcn.TemporalConvolution(width=6, units=6, num_layers=1, repeats=1)
    many = tcn.TemporalConvolution(width=6, units=6, num_layers=3, repeats=2)
    for network in (few, many):
        network.build((None, None, 129))
    for name in ("entry", "norm", "mask_head"):
        getattr(many, name).set_weights(getattr(few, name).get_weights())
    np.testing.assert_allclose(many(_inputs(9)), few(_inputs(9)), atol=1e-6)


def test_size():
    network = registry.create("tcn")
    network.build((None, None, 129))
    width, units = 192, 384
    block = 2 * width + (width + 1) * units + 4 * units + (units + 1) * width
    ends = (2 * 129 + 1) * width + 2 * width + (width + 1) * (2 * 2 * 129)
    assert network.count_params() == 14 * block + ends
