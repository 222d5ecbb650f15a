"""What stands around a network: levels, lengths, sums, one file."""

import keras
import numpy as np
import pytest
from keras import ops

from models import separator
from pipeline import features


@keras.saving.register_keras_serializable("voices_apart_tests")
class Loudness(keras.Model):
    """Voice 1 is what is louder than a threshold, so that it matters which level comes in."""

    def __init__(self, outputs=2, **kwargs):
        super().__init__(**kwargs)
        self.outputs = outputs

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, training=None):
        first = ops.sigmoid(4 * inputs)[:, None]
        return first if self.outputs == 1 else ops.concatenate([first, 1 - first], axis=1)

    def get_config(self):
        return {**super().get_config(), "outputs": self.outputs}


@keras.saving.register_keras_serializable("voices_apart_tests")
class Gate(keras.Model):
    """Voice 1 is what is loud, voice 2 half of the rest and a hum: no sum, and levels matter."""

    takes = "waveform"
    num_outputs = 2

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, training=None):
        loud = ops.where(ops.abs(inputs) > 0.05, inputs, 0.0)
        return ops.stack([loud, 0.5 * (inputs - loud) + 0.01], axis=1)

    def with_auxiliary(self, waveform, training=None):
        voices = self(waveform)
        return voices, [2 * voices, voices + 1]


def around(network, num_sources=2):
    return separator.wrap(
        network, mean=-3.0, deviation=0.8, active_level_db=-26.0, sample_rate=8000,
        num_sources=num_sources,
    )  # fmt: skip


def make(outputs=2):
    return separator.Separator(Loudness(outputs), -3.0, 0.8, -26.0, 8000, 2)


def speechlike(batch, length):
    random = np.random.default_rng(5)
    envelope = np.repeat(random.uniform(0, 0.3, (batch, -(-length // 400))), 400, axis=1)
    return (envelope[:, :length] * random.standard_normal((batch, length))).astype(np.float32)


def either():
    """One of masks and one of waveforms."""
    return pytest.mark.parametrize("model", [make(), around(Gate())], ids=["masks", "waveforms"])


@either()
@pytest.mark.parametrize("length", [1, 100, 256, 8001])
def test_estimates_add_up(length, model):
    waveform = speechlike(2, length)
    voices = np.asarray(model(waveform))
    assert voices.shape == (2, 2, length)
    np.testing.assert_allclose(voices.sum(1), waveform, atol=1e-6)


@either()
def test_level_in_level_out(model):
    waveform = speechlike(2, 8000)
    loud = np.asarray(model(waveform))
    quiet = np.asarray(model(waveform * 1e-3))
    np.testing.assert_allclose(quiet * 1e3, loud, atol=1e-5)
    # Rows have levels of their own.
    alone = np.asarray(model(waveform[1:] * 30))
    np.testing.assert_allclose(alone / 30, loud[1:], atol=1e-5)


@either()
def test_the_network_sees_the_trained_level(model):
    waveform = speechlike(1, 8000)
    gain = float(model.gain(waveform)[0])
    assert features.active_level_db(waveform[0] * gain) == pytest.approx(-26, abs=1e-3)
    fixed = np.asarray(model(waveform, gain_db=20 * np.log10(gain)))
    np.testing.assert_allclose(fixed, np.asarray(model(waveform)), atol=1e-5)


def test_the_voices_are_the_masked_mixture():
    """The same by SciPy's transform and NumPy's masks."""
    model, waveform = make(), speechlike(1, 4000)
    gain = float(model.gain(waveform)[0])
    spectrum = features.stft(waveform[0] * gain)
    mask = 1 / (1 + np.exp(-4 * (features.log_magnitude(spectrum) + 3) / 0.8))
    expected = features.inverse_stft(spectrum * mask, 4000) / gain
    np.testing.assert_allclose(np.asarray(model(waveform))[0, 0], expected, atol=1e-5)


def test_one_output_gives_two_voices():
    waveform = speechlike(1, 4000)
    np.testing.assert_allclose(
        np.asarray(make(1)(waveform)), np.asarray(make(2)(waveform)), atol=1e-6
    )


def test_the_voices_are_the_networks():
    waveform = speechlike(1, 4000)
    model = around(Gate())
    gain = float(model.gain(waveform)[0])
    voices = np.asarray(model.network(waveform * gain)) / gain
    missing = waveform - voices.sum(axis=1)
    expected = voices + missing[:, None] / 2
    np.testing.assert_allclose(np.asarray(model(waveform)), expected, atol=1e-5)


def test_what_a_network_gives_on_its_way_has_the_mixtures_level():
    waveform = speechlike(2, 4000)
    model = around(Gate())
    voices, auxiliary = model.with_auxiliary(waveform, training=True)
    np.testing.assert_allclose(np.asarray(voices), np.asarray(model(waveform)), atol=1e-6)
    gain = np.asarray(model.gain(waveform))[:, None, None]
    own = np.asarray(model.network(waveform * gain[:, 0])) / gain
    assert len(auxiliary) == 2
    np.testing.assert_allclose(np.asarray(auxiliary[0]), 2 * own, atol=1e-5)
    np.testing.assert_allclose(np.asarray(auxiliary[1]), own + 1 / gain, atol=1e-5)


def test_what_cannot_be_wrapped_is_said():
    with pytest.raises(ValueError, match="2 voices, not 3"):
        around(Gate(), num_sources=3)
    strange = Gate()
    strange.takes = "smoke"
    with pytest.raises(ValueError, match="smoke"):
        around(strange)


@either()
def test_silence_stays_silent(model):
    waveform = np.zeros((2, 1000), np.float32)
    waveform[1, 500:] = speechlike(1, 500)
    voices = np.asarray(model(waveform))
    assert (voices[0] == 0).all()
    assert np.isfinite(voices).all()


@either()
def test_one_file_holds_all(tmp_path, model):
    waveform = speechlike(1, 3000)
    expected = np.asarray(model(waveform))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(waveform)), expected)
    assert loaded.get_config()["active_level_db"] == -26.0
