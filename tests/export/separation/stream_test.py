"""Streams of an exported model, from Python, against the separator's call for the whole.

Of networks of masks the fastest to export stands for all: tests/models/streaming_test.py has more.
"""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from export import saved_model
from export.outlets import keras_model, model_info
from export.separation import loading, stream
from models import registry, separator
from pipeline import errors, file_names
from pipeline.audio import decoding

RATE = 8000
GAIN_DB = 4.0
NETWORKS = {
    "lstm": {"units": 12, "num_layers": 1},
    "conv_tasnet": {
        "filters": 24, "bottleneck": 12, "hidden": 16, "skip": 12, "blocks": 3, "repeats": 1,
        "causal": True,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A model in memory and as it is exported, a mixture, and its voices in one piece."""

    own: object
    folder: str
    model: loading.LoadedModel
    whole: object
    mixture: np.ndarray
    voices: np.ndarray


@pytest.fixture(scope="module", params=NETWORKS)
def case(request, tmp_path_factory, speechlike):
    keras.utils.set_random_seed(5)
    network = registry.create(request.param, **NETWORKS[request.param])
    own = separator.wrap(
        network, mean=-3.2, deviation=0.9, active_level_db=-26.0, sample_rate=RATE, num_sources=2
    )
    own.build(None)
    random = np.random.default_rng(2)
    for variable in network.trainable_variables:
        scale = 0.5 if request.param == "lstm" else 0.2
        variable.assign(variable + scale * random.standard_normal(variable.shape))
    folder = tmp_path_factory.mktemp(request.param) / "exported"
    saved_model.write(own, folder, lite=False)

    def whole(waveform):
        return own(waveform, gain_db=GAIN_DB)

    if request.param == "lstm":  # The loop over its frames is slow without a graph.
        whole = tf.function(whole, input_signature=[tf.TensorSpec([1, None])], autograph=False)
    mixture = speechlike(3 * RATE + 333)
    voices = np.asarray(whole(mixture[np.newaxis]))[0]
    return Case(own, str(folder), loading.load(folder), whole, mixture, voices)


def pieces(samples, seed, most):
    """The samples in blocks of random sizes from 1, or 0, on."""
    random = np.random.default_rng(seed)
    while len(samples):
        size = int(random.integers(0, most))
        yield samples[:size]
        samples = samples[size:]


def run(follower, blocks):
    given = [follower.feed(block) for block in blocks]
    return np.concatenate([*given, follower.finish()], axis=1)


@pytest.mark.parametrize(("block_seconds", "most"), [(0, 3000), (0.1, 200)])
def test_any_blocks_give_the_voices_of_the_whole(case, block_seconds, most):
    follower = stream.Stream(case.model, gain_db=GAIN_DB, block_seconds=block_seconds)
    found = run(follower, pieces(case.mixture, most, most))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, case.voices, atol=1e-5)
    assert np.std(found[0] - found[1]) > 0.1 * np.std(case.mixture)


def test_sample_by_sample_and_short(case):
    for samples in (0, 1, 20, 300):
        mixture = case.mixture[4000 : 4000 + samples]
        found = run(stream.Stream(case.model, gain_db=GAIN_DB), (m[None] for m in mixture))
        assert found.shape == (2, samples)
        if samples:
            expected = np.asarray(case.whole(mixture[np.newaxis]))[0]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_voices_come_when_they_are_due(case):
    """At any time all are out but those of `delay` samples and of a block that is not full."""
    follower = stream.Stream(case.model, gain_db=GAIN_DB)
    taken = given = 0
    for block in pieces(case.mixture[:4000], 1, 150):
        taken += len(block)
        given += follower.feed(block).shape[1]
        assert given == max(0, taken // follower.block * follower.block - follower.delay)


def test_the_model_in_memory_gives_the_same(case):
    model = keras_model.loaded(case.own)
    found = run(stream.Stream(model, gain_db=GAIN_DB), [case.mixture])
    np.testing.assert_allclose(found, case.voices, atol=1e-5)


def test_other_rates_are_resampled(case):
    """As if the recording were resampled as a whole, separated, and brought back."""
    for rate in (16000, 44100):
        mixture = decoding.resample(case.mixture, RATE, rate)[: rate + 77]
        inside = decoding.resample(mixture, rate, RATE)
        voices = np.asarray(case.whole(inside[np.newaxis]))[0]
        expected = decoding.resample(np.ascontiguousarray(voices.T), RATE, rate).T
        follower = stream.Stream(case.model, gain_db=GAIN_DB, rate=rate, band="model")
        found = run(follower, pieces(mixture, 3, 2000))
        assert found.shape == (2, len(mixture))
        # The end is within the filters' reach of what follows it: zeros, or nothing. Elsewhere a
        # rounding error in a bin that is all but silent moves its logarithm, and so the masks.
        near = slice(0, len(mixture) - rate // 50)
        difference = np.square(found[:, near] - expected[:, near]).mean()
        assert difference < 1e-6 * np.square(expected).mean()


def test_the_full_band_is_divided(case):
    """Voices add up to all of the mixture, whatever the blocks; below, they are the model's."""
    rate = 16000
    mixture = decoding.resample(case.mixture, RATE, rate)[: 2 * rate]
    mixture += 0.01 * np.random.default_rng(2).standard_normal(len(mixture)).astype(np.float32)
    found = [
        run(stream.Stream(case.model, gain_db=GAIN_DB, rate=rate, band=band), blocks)
        for band, blocks in (
            ("full", pieces(mixture, 3, 2000)), ("full", [mixture]), ("model", [mixture]),
        )
    ]  # fmt: skip
    np.testing.assert_allclose(found[0].sum(axis=0), mixture, atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)
    low = [decoding.resample(np.ascontiguousarray(one.T), rate, RATE) for one in found[1:]]
    assert np.square(low[0] - low[1]).mean() < 0.01 * np.square(low[1]).mean()
    with pytest.raises(ValueError, match="band"):
        stream.Stream(case.model, gain_db=0, band="wide")


def test_the_file_beside_the_model_says_what_the_signature_takes(case):
    """Whoever has TensorFlow and that file, and nothing of this project, can follow a stream."""
    with open(f"{case.folder}/voices_apart.json") as file:
        facts = json.load(file)["stream"]
    step = tf.saved_model.load(case.folder).signatures["stream"]
    state = {
        name: tf.zeros(tensor["shape"], tensor["dtype"]) for name, tensor in facts["state"].items()
    }
    given = []
    hop, delay = facts["hop"], facts["delay"]
    for first in range(0, 100 * hop, 10 * hop):
        outputs = step(
            waveform=tf.constant(case.mixture[None, first : first + 10 * hop]),
            length=tf.constant(10 * hop), gain_db=tf.constant(GAIN_DB), **state,
        )  # fmt: skip
        given.append(outputs.pop("sources").numpy()[0])
        assert outputs.keys() == state.keys()
        state = outputs
    given = np.concatenate(given, axis=1)
    assert not given[:, :delay].any()
    np.testing.assert_allclose(given[:, delay:], case.voices[:, : 100 * hop - delay], atol=1e-5)


class TestErrors:
    def test_a_network_that_hears_what_comes_later(self, tmp_path):
        network = registry.create("blstm", units=4, num_layers=1)
        own = separator.Separator(network, -3.2, 0.9, -26.0, RATE, 2)
        own.build(None)
        info = saved_model.write(own, tmp_path / "blstm", lite=False).info
        assert info.signatures == ("masks", "serving_default")
        assert info.stream is None
        with pytest.raises(errors.UserError, match=r"blstm.*causally"):
            stream.Stream(tmp_path / "blstm", gain_db=0)

    def test_models_of_before_there_were_streams(self, saved, tmp_path):
        """Format 1 has no `stream`; it is read as ever."""
        fields = json.loads((saved.saved_model / file_names.MODEL_INFO).read_text())
        assert fields["format"] == 2
        del fields["stream"]
        fields |= {"format": 1, "signatures": ["masks", "serving_default"]}
        info = model_info.ModelInfo.from_json(json.dumps(fields))
        assert (info.stream, info.name) == (None, "lstm")

    @pytest.mark.parametrize(
        "stream_facts",
        [{}, {"hop": 0, "delay": 1, "state": {}}, {"hop": 1, "delay": 1, "state": 3}, 7,
         {"hop": 1, "delay": 1, "state": {"a": {"shape": 1, "dtype": "int32"}}}],
    )  # fmt: skip
    def test_damaged_facts(self, saved, stream_facts):
        fields = json.loads((saved.saved_model / file_names.MODEL_INFO).read_text())
        with pytest.raises(errors.UserError, match="damaged"):
            model_info.ModelInfo.from_json(json.dumps({**fields, "stream": stream_facts}))

    def test_facts_survive_json(self, saved):
        text = (saved.saved_model / file_names.MODEL_INFO).read_text()
        assert model_info.ModelInfo.from_json(text).to_json() == text

    def test_samples(self, saved):
        follower = stream.Stream(saved.saved_model, gain_db=0)
        with pytest.raises(errors.UserError, match="NaN"):
            follower.feed(np.array([0.0, np.nan]))
        with pytest.raises(ValueError, match="int16"):
            follower.feed(np.zeros(3, np.int16))
        with pytest.raises(ValueError, match="shape"):
            follower.feed(np.zeros((3, 1)))
        follower.finish()
        with pytest.raises(ValueError, match="ended"):
            follower.feed(np.zeros(3))
        with pytest.raises(ValueError, match="ended"):
            follower.finish()

    def test_settings(self, saved):
        model = loading.load(saved.saved_model)
        with pytest.raises(ValueError, match="gain_db"):
            stream.Stream(model, gain_db=float("nan"))
        with pytest.raises(errors.UserError, match="5 samples a second"):
            stream.Stream(model, gain_db=0, rate=5)
