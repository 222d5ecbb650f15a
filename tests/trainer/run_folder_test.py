import dataclasses
import json

import pytest

from pipeline import dataset, errors
from trainer import config, run_folder


def _info(digest="abc", mean=-3.0):
    settings = {"sample_rate": 8000, "num_sources": 2, "masks": ["psm"]}
    return dataset.DatasetInfo(1, settings, {}, mean, 0.8, -25.0, digest, {}, "")


def test_claims_a_new_folder_and_knows_it_again(tmp_path):
    settings = config.Config(units=5)
    folder = run_folder.RunFolder(tmp_path / "deep" / "run")
    assert folder.claim(settings, _info()) == run_folder.State()
    stored = json.loads((folder.path / "config.json").read_text())
    assert stored["settings"] == settings.to_json()
    assert stored["dataset"]["plan_digest"] == "abc"
    more = dataclasses.replace(settings, epochs=99)
    assert folder.claim(more, _info()) == run_folder.State()
    assert json.loads((folder.path / "config.json").read_text())["settings"]["epochs"] == 99


def test_refuses_other_settings_and_another_dataset(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    folder.claim(config.Config(units=5), _info())
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(errors.UserError, match=r"other settings \(--units 5 → 6\)"):
        folder.claim(config.Config(units=6), _info())
    with pytest.raises(errors.UserError, match=r"dataset's plan_digest abc → xyz"):
        folder.claim(config.Config(units=5), _info("xyz"))
    assert (tmp_path / "config.json").read_text() == before


def test_refuses_what_it_cannot_read(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    folder.best.touch()
    with pytest.raises(errors.UserError, match=r"without config\.json"):
        folder.claim(config.Config(), _info())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.UserError, match=r"config\.json is damaged"):
        folder.claim(config.Config(), _info())


def test_state_comes_back_and_old_weights_go(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    state = folder.claim(config.Config(), _info())
    for epoch in (1, 2):
        state.epoch = epoch
        state.history.append({"epoch": epoch, "loss": 1 / epoch})
        state.callbacks = {"KeepBest": {"best": 0.5}}
        folder.write_state(state, lambda path, epoch=epoch: path.write_text(f"weights {epoch}"))
    again = folder.read_state()
    assert again == state
    assert (folder.last / again.weights).read_text() == "weights 2"
    assert {p.name for p in folder.last.iterdir()} == {"state.json", again.weights}
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n1,1.0\n2,0.5\n"


def test_a_failed_write_changes_nothing(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    state = folder.claim(config.Config(), _info())
    state.epoch = 1
    folder.write_state(state, lambda path: path.write_text("good"))

    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    state.epoch = 2
    with pytest.raises(OSError, match="No space"):
        folder.write_state(state, fail)
    assert folder.read_state().epoch == 1
    assert {p.name for p in folder.last.iterdir()} == {"state.json", "epoch-00001.weights.h5"}
    (folder.last / "epoch-00001.weights.h5").unlink()
    with pytest.raises(errors.UserError, match="is missing"):
        folder.read_state()
