"""The spectrogram compared with SciPy and librosa, masks and levels with manual calculations."""

import math

import librosa
import numpy as np
import pytest
import scipy.signal

from pipeline import features, ideal_masks, schema


def noise(*shape, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.1).astype(np.float32)


def scipy_stft(signal):
    return scipy.signal.stft(signal, window="hann", nperseg=256, noverlap=192)[2].T


def by_definition(signal):
    """Computes the definition in float64, frame by frame: padding, window, transform, scale."""
    window = scipy.signal.get_window("hann", 256)
    frames = math.ceil(len(signal) / 64) + 1
    padded = np.zeros(64 * (frames - 1) + 256)
    padded[128 : 128 + len(signal)] = signal
    return np.stack(
        [np.fft.rfft(padded[64 * t : 64 * t + 256] * window) / window.sum() for t in range(frames)]
    )


def test_the_window_is_scipys():
    np.testing.assert_allclose(features.WINDOW, scipy.signal.get_window("hann", 256), atol=1e-7)


@pytest.mark.parametrize("num_samples", [256, 257, 319, 320, 321, 1000, 4096, 8001])
def test_the_spectrogram_is_scipys(num_samples):
    signal = noise(num_samples)
    spectrogram = features.stft(signal)
    assert spectrogram.dtype == np.complex64
    np.testing.assert_allclose(spectrogram, scipy_stft(signal), atol=1e-7)


@pytest.mark.parametrize("num_samples", [1, 2, 63, 64, 65, 128, 129, 192, 255, 256, 8001])
def test_the_spectrogram_is_the_definition_from_one_sample_on(num_samples):
    signal = noise(num_samples)
    spectrogram = features.stft(signal)
    assert spectrogram.shape == (schema.num_frames(num_samples), 129)
    np.testing.assert_allclose(spectrogram, by_definition(signal), atol=1e-7)


def test_the_spectrogram_is_librosas_but_for_the_scale():
    signal = noise(64 * 50)
    expected = librosa.stft(signal, n_fft=256, hop_length=64, pad_mode="constant") / 128
    np.testing.assert_allclose(features.stft(signal), expected.T, atol=1e-6)


def test_leading_axes_are_a_batch():
    signals = noise(2, 3, 1000)
    spectrograms = features.stft(signals)
    for index in np.ndindex(2, 3):
        np.testing.assert_array_equal(spectrograms[index], features.stft(signals[index]))
    back = features.inverse_stft(spectrograms, 1000)
    assert back.shape == signals.shape


def test_a_tone_has_half_its_amplitude_in_its_bin():
    time = np.arange(4096)
    spectrogram = features.stft(np.cos(2 * np.pi * 32 / 256 * time).astype(np.float32))
    np.testing.assert_allclose(np.abs(spectrogram[4:-4, 32]), 0.5, atol=1e-5)
    np.testing.assert_allclose(np.abs(spectrogram[4:-4, 31]), 0.25, atol=1e-5)
    assert np.abs(spectrogram[4:-4, 40]).max() < 1e-5


@pytest.mark.parametrize("num_samples", [1, 64, 255, 256, 1000, 4096, 8001])
def test_the_inverse_gives_the_signal_back(num_samples):
    signal = noise(num_samples)
    back = features.inverse_stft(features.stft(signal), num_samples)
    assert back.shape == signal.shape
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, signal, atol=1e-6)


def test_the_inverse_of_what_is_no_spectrogram_is_scipys():
    # A masked spectrogram is not that of any signal; SciPy's inverse is also a least-squares one.
    spectrogram = features.stft(noise(64 * 40)) * noise(41, 129, seed=1)
    expected = scipy.signal.istft(spectrogram.T, window="hann", nperseg=256, noverlap=192)[1]
    got = features.inverse_stft(spectrogram, 64 * 40)
    np.testing.assert_allclose(got, expected[: 64 * 40], atol=1e-6)


def test_the_inverse_refuses_another_number_of_frames():
    with pytest.raises(ValueError, match="1000 samples have 17 frames, not 18"):
        features.inverse_stft(np.zeros((18, 129), np.complex64), 1000)


def test_log_magnitude():
    values = np.array([[0, 1e-9, 1e-7, 1, -10j, 3 + 4j]], np.complex64)
    np.testing.assert_allclose(
        features.log_magnitude(values), [[-7, -7, -7, 0, 1, math.log10(5)]], atol=1e-6
    )
    assert features.log_magnitude(values).dtype == np.float32


def test_voice_activity():
    frames = np.zeros((6, 129), np.complex64)
    # Power 1; just within 40 dB; just outside; and 40 dB spread over many small bins.
    frames[0, 5], frames[1, 7], frames[2, 9] = 1, 0.0101, 0.0099
    frames[3, :4] = 0.00505j
    np.testing.assert_array_equal(features.voice_activity(frames), [1, 1, 0, 1, 0, 0])
    assert not features.voice_activity(np.zeros((3, 6, 129), np.complex64)).any()
    both = features.voice_activity(np.stack([frames, frames * 1e-3]))
    np.testing.assert_array_equal(both[0], both[1])


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 1e-3])
def test_the_active_level_of_a_sine(amplitude):
    sine = amplitude * np.sin(2 * np.pi * np.arange(256 * 32) / 64)
    expected = 20 * math.log10(amplitude) - 10 * math.log10(2)
    assert features.active_level_db(sine) == pytest.approx(expected, abs=1e-6)


def test_the_active_level_counts_frames_within_40_db():
    power = np.array([1.0, 1.01e-4, 0.99e-4, 0.0, 0.5])
    signal = np.sqrt(np.repeat(power, 256))
    expected = 10 * math.log10((1 + 1.01e-4 + 0.5) / 3)
    assert features.active_level_db(signal) == pytest.approx(expected, abs=1e-9)


def test_the_last_frame_has_its_own_length():
    # 256 samples of power 1 and 44 of power 4: mean power over 300 samples.
    signal = np.concatenate([np.ones(256), np.full(44, 2.0)])
    expected = 10 * math.log10((256 + 44 * 4) / 300)
    assert features.active_level_db(signal) == pytest.approx(expected, abs=1e-9)


def test_the_level_of_next_to_nothing():
    assert features.active_level_db(np.zeros(1000)) == -np.inf
    assert features.active_level_db(np.zeros(0)) == -np.inf
    assert features.active_level_db(np.array([0.1])) == pytest.approx(-20, abs=1e-9)


def test_which_bins_count():
    # Loudest 1; within 40 dB; outside; a tie; zero.
    mixture = np.array([[1, 0.0101, 0.0099, 1, 0]], np.float32)
    voices = np.array([[[0.9, 0.01, 0.009, 0.5, 0]], [[0.1, 0.0, 0.001, 0.5, 0]]], np.float32)
    np.testing.assert_array_equal(features.counted_bins(mixture, voices), [[1, 1, 0, 0, 0]])
    three = np.array([[[2, 1]], [[2, 1]], [[1, 2]]], np.float32)
    np.testing.assert_array_equal(
        features.counted_bins(np.ones((1, 2), np.float32), three), [[0, 1]]
    )
    assert not features.counted_bins(np.zeros((1, 5), np.float32), 0 * voices).any()


@pytest.mark.recordings
def test_a_real_mixture(recordings):
    import soundfile

    paths = sorted((recordings / "timit_sample" / "TRAIN").glob("DR*/*/SX*.WAV"))[::40][:2]
    voices = np.stack([soundfile.read(path, dtype="float32")[0][:20000] for path in paths])
    spectrograms = features.stft(voices)
    for voice, spectrogram in zip(voices, spectrograms, strict=True):
        np.testing.assert_allclose(spectrogram, scipy_stft(voice), atol=1e-7)
    masks = ideal_masks.phase_sensitive(spectrograms, spectrograms.sum(axis=0))
    # The phase-sensitive mask is the best real mask: none of the others comes closer.
    error = [
        np.sum(np.abs(spectrograms - mask * spectrograms.sum(axis=0)) ** 2)
        for mask in (
            masks,
            ideal_masks.ratio(np.abs(spectrograms)),
            ideal_masks.binary(np.abs(spectrograms)),
        )
    ]
    assert error[0] < min(error[1:])
