import io
import zipfile
from collections import Counter

import h5py
import keras
import pytest
from keras.src.saving import object_registration

from models import conv_tasnet, ffn, lstm, registry, tcn
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


def test_no_two_classes_are_registered_under_one_name():
    ours = {
        kind: name
        for kind, name in object_registration.GLOBAL_CUSTOM_NAMES.items()
        if name.startswith("voices_apart>") and kind.__module__.startswith("models.")
    }
    assert {tcn.Block, conv_tasnet.Block} <= set(ours)
    assert [name for name, count in Counter(ours.values()).items() if count > 1] == []


@pytest.mark.parametrize(
    "block",
    [
        tcn.Block(width=3, units=5, kernel=3, dilation=2),
        conv_tasnet.Block(width=3, hidden=5, skip=2, kernel_size=3, dilation=2, causal=False),
    ],
    ids=["tcn", "conv_tasnet"],
)
def test_a_block_by_itself_is_read_back_as_what_it_was(block):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert type(again) is type(block)
    assert again.get_config() == block.get_config()


@pytest.mark.parametrize(
    ("name", "settings", "weights"),
    [
        # As files of before the classes had different names have them.
        ("tcn", {"num_layers": 1, "repeats": 2}, "blocks/block_1/widen/vars/0"),
        ("conv_tasnet", {"blocks": 1, "repeats": 2}, "layers/block_1/widen/vars/0"),
    ],
)
def test_weights_are_found_where_older_files_have_them(name, settings, weights, tmp_path):
    network = registry.create(name, **settings)
    network.build((None, None) if network.takes == "waveform" else (None, None, 129))
    network.save(tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as archive:
        assert "Block" not in archive.read("config.json").decode()
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
            assert weights in file
