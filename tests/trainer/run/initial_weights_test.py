"""Where a run can start from, and what is refused."""

import json
import shutil

import keras
import numpy as np
import pytest

from export import saved_model
from models import registry, separator
from pipeline import errors
from trainer.run import initial_weights

NETWORKS = {
    "tcn": {"width": 8, "units": 12, "num_layers": 2, "repeats": 1},
    "blstm": {"units": 5, "num_layers": 2},
}


def _separator(name="tcn", seed=0, mean=-3.0, **settings):
    keras.utils.set_random_seed(seed)
    network = registry.create(name, **{**NETWORKS[name], **settings})
    model = separator.wrap(
        network, mean=mean, deviation=0.9, active_level_db=-26.0, sample_rate=8000, num_sources=2
    )
    model.build(None)
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    return model


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_a_keras_file_and_an_exported_model(tmp_path, name):
    source = _separator(name, seed=1)
    (tmp_path / "run").mkdir()
    source.save(tmp_path / "run" / "best.keras")
    source.save(tmp_path / "other.keras")
    saved_model.write(source, tmp_path / "exported", lite=False)
    for path in ("run", "other.keras", "exported"):
        model = _separator(name, seed=2, mean=-4.0)
        initial_weights.load(str(tmp_path / path), model)
        for found, expected in zip(model.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert model.mean == -4.0  # The new dataset's.


def test_an_exported_model_of_16_bits(tmp_path):
    source = _separator(seed=1)
    saved_model.write(source, tmp_path / "exported", lite=False, float16=True)
    model = _separator(seed=2)
    initial_weights.load(str(tmp_path / "exported"), model)
    rounded = 0
    for found, expected in zip(model.get_weights(), source.get_weights(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=2**-24)
        rounded += not np.array_equal(found, expected)
    assert rounded


@pytest.mark.parametrize("exported", [False, True])
def test_a_larger_network_does_at_first_what_the_smaller_did(tmp_path, capsys, exported):
    source = _separator(seed=1)
    if exported:
        saved_model.write(source, tmp_path / "small", lite=False)
    else:
        source.save(tmp_path / "small.keras")
    network = registry.create("tcn", **{**NETWORKS["tcn"], "num_layers": 3, "repeats": 2})
    model = separator.wrap(
        network, mean=-3.0, deviation=0.9, active_level_db=-26.0, sample_rate=8000, num_sources=2
    )
    model.build(None)
    path = str(tmp_path / ("small" if exported else "small.keras"))
    initial_weights.load(path, model)
    assert capsys.readouterr().out == (
        f"--init_from={path} lacks block_0_2, block_1_0, block_1_1, block_1_2: initial values "
        "there\n"
    )
    waveform = np.random.default_rng(0).normal(size=(1, 3000)).astype("float32")
    np.testing.assert_allclose(model(waveform), source(waveform), atol=1e-5)


@pytest.mark.parametrize("repeats", [1, 2])
def test_a_trained_tcn_becomes_the_guide(tmp_path, capsys, repeats):
    source = _separator(seed=1, width=192, units=384, num_layers=7, repeats=repeats)
    source.save(tmp_path / "tcn.keras")
    network = registry.create(
        "band_split", channels=4, units=4, num_layers=1, guide=True, guide_repeats=repeats
    )
    model = separator.wrap(
        network, mean=-3.0, deviation=0.9, active_level_db=-26.0, sample_rate=8000, num_sources=2
    )
    model.build(None)
    before = network.masks[0].get_weights()
    initial_weights.load(str(tmp_path / "tcn.keras"), model)
    assert "is the guide" in capsys.readouterr().out
    for found, expected in zip(network.guide.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    for found, expected in zip(network.masks[0].get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_refusals_name_the_flag_and_the_reason(tmp_path):
    model = _separator()
    before = model.get_weights()
    _separator(units=16).save(tmp_path / "larger.keras")
    _separator(repeats=2).save(tmp_path / "deeper.keras")
    _separator("blstm").save(tmp_path / "another.keras")
    (tmp_path / "damaged.keras").write_bytes(b"PK nothing")
    keras.Sequential([keras.layers.Dense(2)]).save(tmp_path / "no_separator.keras")
    (tmp_path / "empty").mkdir()
    for path, message in {
        "nowhere": "no such run",
        "empty": "no such run",
        "larger.keras": "has another size",
        "deeper.keras": "has another size",
        "another.keras": "is another network",
        "damaged.keras": "damaged or no separator",
        "no_separator.keras": "damaged or no separator",
    }.items():
        with pytest.raises(errors.UserError, match=message) as error:
            initial_weights.load(str(tmp_path / path), model)
        assert str(error.value).startswith(f"--init_from={tmp_path / path}")
        assert "\n" not in str(error.value)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_damaged_export_is_refused(tmp_path):
    saved_model.write(_separator(), tmp_path / "whole", lite=False)
    model = _separator()

    def refused(path, message):
        with pytest.raises(errors.UserError, match=message):
            initial_weights.load(str(path), model)

    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole", cut)
    (cut / "variables" / "variables.index").write_bytes(b"nothing")
    refused(cut, "damaged")
    facts = tmp_path / "facts"
    shutil.copytree(tmp_path / "whole", facts)
    info = json.loads((facts / "voices_apart.json").read_text())
    (facts / "voices_apart.json").write_text("{")
    refused(facts, "damaged")
    (facts / "voices_apart.json").write_text(json.dumps([1]))
    refused(facts, "damaged")
    (facts / "voices_apart.json").write_text(json.dumps({**info, "num_parameters": 10**9}))
    refused(facts, "lacks weights")
