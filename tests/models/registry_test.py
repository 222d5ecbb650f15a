import pytest

from models import ffn, lstm, registry
from pipeline import errors


def test_makes_networks_by_name():
    assert {"ffn", "lstm"} <= set(registry.names())
    network = registry.create("lstm", units=7, num_outputs=1)
    assert isinstance(network, lstm.LongShortTermMemory)
    assert (network.units, network.num_outputs, network.num_layers) == (7, 1, 2)


def test_tells_what_can_be_set():
    assert registry.settings("ffn")["units"] == 300
    assert registry.NETWORKS["ffn"] is ffn.FeedForward


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nonsense", {}, "unknown network 'nonsense'; known are .*ffn, lstm"),
        ("ffn", {"width": 3}, "ffn has no setting 'width'; it has .*units"),
        ("lstm", {"head": "square"}, "lstm cannot be made: unknown activation 'square'"),
        ("lstm", {"units": -3}, "lstm cannot be made"),
        ("lstm", {"name": "x"}, "lstm has no setting 'name'"),
        ("tcn", {"head": "tanh"}, "tcn cannot be made: unknown head 'tanh'"),
        ("conv_tasnet", {"repeats": 0}, "blocks and repeats are at least 1, not 7 and 0"),
        ("tf_locoformer", {"hop": 60}, "frame_length 128 is even and a multiple of hop, 60"),
    ],
)
def test_says_what_is_wrong(name, settings, message):
    with pytest.raises(errors.UserError, match=message):
        registry.create(name, **settings)
