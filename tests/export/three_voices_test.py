"""Three voices at once, from shards to figures and to files of one voice each."""

import csv

import keras
import numpy as np
import pytest
import soundfile

from export import evaluate, saved_model
from export.conversations import file_separation
from export.separation import jobs
from export.separation import loading as loading_lib
from trainer import config, training


@pytest.fixture(scope="module")
def exported(make_dataset, tmp_path_factory):
    """The dataset and a network that was trained on it for an epoch, as a SavedModel."""
    folder = tmp_path_factory.mktemp("three")
    make_dataset(folder / "data", {"train": 3, "valid": 2, "test": 2}, num_sources=3)
    settings = config.Config(
        data_dir=str(folder / "data"), model="lstm", units=16, layers=1, loss="sisdr",
        frames=50, batch_size=4, epochs=1, steps_per_epoch=3, mixing="dynamic", tensorboard=False,
    )  # fmt: skip
    training.train(settings, folder / "run")
    separator = keras.saving.load_model(folder / "run" / "best.keras", compile=False)
    saved_model.write(separator, folder / "exported", lite=False)
    return folder


def test_evaluation_finds_the_best_of_six_orders(exported, tmp_path):
    summary = evaluate.evaluate(
        [str(exported / "exported")], [str(exported / "data")], str(tmp_path), split="test",
        metric_names=["si_sdr"], workers=1, examples=0,
    )  # fmt: skip
    systems = summary["datasets"][0]["systems"]
    oracle = systems["oracle IBM"]["si_sdr_improvement"]["all"]["mean"]
    assert oracle > systems["exported"]["si_sdr_improvement"]["all"]["mean"]
    assert oracle > 3
    with open(tmp_path / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "exported"]
    assert len(rows) == 2


def test_the_page_knows_three(exported, tmp_path):
    evaluate.evaluate(
        [str(exported / "exported")], [str(exported / "data")], str(tmp_path), split="test",
        metric_names=["si_sdr", "mask_accuracy"], workers=1, max_mixtures=1, audio=False,
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    for number, colour in enumerate(("teal", "orange", "blue"), 1):
        assert f'<span class="name voice{number}">voice {number}</span>' in page
        assert f"{colour} for voice {number}" in page
    assert "rose for voice 4" not in page
    assert "level over the other voices" in page
    assert "over the other voice " not in page
    assert "two or more speak" in page
    assert "both" not in page.split("Look and listen")[0].split("Spread")[-1]


def test_a_recording_becomes_three_files_that_add_up(exported, tmp_path, speechlike):
    source = tmp_path / "talk.wav"
    soundfile.write(source, speechlike(20001), 8000, subtype="FLOAT")
    model = loading_lib.load(exported / "exported")
    made = file_separation.separate_file(jobs.Job(source, tmp_path / "out" / "talk"), model)
    assert [path.name for path in made.files] == [f"talk_voice{i}.wav" for i in (1, 2, 3)]
    voices = [soundfile.read(path)[0] for path in made.files]
    np.testing.assert_allclose(sum(voices), soundfile.read(source)[0], atol=1e-5)
