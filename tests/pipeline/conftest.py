"""Small synthetic corpora for tests of the job and its parts."""

import numpy as np
import pytest
import soundfile


def make_voice(seed, seconds, rate=16000):
    """Returns noise: syllables of 0.2 s, pauses of 0.1 s; float32 `[sample]`, peak below 0.5."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal(round(seconds * rate))
    time = np.arange(samples.size) / rate
    return (0.1 * np.clip(samples, -4, 4) * (time % 0.3 < 0.2)).astype(np.float32)


def measure_pitch(samples, rate):
    """Returns the median fundamental frequency in Hz of the voiced frames, by autocorrelation.

    It uses the first lag whose correlation is nearly the maximum, so that a multiple of the period
    is not mistaken for the period (Rabiner 1977).
    """
    length, hop = round(0.04 * rate), round(0.01 * rate)
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), length)[::hop]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(length)
    loud = np.square(frames).sum(axis=1) > 0.3 * np.square(frames).sum(axis=1).mean()
    lags = np.arange(round(rate / 450), round(rate / 60))

    def correlate(x):
        spectrum = np.abs(np.fft.rfft(x, 2 * length)) ** 2
        return np.fft.irfft(spectrum)[..., :length]

    # The window's own correlation falls with the lag; dividing by it makes that of a period 1.
    correlation = correlate(frames[loud]) / correlate(np.hanning(length))
    correlation = correlation[:, lags] / correlation[:, :1]
    best = correlation.max(axis=1, keepdims=True)
    first = np.argmax(correlation > 0.9 * best, axis=1)
    # From the first lag that is nearly the maximum to the top of that peak.
    near = np.clip(first[:, None] + np.arange(round(rate / 2000)), 0, lags.size - 1)
    top = near[np.arange(first.size), np.take_along_axis(correlation, near, axis=1).argmax(axis=1)]
    return float(np.median(rate / lags[top][best[:, 0] > 0.6]))


@pytest.fixture(scope="session")
def median_pitch():
    """The function `measure_pitch`."""
    return measure_pitch


@pytest.fixture(scope="session")
def voice():
    """The function `make_voice`."""
    return make_voice


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """Four speakers' folders with three recordings each, of 1.5 to 3 s, at 16 kHz."""
    folder = tmp_path_factory.mktemp("corpus")
    for speaker in range(4):
        (folder / f"speaker{speaker}").mkdir()
        for number in range(3):
            samples = make_voice(10 * speaker + number, 1.5 + 0.3 * number + 0.2 * speaker)
            soundfile.write(folder / f"speaker{speaker}" / f"{number}.wav", samples, 16000)
    return folder
