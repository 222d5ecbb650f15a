import numpy as np

from models import chimera


def test_both_heads_are_over_one_body():
    network = chimera.Chimera(units=8, dimension=5, num_outputs=3)
    network.build((None, None, 129))
    inputs = np.random.default_rng(0).normal(size=(2, 7, 129)).astype("float32")
    masks, embeddings = network.both(inputs)
    np.testing.assert_array_equal(masks, network(inputs))
    np.testing.assert_array_equal(embeddings, network.embeddings(inputs))
    assert embeddings.shape == (2, 7, 129, 5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-5)


def _expected_parameters(units, num_layers):
    """Gates with a matrix each for input and state and a bias, in two directions; two heads."""
    widths = [129] + (num_layers - 1) * [2 * units]
    layers = sum(2 * 4 * units * (width + units + 1) for width in widths)
    return layers + (2 * units + 1) * 129 * (20 + 2)


def test_has_the_papers_parameters():
    network = chimera.Chimera(units=6, num_layers=4)
    network.build((None, None, 129))
    assert network.count_params() == _expected_parameters(6, 4)
    # At their size: counted, not made.
    assert abs(_expected_parameters(600, 4) / 32.9e6 - 1) < 0.01
