"""Small corpora of made voices, for tests of the job and of what it stands on."""

import numpy as np
import pytest
import soundfile


def make_voice(seed, seconds, rate=16000):
    """Noise in syllables of 0.2 s and pauses of 0.1 s: float32 `[sample]`, its peak below 0.5."""
    random = np.random.default_rng(seed)
    samples = random.standard_normal(round(seconds * rate))
    time = np.arange(samples.size) / rate
    return (0.1 * np.clip(samples, -4, 4) * (time % 0.3 < 0.2)).astype(np.float32)


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
