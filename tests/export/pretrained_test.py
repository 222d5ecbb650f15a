"""The model that comes with the package: it is there, small, whole, and takes real voices apart."""

import csv
import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from fast_bss_eval import numpy as bss

from export import pretrained, separate
from export.outlets import conversion
from export.separation import loading
from pipeline import errors, features, file_names
from pipeline.audio import decoding

MAX_BYTES = 25e6
ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_model_is_small_and_has_its_card_and_log():
    assert pretrained.DEFAULT in pretrained.names()
    for name in pretrained.names():
        folder = pretrained.path(name)
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < MAX_BYTES
        names = {file.name for file in files}
        assert {"saved_model.pb", file_names.MODEL_INFO, pretrained.CARD_FILE, "log.csv"} <= names
        assert file_names.LITE_MODEL in names
        assert name in (folder / pretrained.CARD_FILE).read_text(encoding="utf-8")


def test_names_and_paths(tmp_path):
    assert pretrained.resolve("") == str(pretrained.path())
    assert pretrained.resolve(pretrained.DEFAULT) == str(pretrained.path())
    assert pretrained.resolve(str(tmp_path)) == str(tmp_path)
    with pytest.raises(errors.UserError, match=rf"no model 'x' .*{pretrained.DEFAULT}"):
        pretrained.path("x")


@pytest.mark.parametrize("name", pretrained.names())
def test_its_two_files_give_the_same_voices(name, speechlike):
    pytest.importorskip("ai_edge_litert")
    saved = loading.load(pretrained.path(name))
    lite = loading.load(pretrained.path(name) / file_names.LITE_MODEL)
    assert lite.info.network == saved.info.network
    assert lite.info.constants == saved.info.constants
    for mixture in (speechlike(3 * 8000), 0.03 * speechlike(1234), speechlike(30 * 8000)):
        expected = saved.separate(mixture[np.newaxis])
        found = lite.separate(mixture[np.newaxis])
        assert conversion.difference_db(found, expected) < conversion.EXACT_DB


def test_what_separates_soonest(tmp_path, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    quick = str(pretrained.path() / file_names.LITE_MODEL)
    assert pretrained.quickest("") == quick
    assert pretrained.quickest(pretrained.DEFAULT) == quick
    assert pretrained.quickest(str(pretrained.path())) == quick
    # In a folder of something else it is nothing.
    (tmp_path / file_names.LITE_MODEL).touch()
    assert pretrained.quickest(str(tmp_path)) == str(tmp_path)
    (tmp_path / file_names.SAVED_MODEL).touch()
    assert pretrained.quickest(str(tmp_path)) == str(tmp_path / file_names.LITE_MODEL)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert pretrained.quickest("") == str(pretrained.path())


def test_the_command_needs_no_tensorflow(tmp_path, speechlike):
    """Which takes several seconds to import."""
    pytest.importorskip("ai_edge_litert")
    soundfile.write(tmp_path / "mixture.wav", speechlike(8000), 8000)
    program = (
        "import runpy, sys; sys.modules['tensorflow'] = None; "
        "runpy.run_module('export.separate', run_name='__main__', alter_sys=True)"
    )
    subprocess.run(
        [sys.executable, "-c", program, "mixture.wav", "--output_dir=out", "--nogate"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, timeout=60,
    )  # fmt: skip
    found = np.stack([soundfile.read(tmp_path / f"out/mixture_voice{s}.wav")[0] for s in (1, 2)])
    mixture, _ = soundfile.read(tmp_path / "mixture.wav")
    expected = separate.separate(mixture, 8000, loading.load(pretrained.path()), gate=False)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_it_is_what_separates_where_none_is_named():
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(12000).astype(np.float32)
    voices = separate.separate(noise, 8000)
    model = loading.load(pretrained.quickest(pretrained.DEFAULT))
    assert model.num_sources == 2
    np.testing.assert_allclose(voices, separate.separate(noise, 8000, model), atol=1e-6)
    np.testing.assert_allclose(voices.sum(axis=0), noise, atol=1e-5)


def test_it_takes_voices_apart_that_it_never_heard(recordings):
    """Six pairs of a woman and a man of the test split, against another library's SI-SDR."""
    with open(recordings / "speech" / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    first = {row["speaker"]: row for row in reversed(rows)}
    women, men = (
        [first[name] for name in sorted(first) if first[name]["sex"] == sex][:6] for sex in "fm"
    )
    improvements = []
    for pair in zip(women, men, strict=True):
        voices = []
        for row in pair:
            path = recordings / "speech" / row["path"]
            samples, rate = decoding.decode(path.read_bytes())
            samples = decoding.resample(samples, rate, 8000)[:32000]
            level = features.active_level_db(samples)
            voices.append(samples * 10 ** ((-26 - level) / 20))
        references = np.stack([voice[: min(map(len, voices))] for voice in voices])
        mixture = references.sum(axis=0)
        estimates = separate.separate(mixture, 8000)
        after = max(
            np.mean(bss.si_sdr(references, estimates[order], zero_mean=True))
            for order in ([0, 1], [1, 0])
        )
        before = np.mean(bss.si_sdr(references, np.stack([mixture] * 2), zero_mean=True))
        improvements.append(after - before)
    assert np.mean(improvements) > 4


def _talk(folder, pair, seconds):
    """Two speakers who take turns, talk at once and pause; float32 `[voice, sample]` at 8 kHz."""
    random = np.random.default_rng(0)
    truth = np.zeros((2, seconds * 8000), np.float32)
    for row, speaker in zip(truth, pair, strict=True):
        files = sorted(folder.rglob(f"{speaker}/*.WAV"))
        place = 0
        while place < row.size:
            samples, rate = decoding.decode(random.choice(files).read_bytes())
            samples = decoding.resample(samples, rate, 8000)[: row.size - place]
            row[place : place + samples.size] = samples
            place += samples.size + round(random.exponential(2.0) * 8000)
    return truth


def _share_of_the_other_side(truth, voices):
    """Of the seconds in which somebody speaks, those whose voices are not where most have them."""
    seconds = [x.reshape(2, -1, 8000).transpose(1, 0, 2) for x in (truth, voices)]
    energy = np.square(seconds[0]).sum(axis=2)
    likeness = np.einsum("tis,tjs->tij", *seconds)
    straight = np.trace(likeness, axis1=1, axis2=2) >= np.trace(likeness[:, ::-1], axis1=1, axis2=2)
    straight = straight[energy.max(axis=1) > 0.01 * energy.max()]
    assert straight.size > 40
    return min(straight.mean(), 1 - straight.mean())


@pytest.mark.slow
def test_a_woman_and_a_man_keep_their_sides_for_a_minute(recordings):
    """In pieces that are separated by themselves, of which nobody knows whose voice comes first."""
    folder = recordings / "timit_sample"
    speakers = sorted({path.parent.name for path in folder.rglob("*.WAV")})
    women, men = ([name for name in speakers if name[0] == sex] for sex in "FM")
    shares = {10: [], 30: [], 60: []}
    for pair in zip(women, men, strict=True):
        truth = _talk(folder, pair, 60)
        for chunk_seconds, found in shares.items():
            voices = separate.separate(truth.sum(axis=0), 8000, chunk_seconds=chunk_seconds)
            np.testing.assert_allclose(voices.sum(axis=0), truth.sum(axis=0), atol=1e-5)
            found.append(_share_of_the_other_side(truth, voices))
    assert len(shares[60]) == 8
    whole = np.mean(shares[60])
    assert whole < 0.05
    # At the seams nobody changes sides.
    for chunk_seconds in (10, 30):
        assert np.mean(shares[chunk_seconds]) < whole + 0.01


@pytest.mark.parametrize(
    ("kind", "rate"), [("short", 8000), ("silence", 48000), ("one", 16000), ("clipped", 44100)]
)
def test_odd_recordings_give_voices_that_add_up(kind, rate, speechlike):
    samples = {
        "short": lambda: speechlike(rate // 10),
        "silence": lambda: np.zeros(3 * rate, np.float32),
        "one": lambda: speechlike(3 * rate),
        "clipped": lambda: np.clip(40 * speechlike(3 * rate), -1, 1),
    }[kind]()
    stereo = np.stack([samples, 0.5 * samples[::-1]], axis=1).astype(np.float32)
    voices = separate.separate(stereo, rate)
    assert voices.shape == (2, *stereo.shape)
    assert np.isfinite(voices).all()
    # Well below half the model's rate, near which resampling begins to cut.
    wanted, found = (np.fft.rfft(x, axis=0) for x in (stereo, voices.sum(axis=0)))
    low = np.fft.rfftfreq(len(stereo), 1 / rate) < 3500
    difference = np.abs(found - wanted)[low].max()
    assert difference <= 0.01 * np.abs(wanted).max()
