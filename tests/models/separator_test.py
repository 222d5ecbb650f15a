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


def make(outputs=2):
    return separator.Separator(Loudness(outputs), -3.0, 0.8, -26.0, 8000, 2)


def speechlike(batch, length):
    random = np.random.default_rng(5)
    envelope = np.repeat(random.uniform(0, 0.3, (batch, -(-length // 400))), 400, axis=1)
    return (envelope[:, :length] * random.standard_normal((batch, length))).astype(np.float32)


@pytest.mark.parametrize("length", [1, 100, 256, 8001])
def test_estimates_add_up(length):
    waveform = speechlike(2, length)
    voices = np.asarray(make()(waveform))
    assert voices.shape == (2, 2, length)
    np.testing.assert_allclose(voices.sum(1), waveform, atol=1e-6)


def test_level_in_level_out():
    waveform = speechlike(2, 8000)
    loud = np.asarray(make()(waveform))
    quiet = np.asarray(make()(waveform * 1e-3))
    np.testing.assert_allclose(quiet * 1e3, loud, atol=1e-5)
    # Rows have levels of their own.
    alone = np.asarray(make()(waveform[1:] * 30))
    np.testing.assert_allclose(alone / 30, loud[1:], atol=1e-5)


def test_the_network_sees_the_trained_level():
    model = make()
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


def test_silence_stays_silent():
    waveform = np.zeros((2, 1000), np.float32)
    waveform[1, 500:] = speechlike(1, 500)
    voices = np.asarray(make()(waveform))
    assert (voices[0] == 0).all()
    assert np.isfinite(voices).all()


def test_one_file_holds_all(tmp_path):
    model, waveform = make(), speechlike(1, 3000)
    expected = np.asarray(model(waveform))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(loaded(waveform)), expected)
    assert loaded.get_config()["active_level_db"] == -26.0
