"""The spectrogram in keras.ops against SciPy, and its inverse and levels against NumPy's."""

import numpy as np
import pytest
import scipy.signal

from models import spectral
from pipeline import features, schema

LENGTHS = (1, 63, 64, 65, 255, 256, 257, 1000, 8001)


def noise(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def complex_stft(waveform):
    real, imaginary = spectral.stft(waveform)
    return np.asarray(real) + 1j * np.asarray(imaginary)


@pytest.mark.parametrize("length", [n for n in LENGTHS if n >= 256])
def test_stft_is_scipys(length):
    waveform = noise(2, length)
    _, _, expected = scipy.signal.stft(waveform, window="hann", nperseg=256, noverlap=192)
    np.testing.assert_allclose(complex_stft(waveform), expected.swapaxes(-1, -2), atol=2e-7)


@pytest.mark.parametrize("length", LENGTHS)
def test_stft_is_numpys_for_every_length(length):
    waveform = noise(3, length)
    found = complex_stft(waveform)
    assert found.shape == (3, -(-length // 64) + 1, 129)
    np.testing.assert_allclose(found, features.stft(waveform), atol=2e-7)


@pytest.mark.parametrize("length", LENGTHS)
def test_inverse_gives_the_signal_back(length):
    waveform = noise(2, length)
    found = spectral.inverse_stft(*spectral.stft(waveform), length)
    np.testing.assert_allclose(np.asarray(found), waveform, atol=2e-6)


def test_inverse_of_a_masked_spectrogram_is_scipys():
    """Off the range of the transform least squares decides: SciPy solves the same problem."""
    spectrum = features.stft(noise(6400))
    spectrum *= np.random.default_rng(1).uniform(size=spectrum.shape).astype(np.float32)
    _, expected = scipy.signal.istft(spectrum.T, window="hann", nperseg=256, noverlap=192)
    found = spectral.inverse_stft(spectrum.real, spectrum.imag, 6400)
    np.testing.assert_allclose(np.asarray(found), expected[:6400], atol=2e-6)
    np.testing.assert_allclose(features.inverse_stft(spectrum, 6400), expected[:6400], atol=2e-6)


def test_log_magnitude_has_a_floor():
    spectrum = features.stft(np.concatenate([noise(2000), np.zeros(2000, np.float32)]))
    found = np.asarray(spectral.log_magnitude(spectrum.real, spectrum.imag))
    np.testing.assert_allclose(found, features.log_magnitude(spectrum), atol=2e-6)
    assert found.min() == pytest.approx(np.log10(schema.MAGNITUDE_FLOOR))


def test_active_level_of_a_tone_between_silences():
    tone = 0.5 * np.sin(2 * np.pi * np.arange(2560) / 16).astype(np.float32)
    waveform = np.concatenate([np.zeros(5120, np.float32), tone, np.zeros(1000, np.float32)])
    level = float(spectral.active_level_db(waveform[None])[0])
    assert level == pytest.approx(10 * np.log10(0.125), abs=1e-4)
    assert level == pytest.approx(features.active_level_db(waveform), abs=1e-4)


@pytest.mark.parametrize("length", LENGTHS)
def test_active_level_is_numpys_for_every_length(length):
    waveform = noise(2, length) * np.array([[1.0], [1e-3]], np.float32)
    expected = [features.active_level_db(row) for row in waveform]
    np.testing.assert_allclose(np.asarray(spectral.active_level_db(waveform)), expected, atol=1e-4)


def test_silence_has_no_level():
    assert float(spectral.active_level_db(np.zeros((1, 1000), np.float32))[0]) == -np.inf


@pytest.mark.parametrize(("frame_length", "hop"), [(128, 64), (512, 128)])
def test_other_frames_are_scipys_too(frame_length, hop):
    waveform = noise(2, 2000)
    real, imaginary = spectral.stft(waveform, frame_length, hop)
    found = np.asarray(real) + 1j * np.asarray(imaginary)
    overlap = frame_length - hop
    _, _, expected = scipy.signal.stft(waveform, nperseg=frame_length, noverlap=overlap)
    np.testing.assert_allclose(found, expected.swapaxes(-1, -2), atol=2e-7)
    back = spectral.inverse_stft(real, imaginary, 2000, frame_length, hop)
    np.testing.assert_allclose(np.asarray(back), waveform, atol=2e-6)


def test_overlap_add_is_a_loop():
    frames = noise(3, 5, 12)
    expected = np.zeros((3, 4 * 4 + 12))
    for i in range(5):
        expected[:, 4 * i : 4 * i + 12] += frames[:, i]
    np.testing.assert_allclose(np.asarray(spectral.overlap_add(frames, 4)), expected, atol=1e-6)
    with pytest.raises(ValueError, match="multiple"):
        spectral.overlap_add(frames, 5)


@pytest.mark.parametrize("kind", [spectral.FORWARD, spectral.PRODUCTS])
@pytest.mark.parametrize(("frame_length", "hop"), [(256, 64), (128, 64)])
@pytest.mark.parametrize("length", [1, 65, 1000])
def test_written_for_other_runtimes_it_is_the_same(kind, frame_length, hop, length):
    waveform = noise(2, length)
    real, imaginary = map(np.asarray, spectral.stft(waveform, frame_length, hop))
    # A spectrogram of no signal, with imaginary parts where real signals have none.
    masked = (real * noise(*real.shape), imaginary + noise(*real.shape))
    expected = np.asarray(spectral.inverse_stft(*masked, length, frame_length, hop))
    with spectral.transform(kind):
        found = spectral.stft(waveform, frame_length, hop)
        signal = np.asarray(spectral.inverse_stft(*masked, length, frame_length, hop))
    np.testing.assert_allclose(found, (real, imaginary), atol=3e-7)
    np.testing.assert_allclose(signal, expected, atol=1e-6 * (3 + np.abs(expected).max()))
    # It ends with the context.
    np.testing.assert_array_equal(spectral.stft(waveform, frame_length, hop)[0], real)
