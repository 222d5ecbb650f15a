"""A run's folder: whose it is, what is kept, and what is left after a kill or a power cut."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from pipeline import errors
from pipeline.dataset import dataset
from pipeline.io import atomic
from trainer import config
from trainer.run import run_folder


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
    state = folder.claim(config.Config(units=5), _info())
    state.epoch = 1
    folder.write_state(state, lambda path: path.write_text("weights"))
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(errors.UserError, match=r"other settings \(--units 5 → 6\)"):
        folder.claim(config.Config(units=6), _info())
    with pytest.raises(errors.UserError, match=r"dataset's plan_digest abc → xyz"):
        folder.claim(config.Config(units=5), _info("xyz"))
    assert (tmp_path / "config.json").read_text() == before


def test_a_start_that_failed_before_its_first_epoch_claims_nothing(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    folder.claim(config.Config(units=5), _info())
    other = config.Config(units=6)
    assert folder.claim(other, _info("xyz")) == run_folder.State()
    assert folder.read_settings() == other


def test_a_start_on_a_full_disk_can_be_repeated(tmp_path, monkeypatch):
    def fail(*arguments, **others):
        raise OSError(28, "No space left on device")

    path = tmp_path / "run"
    folder = run_folder.RunFolder(path)
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_text", fail)
        with pytest.raises(OSError, match="No space"), folder.lock():
            folder.claim(config.Config(), _info())
    assert not path.exists()
    # As an earlier version left it.
    folder.last.mkdir(parents=True)
    assert folder.claim(config.Config(), _info()) == run_folder.State()


def test_damaged_weights_are_named(tmp_path):
    def load(path):
        raise RuntimeError("Unable to open object")

    folder = run_folder.RunFolder(tmp_path)
    state = run_folder.State(weights="epoch-00001.weights.h5")
    with pytest.raises(errors.UserError, match=r"last/epoch-00001\.weights\.h5 is damaged \(Unab"):
        folder.load_weights(state, load)


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


_HOLD = """
import sys
from trainer.run import run_folder

with run_folder.RunFolder(sys.argv[1]).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_two_processes_cannot_run_in_one_folder(tmp_path):
    folder = run_folder.RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, folder.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as holder:  # fmt: skip
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(errors.UserError, match=rf"another run \(process {holder.pid}\)"):
            folder.lock().__enter__()
        # However it ends, the lock dies with it.
        holder.kill()
        holder.wait()
    with folder.lock():
        folder.claim(config.Config(), _info())
        with pytest.raises(errors.UserError, match=rf"process {os.getpid()}.*--model_dir"):
            folder.lock().__enter__()
    assert {path.name for path in folder.path.iterdir()} == {"config.json", "last"}


def test_a_folder_that_nothing_was_put_into_is_removed(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        run_folder.RunFolder(tmp_path / "deep" / "run").lock(),
    ):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with run_folder.RunFolder(tmp_path).lock():
        pass
    assert tmp_path.is_dir()  # It was there before.


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    settings = config.Config()
    state = folder.claim(settings, _info())
    state.epoch = 2
    folder.write_state(state, lambda path: path.write_text("weights"))
    start = f".{'7' * 32}.tmp"
    (tmp_path / f"{start}.best.keras").write_text("half")
    (folder.last / f"{start}.epoch-00003.weights.h5").write_text("half")
    (folder.last / f"{start}.state.json").write_text("{")
    # Killed between the new state and the end of the old weights.
    (folder.last / "epoch-00001.weights.h5").write_text("old")
    names = (".notes", ".1.mine.txt", f"{start}.mine.txt", "epoch-00001.weights.h5")
    others = [tmp_path / name for name in names]
    for other in others:
        other.write_text("a person's")
    assert folder.claim(settings, _info()) == state
    assert {path.name for path in folder.last.iterdir()} == {"state.json", state.weights}
    assert all(other.exists() for other in others)
    assert not (tmp_path / f"{start}.best.keras").exists()


def test_a_name_comes_after_its_bytes_are_on_the_disk(tmp_path, monkeypatch):
    """What a power cut leaves is what was synced before it."""
    done = []
    sync, replace = os.fsync, os.replace

    def note_sync(handle):
        sync(handle)
        done.append(("sync", os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))))

    def note_replace(source, target):
        replace(source, target)
        done.append(("name", os.path.basename(target)))

    folder = run_folder.RunFolder(tmp_path)
    state = folder.claim(config.Config(), _info())
    state.epoch = 1
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", note_sync)
        patch.setattr(os, "replace", note_replace)
        folder.write_state(state, lambda path: path.write_text("weights"))
    temporary = [(what, atomic.final_name(name) or name) for what, name in done[:6]]
    assert temporary == [
        ("sync", state.weights), ("name", state.weights), ("sync", "last"),
        ("sync", "state.json"), ("name", "state.json"), ("sync", "last"),
    ]  # fmt: skip


def test_files_that_are_nested_without_end_are_damaged(tmp_path):
    folder = run_folder.RunFolder(tmp_path)
    folder.last.mkdir()
    for path in (folder.path / "config.json", folder.last / "state.json"):
        path.write_text("[" * 200_000)
    with pytest.raises(errors.UserError, match=r"config\.json is damaged"):
        folder.read_settings()
    with pytest.raises(errors.UserError, match=r"state\.json is damaged"):
        folder.read_state()


def test_settings_of_a_run_that_is_there(tmp_path):
    folder = run_folder.RunFolder(tmp_path / "run")
    assert folder.read_settings() is None
    settings = config.Config(units=5, noise=0.5, noise_snr_db=(1.0, 2.0))
    folder.claim(settings, _info())
    assert folder.read_settings() == settings
    (folder.path / "config.json").write_bytes(b"\xff")
    with pytest.raises(errors.UserError, match=r"config\.json is damaged"):
        folder.read_settings()
