import numpy as np

from models import lstm


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _layer(inputs, kernel, recurrent_kernel, bias):
    """Hochreiter and Schmidhuber's cell with a forget gate, gates in Keras' order i, f, c, o."""
    units = recurrent_kernel.shape[0]
    state = cell = np.zeros((inputs.shape[0], units))
    outputs = []
    for frame in np.moveaxis(inputs, 1, 0):
        i, f, c, o = np.split(frame @ kernel + state @ recurrent_kernel + bias, 4, axis=-1)
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
        state = _sigmoid(o) * np.tanh(cell)
        outputs.append(state)
    return np.stack(outputs, axis=1)


def test_is_two_lstm_layers_and_a_sigmoid():
    network = lstm.LongShortTermMemory(units=5, num_outputs=2)
    network.build((None, None, 129))
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=w.shape).astype("float32") / 5 for w in network.get_weights()]
    network.set_weights(weights)
    inputs = rng.normal(size=(2, 7, 129)).astype("float32")
    hidden = _layer(_layer(inputs, *weights[:3]), *weights[3:6])
    masks = _sigmoid(hidden @ weights[6] + weights[7])
    expected = np.stack([masks[..., :129], masks[..., 129:]], axis=1)
    np.testing.assert_allclose(network(inputs), expected, atol=1e-5)


def test_hears_the_past_alone():
    network = lstm.LongShortTermMemory(units=8)
    inputs = np.random.default_rng(2).normal(size=(1, 20, 129)).astype("float32")
    changed = inputs.copy()
    changed[:, 12:] += 1
    before, after = np.asarray(network(inputs)), np.asarray(network(changed))
    np.testing.assert_array_equal(before[:, :, :12], after[:, :, :12])
    assert np.abs(before[:, :, 12:] - after[:, :, 12:]).max() > 1e-3
