"""What all tests share: quiet libraries, real recordings, running a command, a small dataset.

The small dataset is written with the schema directly, so that no test waits for the Beam job.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from pipeline import features, ideal_masks, plan, schema
from pipeline.corpora import mixture_list
from pipeline.dataset import dataset, tfrecord, utterance_shards
from pipeline.dataset import shards as shards_lib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

ROOT = pathlib.Path(__file__).resolve().parent.parent


# Before xdist reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With several workers a file's tests stay together, and so do those of the whole path."""
    for item in items:
        if item.get_closest_marker("xdist_group"):
            continue
        path = item.path.relative_to(ROOT / "tests")
        whole = path.parts[0] == "end_to_end"
        item.add_marker(pytest.mark.xdist_group("end_to_end" if whole else path.as_posix()))


@pytest.fixture(scope="session")
def recordings():
    """The folder that holds `timit_sample` and `speech`; skips where there is none."""
    folder = os.environ.get("SPEECH_RECORDINGS")
    if not folder:
        pytest.skip("SPEECH_RECORDINGS does not name a folder of real recordings")
    return pathlib.Path(folder).resolve()


@pytest.fixture(scope="session")
def run_command():
    """Runs `python -m MODULE FLAGS...` as a person would; returns the finished process."""

    def run(module, *flags, timeout=300, env=None, cwd=ROOT, stdin=None):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, flags)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
        )

    return run


NUM_SOURCES = 2


def voice(rng, num_samples, pitch):
    """A harmonic tone in syllables: sparse in frequency and time, as speech is."""
    time = np.arange(num_samples) / schema.DEFAULT_SAMPLE_RATE
    tone = sum(np.sin(2 * np.pi * pitch * h * time + rng.uniform(0, 6)) / h for h in range(1, 12))
    rate, phase = rng.uniform(2, 4), rng.uniform(0, 6)
    envelope = np.clip(np.sin(2 * np.pi * rate * time + phase), 0.02, None)
    return 0.05 * envelope * tone + 1e-4 * rng.standard_normal(num_samples)


def record(identity, sources, masks=schema.MASKS):
    """The values of one mixture's record, by name, for `schema.encode`."""
    sources = np.round(np.asarray(sources) * schema.FULL_SCALE).astype(np.int16)
    spectrograms = features.stft(sources.astype(np.float32) / schema.FULL_SCALE)
    mixture = spectrograms.sum(axis=0)
    count, num_samples = sources.shape
    stored = schema.num_stored_masks(count)
    values = {
        "mixture_id": identity,
        "utterance_ids": [f"{identity}/{i}" for i in range(count)],
        "speaker_ids": [f"speaker{i}" for i in range(count)],
        "sexes": ["f", "m", "", "f"][:count],
        "gains_db": [0.0] * count,
        "sample_rate": schema.DEFAULT_SAMPLE_RATE,
        "num_samples": num_samples,
        "num_frames": mixture.shape[0],
        "num_bins": mixture.shape[1],
        "num_sources": count,
        "sources": sources,
        "log_magnitude": features.log_magnitude(mixture),
        "ibm": ideal_masks.binary(np.abs(spectrograms))[:stored],
        "irm": ideal_masks.ratio(np.abs(spectrograms))[:stored],
        "psm": ideal_masks.phase_sensitive(spectrograms, mixture)[:stored],
        "voice_activity": features.voice_activity(spectrograms),
    }
    return {f.name: values[f.name] for f in schema.mixture_features(masks)}


SPEAKERS = {"low": (95, "m"), "middle": (150, "m"), "high": (210, "f"), "child": (330, "")}


def write_utterances(folder, num_shards=2, utterances=3, seed=0):
    """Clean utterances of four speakers beside a dataset; returns what its info says of them."""
    rng = np.random.default_rng([seed, *b"utterances"])
    place = folder / schema.UTTERANCES_FOLDER
    place.mkdir(exist_ok=True)
    rows = []
    for number in range(utterances):
        for speaker, (pitch, sex) in SPEAKERS.items():
            num_samples = int(rng.integers(9000, 22000))
            samples = voice(rng, num_samples, pitch * rng.uniform(0.9, 1.1)).astype(np.float32)
            names = {"utterance_id": f"{speaker}/{number}", "speaker_id": speaker, "sex": sex}
            rows.append(names | utterance_shards.compute(samples, schema.DEFAULT_SAMPLE_RATE))
    sidecars = []
    for name in schema.ShardName.of_split("train", num_shards):
        with open(place / str(name), "wb") as file:
            writer = tfrecord.Writer(file)
            own = rows[name.index :: num_shards]
            entries = []
            for values in own:
                record = shards_lib.encode(schema.UTTERANCE_FEATURES, values)
                entries.append(utterance_shards.entry(values, record, writer.write(record)))
        shard = dataset.ShardInfo(str(name), writer.records, writer.bytes, writer.sha256)
        about = {"shard": shard, "plan_digest": "", "utterances": tuple(entries)}
        sidecars.append(utterance_shards.Sidecar(**about))
    (place / schema.UTTERANCES_INDEX_FILE).write_text(utterance_shards.index_csv(sidecars))
    seconds = sum(values["num_samples"] for values in rows) / schema.DEFAULT_SAMPLE_RATE
    shards = tuple(sidecar.shard for sidecar in sidecars)
    return dataset.UtterancesInfo(len(rows), len(SPEAKERS), seconds, shards, "")


def write_dataset(folder, records, masks=schema.MASKS, num_shards=2, **config):
    """A dataset's folder with `records`, a dict of split to lists of values; returns its info."""
    chosen = schema.mixture_features(masks)

    folder.mkdir(parents=True, exist_ok=True)
    splits = {}
    for split, rows in records.items():
        shards = []
        for name in schema.ShardName.of_split(split, num_shards):
            own = rows[name.index :: num_shards]
            with open(folder / str(name), "wb") as file:
                writer = tfrecord.Writer(file)
                for values in own:
                    writer.write(shards_lib.encode(chosen, values))
            shards.append(dataset.ShardInfo(str(name), writer.records, writer.bytes, writer.sha256))
        seconds = sum(r["num_samples"] for r in rows) / schema.DEFAULT_SAMPLE_RATE
        frames = sum(r["num_frames"] for r in rows)
        splits[split] = dataset.SplitInfo(len(rows), 2, seconds, frames, tuple(shards))
    count = NUM_SOURCES
    if records:
        count = next(iter(records.values()))[0]["num_sources"]
    train = records.get("train")
    values = np.concatenate([r["log_magnitude"].ravel() for r in train]) if train else None
    levels = [
        features.active_level_db(r["sources"].sum(axis=0) / schema.FULL_SCALE) for r in train or []
    ]
    info = dataset.DatasetInfo(
        schema_version=schema.SCHEMA_VERSION,
        config={
            "sample_rate": schema.DEFAULT_SAMPLE_RATE,
            "num_sources": count,
            "masks": list(masks),
            "seed": 0,
            **config,
        },
        splits=splits,
        mean=None if values is None else float(values.mean()),
        deviation=None if values is None else float(values.std()),
        active_level_db=float(np.mean(levels)) if levels else None,
        plan_digest=hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest(),
        versions={},
        created="2026-01-01T00:00:00Z",
        utterances=write_utterances(folder, num_shards) if train else None,
    )
    mixtures = [
        plan.Mixture(
            r["mixture_id"], split, r["num_samples"],
            tuple(r["utterance_ids"]), tuple(r["speaker_ids"]), tuple(r["gains_db"]),
        )
        for split in records for r in records[split]
    ]  # fmt: skip
    (folder / schema.MIXTURES_FILE).write_text(mixture_list.to_csv(mixtures))
    (folder / schema.INFO_FILE).write_text(info.to_json())
    (folder / schema.MARKER_FILE).touch()
    return info


def make_records(split, count, seed=0, num_sources=NUM_SOURCES, masks=schema.MASKS):
    """Mixtures of a low and a high voice, in changing order, of changing length."""
    rng = np.random.default_rng([seed, *split.encode()])
    rows = []
    for i in range(count):
        num_samples = int(rng.integers(9000, 22000))
        pitches = rng.permutation(np.array([95, 210, 330, 150])[:num_sources])
        pitches = pitches * rng.uniform(0.9, 1.1, num_sources)
        rows.append(record(f"{split}{i}", [voice(rng, num_samples, p) for p in pitches], masks))
    return rows


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """A folder with 10 mixtures to train on and 4 to validate with; read-only."""
    folder = tmp_path_factory.mktemp("dataset")
    write_dataset(folder, {s: make_records(s, n) for s, n in (("train", 10), ("valid", 4))})
    return folder


@pytest.fixture(scope="session")
def make_dataset():
    """Writes a dataset: a folder, and how many mixtures each split has."""

    def make(folder, counts, num_sources=NUM_SOURCES, seed=0, masks=schema.MASKS):
        rows = {s: make_records(s, n, seed, num_sources, masks) for s, n in counts.items()}
        return write_dataset(folder, rows, masks, seed=seed)

    return make
