"""Tests of trainer.speaker_embedding."""

import types

import numpy as np
import pytest

from models import speaker
from pipeline import errors
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
        weights["embedding/bias"] = np.zeros(64)
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


def test_a_missing_output_folder_is_told_before_the_training(tmp_path, monkeypatch):
    values = {"MANIFESTS": ["m"], "SEPARATOR": "s", "OUTPUT": str(tmp_path / "missing" / "x.npz")}
    for name, value in values.items():
        flag = types.SimpleNamespace(name=name, value=value)
        monkeypatch.setattr(speaker_embedding, f"_{name}", flag)
    with pytest.raises(errors.UserError, match=r"there is no folder .*missing; make it first"):
        speaker_embedding.main([])


def test_the_network_in_numpy_is_that_of_keras():
    """Normalisation becomes part of the kernels; the vectors stay the same."""
    rng = np.random.default_rng(0)
    model = speaker_embedding.embedding_network()
    for layer in model.layers:
        if layer.name.endswith("normalized") or layer.name == "pooled":
            gain, offset, mean, variance = layer.get_weights()
            layer.set_weights(
                [rng.uniform(0.5, 2, gain.shape), rng.normal(size=offset.shape),
                 rng.normal(size=mean.shape), rng.uniform(0.5, 2, variance.shape)]
            )  # fmt: skip
    values = rng.standard_normal((60, speaker.NUM_FEATURES)).astype(np.float32)
    weights = rng.integers(0, 2, 60).astype(np.float32)
    expected = model([values[np.newaxis], weights[np.newaxis]], training=False).numpy()[0]
    networks = speaker.Networks(speaker_embedding.embedding_weights(model))
    found = networks.vector(values, weights)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-4)


def test_speakers_of_a_step_are_different_and_include_copies():
    names = [f"{name}~{copy}" if copy else name for name in "abcdef" for copy in range(5)]
    drawn = [names[k] for k in speaker_embedding.draw_speakers(names, np.random.default_rng(0))]
    assert len(set(drawn)) == len(drawn) == 6 * 3
    assert {name[0] for name in drawn} == set("abcdef")


def test_voices_are_told_apart_after_training(monkeypatch):
    """Six buzzes of different pitch, each in several recordings."""
    rng = np.random.default_rng(0)
    time = np.arange(3 * speaker.RATE) / speaker.RATE

    def buzz(pitch):
        pitch = pitch * (1 + 0.02 * rng.standard_normal())
        harmonics = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 9))
        return (0.05 * harmonics).astype(np.float32)

    people = {
        f"{pitch}": [buzz(pitch) for _ in range(3)] for pitch in (90, 115, 145, 185, 235, 300)
    }
    weights = speaker_embedding.train_embedding(people, 30, rng)
    weights |= speaker_embedding.whitening(speaker.Networks(weights), people, rng)
    assert speaker_embedding.error_rate(speaker.Networks(weights), people, seconds=1.0) < 0.1
