"""Tests of trainer.speaker_embedding."""

import types

import numpy as np

from models import speaker
from trainer import speaker_embedding


def test_the_file_holds_all_that_the_networks_need(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    second = speaker.RATE
    people = {
        name: [0.1 * rng.standard_normal(6 * second).astype(np.float32)] for name in ("A", "B", "C")
    }

    def untrained(*_):
        width = speaker_embedding._WIDTHS["embedding"]
        inputs = (speaker.NUM_FEATURES, *width[:-1])
        weights = {"embedding/dense": rng.standard_normal((2 * width[-1], 64))}
        plan = zip(speaker_embedding._KERNELS["embedding"], inputs, width, strict=True)
        for layer, shape in enumerate(plan):
            weights[f"embedding/{layer}/kernel"] = 0.1 * rng.standard_normal(shape)
            weights[f"embedding/{layer}/bias"] = np.zeros(shape[-1])
        return weights

    for name, replacement in {
        "read": lambda *_: people,
        "load_separator": lambda *_: None,
        "conversations": lambda *_: [],
        "train_embedding": untrained,
        "train_overlap": lambda *_: {},
    }.items():
        monkeypatch.setattr(speaker_embedding, name, replacement)
    output = tmp_path / "speakers.npz"
    values = {"MANIFESTS": ["m"], "SEPARATOR": "s", "OUTPUT": output, "STEPS": 1, "MINUTES": 1.0}
    for name, value in {**values, "SEED": 0}.items():
        flag = types.SimpleNamespace(name=name, value=value)
        monkeypatch.setattr(speaker_embedding, f"_{name}", flag)
    speaker_embedding.main([])

    networks = speaker.Networks.load(output)
    embedding = networks.embed(speaker.features(people["A"][0]))
    assert embedding.shape == networks.spread.shape
    assert np.isfinite(embedding).all()
