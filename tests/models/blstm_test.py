import numpy as np

from models import blstm, lstm


def test_hears_past_and_future():
    network = blstm.BidirectionalLongShortTermMemory(units=8)
    inputs = np.random.default_rng(2).normal(size=(1, 20, 129)).astype("float32")
    before = np.asarray(network(inputs))
    for changed_frame, heard_at in ((19, 0), (0, 19)):
        changed = inputs.copy()
        changed[:, changed_frame] += 10
        after = np.asarray(network(changed))
        assert np.abs(after - before)[:, :, heard_at].max() > 1e-7


def test_has_the_settings_of_the_lstm():
    one, both = lstm.LongShortTermMemory(units=8), blstm.BidirectionalLongShortTermMemory(units=8)
    assert both.get_config().keys() == one.get_config().keys()
    both.build((None, None, 129))
    # Two layers of two directions, gates of a matrix each for input and state, and a bias.
    layers = 2 * 4 * 8 * (129 + 8 + 1) + 2 * 4 * 8 * (16 + 8 + 1)
    assert both.count_params() == layers + (16 + 1) * 2 * 129
