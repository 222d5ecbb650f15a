"""One checkpoint, and every place that its voices come from: they are the same voices.

Trainer, SavedModel, chunked command, evaluator, stream, LiteRT, ONNX and the page. Every network of
`models.registry` and every format of `export.outlets.formats` is here by its entry there. `ROWS`
makes networks small and says where they may differ by more; what cannot go somewhere is listed in
`REFUSED`.
"""

import csv
import dataclasses
import pathlib
import time

import numpy as np
import pytest
import soundfile

from export import evaluate, saved_model, separate
from export.evaluation import dataset_mixtures
from export.evaluation import metrics as export_metrics
from export.outlets import conversion, formats
from export.separation import loading, stream
from export.serving import model_catalog, recording, work
from models import registry
from pipeline import errors
from pipeline.dataset import dataset

RATE = 8000


@dataclasses.dataclass(frozen=True)
class Row:
    """Small settings of a network, and how far apart its figures and voices may be.

    Attributes:
        settings: what the network is made with.
        chunks_db: of the chunked separation of a long recording from that in one piece, relative
            to the latter. A network without memory sees the same in a chunk as in the whole, but
            for the level, which is each chunk's own; one with attention sees a minute
            or ten seconds.
        figure_db: of the trainer's SI-SDR improvement from the evaluator's. The trainer rounds
            lengths up with silence, which a network that normalises over the whole recording
            notices.
        slow: its graphs are large, and half a minute goes into making them.
    """

    settings: dict[str, object] = dataclasses.field(default_factory=dict)
    chunks_db: float = -15.0
    figure_db: float = 0.01
    slow: bool = False


# Networks with attention over time have few frames here: what a minute in one piece costs them
# grows with their square.
ROWS = {
    "ffn": Row({"units": 16, "num_layers": 1}, chunks_db=-20),
    "lstm": Row({"units": 16, "num_layers": 1}),
    "blstm": Row({"units": 16, "num_layers": 1}, slow=True),
    "tcn": Row(
        {"width": 16, "units": 24, "num_layers": 2, "repeats": 1, "causal": True}, slow=True
    ),
    "deep_clustering": Row(
        {"units": 16, "num_layers": 1, "dimension": 4}, chunks_db=-10, slow=True
    ),
    "chimera": Row({"units": 16, "num_layers": 1, "dimension": 4}, slow=True),
    "band_split": Row(
        {"channels": 8, "units": 6, "band_units": 4, "num_layers": 1}, chunks_db=-10, slow=True
    ),
    "conv_tasnet": Row({"filters": 32, "bottleneck": 16, "hidden": 24, "blocks": 2}, slow=True),
    "sepreformer": Row(
        {
            "channels": 16,
            "num_stages": 1,
            "kernel": 128,
            "stride": 64,
            "filters": 32,
            "heads": 2,
            "local_kernel": 9,
            "encoder_repeats": 1,
            "decoder_repeats": 1,
            "auxiliary": False,
        },
        figure_db=0.1,
        slow=True,
    ),
    "tf_locoformer": Row(
        {
            "channels": 8,
            "num_blocks": 1,
            "hidden": 8,
            "attention_channels": 8,
            "heads": 1,
            "frame_length": 1024,
            "hop": 512,
        },
        chunks_db=-10,
        slow=True,
    ),
}

# Where voices differ by rounding alone, in dB below them.
EXACT_DB = -60.0

# What cannot go where, and why.
_HEARS_THE_FUTURE = "a stream has none"
REFUSED = {
    ("sepreformer", "LiteRT"): "its attention is a loop over blocks, of which LiteRT has no lists",
    ("sepreformer", "stream"): _HEARS_THE_FUTURE,
    ("tf_locoformer", "stream"): _HEARS_THE_FUTURE,
    ("ffn", "stream"): _HEARS_THE_FUTURE,
    ("blstm", "stream"): _HEARS_THE_FUTURE,
    ("deep_clustering", "stream"): _HEARS_THE_FUTURE,
    ("chimera", "stream"): _HEARS_THE_FUTURE,
    ("band_split", "stream"): _HEARS_THE_FUTURE,
    ("conv_tasnet", "stream"): _HEARS_THE_FUTURE,
}


# What has no row has its default settings, which take long.
NETWORKS = {name: ROWS.get(name, Row(slow=True)) for name in registry.names()}


@dataclasses.dataclass(frozen=True)
class Ways:
    """A checkpoint in the trainer's hands, on the disk, and as a SavedModel."""

    name: str
    separator: object
    run: pathlib.Path
    exported: pathlib.Path
    loaded: loading.LoadedModel
    row: Row


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if row.slow else [])
        for name, row in NETWORKS.items()
    ],
)
def ways(request, tmp_path_factory):
    import keras

    from models import separator

    row = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    keras.utils.set_random_seed(3)
    network = registry.create(request.param, num_outputs=2, **row.settings)
    model = separator.wrap(
        network, mean=-3.2, deviation=0.9, active_level_db=-26.0, sample_rate=RATE, num_sources=2
    )
    model(np.zeros((1, RATE), np.float32))
    if network.takes == separator.LOG_MAGNITUDE:
        # Masks far from one half, so that a wrong one shows.
        for variable in network.trainable_variables:
            variable.assign(3 * variable)
            if variable.name == "kernel" and not np.any(variable):
                variable.assign(np.random.default_rng(2).normal(0, 0.05, variable.shape))
    if request.param == "deep_clustering":
        # What a network that has learned has: clusters, low bins and high ones.
        bias = np.where(np.arange(129)[:, None] < 30, [2.0, 0, 0, 0], [0, 2.0, 0, 0])
        network.embedding_head.dense.bias.assign(bias.ravel())
    (folder / "run").mkdir()
    model.save(folder / "run" / "best.keras")
    exported = folder / "exported"
    saved_model.write(model, exported, lite=False)
    return Ways(request.param, model, folder / "run", exported, loading.load(exported), row)


def test_rows_are_of_networks_that_there_are():
    assert set(ROWS) | {name for name, _ in REFUSED} <= set(registry.names())


def test_trainer_and_evaluator_agree_to_a_hundredth_of_a_db(ways, small_dataset, tmp_path):
    from trainer import objectives, training_models
    from trainer.data import splits, validation_batches
    from trainer.run import callbacks

    info = dataset.read(str(small_dataset))
    whole = training_models.WholeMixtures(ways.separator, objectives.Objective("sisdr"))
    split = splits.Split(str(small_dataset), "valid", info)
    batches = validation_batches.Batches(validation_batches.read(split))
    trained = callbacks.validate(whole, batches)["si_sdr_improvement"]

    summary = evaluate.evaluate(
        [str(ways.run), str(ways.exported)], [str(small_dataset)], str(tmp_path), split="valid",
        metric_names=["si_sdr"], workers=1, examples=0,
    )  # fmt: skip
    systems = summary["datasets"][0]["systems"]
    for name in ("run", "exported"):
        evaluated = systems[name]["si_sdr_improvement"]["all"]["mean"]
        assert evaluated == pytest.approx(trained, abs=ways.row.figure_db)

    # And the command, over a WAV file of each mixture, to what 16 bits leave of it.
    with open(tmp_path / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["system"] == "exported"]
    for mixture in dataset_mixtures.read(str(small_dataset), info, "valid", limit=2):
        path = tmp_path / f"{mixture.id}.wav"
        soundfile.write(path, mixture.waveform, RATE, subtype="PCM_16")
        samples, rate = soundfile.read(path, dtype="float32")
        voices = separate.separate(samples, rate, ways.loaded, band="model", gate=False)
        _, values = export_metrics.score(mixture.voices, voices, RATE, ["si_sdr"])
        (row,) = [row for row in rows if row["mixture_id"] == mixture.id]
        assert values["si_sdr"].mean() == pytest.approx(float(row["si_sdr"]), abs=0.01)


def page(model, samples, folder):
    """The voices that the page gives for a file."""
    one = recording.Recording(folder, "mixture.wav", "model")
    soundfile.write(one.source, samples, RATE, format="WAV", subtype="FLOAT")
    queue = work.Queue(
        model_catalog.Models({"model": model}), work.Limits(10**7, 60), at_once=1, waiting=1
    )
    queue.submit(one)
    while one.active:
        time.sleep(0.01)
    assert one.state == recording.DONE, one.message
    voices = np.stack([soundfile.read(one.files[f"voice{s}.wav"].path)[0] for s in (1, 2)])
    assert queue.close(60)
    return voices


def test_every_outlet_gives_the_same_voices(ways, small_dataset, tmp_path, record_property):
    info = dataset.read(str(small_dataset))
    mixtures = [
        mixture.waveform for mixture in dataset_mixtures.read(str(small_dataset), info, "valid")
    ][:2]
    # Of another level, which must come back.
    mixtures[1] = mixtures[1] / 20
    expected = [np.asarray(ways.separator(mixture[np.newaxis]))[0] for mixture in mixtures]
    outlets = {
        "checkpoint": loading.load(ways.run).separate,
        "SavedModel": ways.loaded.separate,
        "page": lambda mixture: page(ways.loaded, mixture[0], tmp_path)[np.newaxis],
    }
    for row in formats.FORMATS:
        if not row.is_installed:
            print(f"{row.name} is left out: {row.runtime} is not installed")
        elif row.suffix:
            file = tmp_path / f"model{row.suffix}"
            if (ways.name, row.name) in REFUSED:
                with pytest.raises(errors.UserError, match="cannot be converted"):
                    conversion.write(row, ways.separator, file)
                continue
            conversion.write(row, ways.separator, file)
            outlets[row.name] = loading.load(file).separate
    # The page recognises people and silences one voice while the other speaks alone, as the command
    # does by default.
    by_command = [separate.separate(mixture, RATE, ways.loaded) for mixture in mixtures]
    for name, run in outlets.items():
        differences = [
            conversion.difference_db(run(mixture[np.newaxis])[0], voices)
            for mixture, voices in zip(
                mixtures, by_command if name == "page" else expected, strict=True
            )
        ]
        record_property(name, round(max(differences), 1))
        print(f"{ways.name}, {name}: {max(differences):.0f} dB")
        assert max(differences) < EXACT_DB, (name, differences)


def test_a_stream_is_the_whole_at_that_gain(ways, small_dataset):
    info = dataset.read(str(small_dataset))
    mixture = next(iter(dataset_mixtures.read(str(small_dataset), info, "valid"))).waveform
    if (ways.name, "stream") in REFUSED:
        assert ways.loaded.info.stream is None
        return
    live = stream.Stream(ways.loaded, gain_db=3.0)
    pieces = [live.feed(part) for part in np.split(mixture, [1, 1000, 1700, 9000])]
    found = np.concatenate([*pieces, live.finish()], axis=1)
    expected = np.asarray(ways.separator(mixture[np.newaxis], gain_db=3.0))[0]
    assert conversion.difference_db(found, expected) < EXACT_DB


def test_chunks_of_a_long_recording_agree_with_the_whole(ways, small_dataset):
    """A minute, in chunks of ten seconds."""
    info = dataset.read(str(small_dataset))
    pieces = [
        mixture.waveform for mixture in dataset_mixtures.read(str(small_dataset), info, "train")
    ]
    long = np.concatenate(pieces * 4)[: 60 * RATE]
    whole = ways.loaded.separate(long[np.newaxis])[0]
    chunked = separate.separate(
        long, RATE, ways.loaded, chunk_seconds=10, overlap_seconds=2, band="model", gate=False
    )
    assert chunked.shape == whole.shape
    np.testing.assert_allclose(chunked.sum(axis=0), long, atol=1e-5)
    difference = ((chunked - whole) ** 2).sum() / (whole**2).sum()
    assert 10 * np.log10(difference) < ways.row.chunks_db
