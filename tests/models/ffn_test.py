import numpy as np

from models import ffn


def test_is_two_tanh_layers_and_a_sigmoid():
    network = ffn.FeedForward(units=6, num_outputs=2)
    network.build((None, None, 129))
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=w.shape).astype("float32") / 5 for w in network.get_weights()]
    network.set_weights(weights)
    inputs = rng.normal(size=(2, 4, 129)).astype("float32")
    w0, b0, w1, b1, w2, b2 = weights
    hidden = np.tanh(np.tanh(inputs @ w0 + b0) @ w1 + b1)
    masks = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    # The first 129 units are the first voice's.
    expected = np.stack([masks[..., :129], masks[..., 129:]], axis=1)
    np.testing.assert_allclose(network(inputs), expected, atol=1e-5)


def test_has_the_originals_size():
    network = ffn.FeedForward(num_outputs=1)
    network.build((None, None, 129))
    assert network.count_params() == (129 + 1) * 300 + (300 + 1) * 300 + (300 + 1) * 129
