"""Objectives on mixtures analysed on the device, against what the dataset stores and NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from models import registry, separator
from pipeline import features, ideal_masks, schema
from pipeline.dataset import dataset
from trainer import losses, objectives
from trainer.data import splits, validation_batches


@pytest.fixture(scope="module")
def stored(small_dataset):
    """The voices of four mixtures, int16."""
    info = dataset.read(str(small_dataset))
    return validation_batches.read(splits.Split(str(small_dataset), "valid", info))


def _batch(stored):
    (batch,) = validation_batches.Batches(stored, shortest=24000, batch_samples=4 * 24000)
    return batch


def _separator(name="ffn", **settings):
    keras.utils.set_random_seed(0)
    network = registry.create(name, **settings)
    model = separator.wrap(
        network, mean=-3.0, deviation=0.8, active_level_db=-24.0, sample_rate=8000, num_sources=2
    )
    model.build(None)
    return model


def test_mixtures_know_their_samples_and_frames(stored):
    batch = _batch(stored)
    mixtures = objectives.Mixtures.of(batch)
    for row, sources in enumerate(stored):
        length = sources.shape[1]
        voices = sources.astype("float32") / schema.FULL_SCALE
        np.testing.assert_array_equal(mixtures.sources[row, :, :length], voices)
        np.testing.assert_allclose(mixtures.mixture[row, :length], voices.sum(axis=0), atol=1e-7)
        assert float(ops.sum(mixtures.valid[row])) == length
        assert int(ops.sum(mixtures.frame_mask[row])) == schema.num_frames(length)
    noise = np.full((1, 640), 0.25, "float32")
    noisy = objectives.Mixtures.of({"sources": np.ones((1, 2, 640), "float32"), "noise": noise})
    np.testing.assert_allclose(noisy.mixture, 2.25)
    np.testing.assert_array_equal(noisy.num_samples, [640])
    # What is masked is the noisy mixture: half of it is a voice's 1 of 2.25.
    middle = noisy.ideal_masks("psm")[0, :, 5, 0]
    np.testing.assert_allclose(middle, 1 / 2.25, rtol=1e-4)
    np.testing.assert_allclose(noisy.ideal_masks("irm")[0, :, 5, 0], 1 / 2.25, rtol=1e-4)
    windows = {"sources": np.ones((2, 2, 640), "int16"), "frame_mask": np.eye(10)[[9, 4]]}
    windows["frame_mask"] = (np.arange(10) < np.array([[10], [4]])).astype("uint8")
    np.testing.assert_array_equal(objectives.Mixtures.of(windows).num_samples, [640, 256])


@pytest.mark.parametrize("target", schema.MASKS)
@pytest.mark.parametrize("fixed", [False, True])
def test_the_loss_on_masks_is_that_on_the_stored_ones(stored, target, fixed):
    """To what eight bits leave of a mask."""
    rng = np.random.default_rng(0)
    network = registry.create("ffn", units=4)
    feature = next(f for f in schema.MIXTURE_FEATURES if f.name == target)
    objective = objectives.Objective("mask", target, fixed)
    for sources in stored[:2]:
        voices = sources.astype("float32") / schema.FULL_SCALE
        spectrograms = features.stft(voices)
        mixture = spectrograms.sum(axis=0)
        masks = ideal_masks.MASKS[target].ideal(ideal_masks.Spectrograms(spectrograms, mixture))
        sizes = {"K": 1, "T": mixture.shape[0], "F": mixture.shape[1]}
        decoded = feature.decode(feature.encode(masks[:1]), sizes)
        stored = decoded.astype("float32")
        targets = np.clip(np.concatenate([stored, 1 - stored]), 0, 1)[None]
        found = rng.uniform(0, 1, targets.shape).astype("float32")
        magnitude = np.abs(mixture)[None]
        expected = losses.on_masks(
            found, targets, magnitude, np.ones((1, len(mixture))), fixed=fixed
        )
        error, weight = objective.error(
            {"masks": found}, objectives.Mixtures.of({"sources": sources[None]}), network
        )
        np.testing.assert_allclose(weight, expected[1], rtol=1e-4)
        np.testing.assert_allclose(error, expected[0], rtol=3e-3)


def test_outputs_and_errors_of_waveforms(stored):
    model = _separator(units=8)
    mixtures = objectives.Mixtures.of(_batch(stored))
    for loss, function in (("sisdr", losses.negative_si_sdr), ("snr", losses.negative_snr)):
        objective = objectives.Objective(loss)
        outputs = objective.outputs(model, mixtures)
        np.testing.assert_allclose(outputs["estimates"], model(mixtures.mixture), atol=1e-6)
        found = objective.error(outputs, mixtures, model.network)
        expected = function(outputs["estimates"], mixtures.sources, mixtures.valid)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def _affinity(embeddings, sources, mixture):
    """Mean over all pairs of bins that count, in NumPy."""
    magnitudes = np.abs(features.stft(sources))
    counted = (np.abs(mixture) >= np.abs(mixture).max() * 10 ** (-40 / 20)).ravel()
    y = (magnitudes.argmax(axis=0).ravel()[:, None] == np.arange(2)).astype(float)[counted]
    v = embeddings.reshape(-1, embeddings.shape[-1]).astype(float)[counted]
    squares = np.sum((v.T @ v) ** 2) - 2 * np.sum((v.T @ y) ** 2) + np.sum((y.T @ y) ** 2)
    return squares / counted.sum() ** 2


@pytest.mark.parametrize("name", ["deep_clustering", "chimera"])
def test_networks_of_embeddings_learn_affinities(stored, name):
    model = _separator(name, units=6, num_layers=1, dimension=4)
    objective = objectives.Objective("clustering")
    sources = stored[0][None, :, :6400]
    mixtures = objectives.Mixtures.of({"sources": sources})
    outputs = objective.outputs(model, mixtures)
    embeddings = np.asarray(outputs["embeddings"])
    voices = sources[0].astype("float32") / schema.FULL_SCALE
    mixture = features.stft(voices).sum(axis=0)
    # At the level that the separator works at.
    gain = np.asarray(model.gain(voices.sum(axis=0)[None]))
    normalised = (features.log_magnitude(mixture * gain[0]) + 3.0) / 0.8
    again = np.asarray(model.network.embeddings(normalised[None]))
    np.testing.assert_allclose(embeddings, again, atol=1e-3)
    expected = _affinity(embeddings[0], voices, mixture)
    error, weight = objective.error(outputs, mixtures, model.network)
    if name == "deep_clustering":
        assert set(outputs) == {"embeddings"}
        np.testing.assert_allclose(float(error[0] / weight[0]), expected, rtol=1e-3)
        return
    masks = objectives.Objective("mask")
    other, other_weight = masks.error({"masks": outputs["masks"]}, mixtures, model.network)
    combined = 0.975 * expected + 0.025 * float(other[0] / other_weight[0])
    np.testing.assert_allclose(float(error[0] / weight[0]), combined, rtol=1e-3)


class _WithAuxiliary(keras.Model):
    """Gives its input halved twice; on its way also in other shares."""

    takes = "waveform"
    num_outputs = 2

    def __init__(self, shares):
        super().__init__()
        self.shares = shares
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.built = True

    def _split(self, waveform, share):
        return self.scale * ops.stack([share * waveform, (1 - share) * waveform], axis=1)

    def call(self, waveform, training=None):
        return self._split(waveform, 0.5)

    def with_auxiliary(self, waveform, training=None):
        return self(waveform), [self._split(waveform, share) for share in self.shares]


def test_auxiliary_outputs_are_learnt_in_training_alone(stored):
    mixtures = objectives.Mixtures.of({"sources": stored[0][None]})
    objective = objectives.Objective("sisdr")
    for shares in ((), (0.3,), (0.3, 0.9)):
        network = _WithAuxiliary(shares)
        model = separator.WaveformSeparator(network, -24.0, 8000, 2)
        model.build(None)
        assert set(objective.outputs(model, mixtures)) == {"estimates"}
        outputs = objective.outputs(model, mixtures, training=True)
        assert len(outputs["auxiliary"]) == len(shares)
        main, count = losses.negative_si_sdr(outputs["estimates"], mixtures.sources, mixtures.valid)
        error, weight = objective.error(outputs, mixtures, network)
        expected = float(main[0])
        if shares:
            mixture = mixtures.mixture
            # The level of what the auxiliary heads give is the mixture's own.
            for share, given in zip(shares, outputs["auxiliary"], strict=True):
                np.testing.assert_allclose(given[:, 0], share * mixture, atol=1e-5)
            others = [
                float(
                    losses.negative_magnitude_si_sdr(given, mixtures.sources, mixtures.valid)[0][0]
                )
                for given in outputs["auxiliary"]
            ]
            expected = 0.6 * expected + 0.4 * np.mean(others)
        np.testing.assert_allclose(float(error[0]), expected, rtol=1e-4)
        np.testing.assert_array_equal(weight, count)


def test_each_network_has_its_loss():
    defaults = {name: objectives.default_loss(registry.NETWORKS[name]) for name in registry.names()}
    assert defaults["ffn"] == defaults["lstm"] == defaults["tcn"] == "mask"
    assert defaults["deep_clustering"] == defaults["chimera"] == "clustering"
    assert defaults["conv_tasnet"] == defaults["sepreformer"] == "sisdr"
    with pytest.raises(ValueError, match="unknown loss 'other'"):
        objectives.Objective("other")


def test_targets_are_cut_to_what_a_head_can_give():
    psm = np.array([-1.5, -0.5, 0.5, 1.5, 2.5], "float32")
    for head, expected in {
        "sigmoid": [0, 0, 0.5, 1, 1],
        "relu": [0, 0, 0.5, 1.5, 2],
        "linear": [-1, -0.5, 0.5, 1.5, 2],
    }.items():
        network = registry.create("ffn", units=4, head=head)
        np.testing.assert_array_equal(objectives.within_reach(psm, network), expected)
