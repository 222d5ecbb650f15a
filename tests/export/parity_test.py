"""One checkpoint, four ways to its figure: trainer, SavedModel, chunked command, evaluator.

A network that is added later joins by a line in `NETWORKS`.
"""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
import soundfile

from export import evaluate, loading, records, saved_model, separate
from export import metrics as export_metrics
from pipeline import dataset

RATE = 8000

# Small settings of each network, and how far the chunked separation of a long recording may be
# from that in one piece: relative to the latter, in dB. A network that has no memory sees the same
# in a chunk as in the whole, but for the level, which is each chunk's own.
NETWORKS = {
    "ffn": ({"units": 16, "num_layers": 1}, -20.0),
    "lstm": ({"units": 16, "num_layers": 1}, -15.0),
    "blstm": ({"units": 16, "num_layers": 1}, -15.0),
    "deep_clustering": ({"units": 16, "num_layers": 1, "dimension": 4}, -10.0),
    "chimera": ({"units": 16, "num_layers": 1, "dimension": 4}, -15.0),
    "conv_tasnet": ({"filters": 32, "bottleneck": 16, "hidden": 24, "blocks": 2}, -15.0),
}


@dataclasses.dataclass(frozen=True)
class Ways:
    """A checkpoint in the trainer's hands, on the disk, and as a SavedModel."""

    separator: object
    run: pathlib.Path
    exported: pathlib.Path
    allowed_db: float


@pytest.fixture(scope="module", params=list(NETWORKS))
def ways(request, tmp_path_factory):
    import keras

    from models import registry, separator

    settings, allowed_db = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    keras.utils.set_random_seed(3)
    network = registry.create(request.param, num_outputs=2, **settings)
    model = separator.wrap(
        network, mean=-3.2, deviation=0.9, active_level_db=-26.0, sample_rate=RATE, num_sources=2
    )
    model(np.zeros((1, RATE), np.float32))
    if network.takes == separator.LOG_MAGNITUDE:
        # Masks far from one half, so that a wrong one shows.
        for variable in network.trainable_variables:
            variable.assign(3 * variable)
    if request.param == "deep_clustering":
        # What a network that has learned has: clusters, low bins and high ones.
        bias = np.where(np.arange(129)[:, None] < 30, [2.0, 0, 0, 0], [0, 2.0, 0, 0])
        network.embedding_head.dense.bias.assign(bias.ravel())
    (folder / "run").mkdir()
    model.save(folder / "run" / "best.keras")
    saved_model.write(model, folder / "exported")
    return Ways(model, folder / "run", folder / "exported", allowed_db)


def test_trainer_and_evaluator_agree_to_a_hundredth_of_a_db(ways, small_dataset, tmp_path):
    from trainer import callbacks, learner, objectives, splits, whole_mixtures

    info = dataset.read(str(small_dataset))
    whole = learner.WholeMixtures(ways.separator, objectives.Objective("sisdr"))
    split = splits.Split(str(small_dataset), "valid", info)
    batches = whole_mixtures.Batches(whole_mixtures.read(split))
    trained = callbacks.validate(whole, batches)["si_sdr_improvement"]

    summary = evaluate.evaluate(
        [str(ways.run), str(ways.exported)], [str(small_dataset)], str(tmp_path), split="valid",
        metric_names=["si_sdr"], workers=1, examples=0,
    )  # fmt: skip
    systems = summary["datasets"][0]["systems"]
    for name in ("run", "exported"):
        evaluated = systems[name]["si_sdr_improvement"]["all"]["mean"]
        assert evaluated == pytest.approx(trained, abs=0.01)

    # And the command, over a WAV file of each mixture, to what 16 bits leave of it.
    with open(tmp_path / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "exported"]
    model = loading.load(ways.exported)
    for mixture in records.read(str(small_dataset), info, "valid"):
        path = tmp_path / f"{mixture.id}.wav"
        soundfile.write(path, mixture.waveform, RATE, subtype="PCM_16")
        samples, rate = soundfile.read(path, dtype="float32")
        voices = separate.separate(samples, rate, model)
        _, values = export_metrics.score(mixture.voices, voices, RATE, ["si_sdr"])
        (row,) = [row for row in rows if row["mixture_id"] == mixture.id]
        assert values["si_sdr"].mean() == pytest.approx(float(row["si_sdr"]), abs=0.01)


def test_saved_model_and_keras_give_the_same_samples(ways, speechlike):
    mixture = speechlike(3 * RATE)[np.newaxis]
    expected = np.asarray(ways.separator(mixture))
    for path in (ways.run, ways.exported):
        np.testing.assert_allclose(loading.load(path).separate(mixture), expected, atol=2e-5)


def test_chunks_of_a_long_recording_agree_with_the_whole(ways, small_dataset):
    """A minute, in chunks of ten seconds."""
    info = dataset.read(str(small_dataset))
    pieces = [mixture.waveform for mixture in records.read(str(small_dataset), info, "train")]
    long = np.concatenate(pieces * 4)[: 60 * RATE]
    model = loading.load(ways.exported)
    whole = model.separate(long[np.newaxis])[0]
    chunked = separate.separate(long, RATE, model, chunk_seconds=10, overlap_seconds=2)
    assert chunked.shape == whole.shape
    np.testing.assert_allclose(chunked.sum(axis=0), long, atol=1e-5)
    difference = ((chunked - whole) ** 2).sum() / (whole**2).sum()
    assert 10 * np.log10(difference) < ways.allowed_db
