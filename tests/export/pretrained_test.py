"""The model that comes with the package: it is there, small, whole, and takes real voices apart."""

import csv

import numpy as np
import pytest
from fast_bss_eval import numpy as bss

from export import loading, model_info, pretrained, separate
from pipeline import audio, errors, features

MAX_BYTES = 25e6


def test_every_model_is_small_and_has_its_card_and_log():
    assert pretrained.DEFAULT in pretrained.names()
    for name in pretrained.names():
        folder = pretrained.path(name)
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) < MAX_BYTES
        names = {file.name for file in files}
        assert {"saved_model.pb", model_info.FILE, pretrained.CARD_FILE, "log.csv"} <= names
        assert name in (folder / pretrained.CARD_FILE).read_text(encoding="utf-8")


def test_names_and_paths(tmp_path):
    assert pretrained.resolve("") == str(pretrained.path())
    assert pretrained.resolve(pretrained.DEFAULT) == str(pretrained.path())
    assert pretrained.resolve(str(tmp_path)) == str(tmp_path)
    with pytest.raises(errors.UserError, match=rf"no model 'x' .*{pretrained.DEFAULT}"):
        pretrained.path("x")


def test_it_is_what_separates_where_none_is_named():
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal(12000).astype(np.float32)
    voices = separate.separate(noise, 8000)
    model = loading.load(pretrained.path())
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
            samples, rate = audio.decode(path.read_bytes())
            samples = audio.resample(samples, rate, 8000)[:32000]
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
