"""Models for the tests of separation: a small network as it is saved, and stubs without one."""

import dataclasses
import pathlib

import numpy as np
import pytest

from export.outlets import model_info
from export.separation import loading

RATE = 8000


@pytest.fixture(scope="session")
def speechlike():
    """Makes noise in syllables, float32 `[sample]`."""

    def make(length, seed=5, level=0.3):
        random = np.random.default_rng(seed)
        envelope = np.repeat(random.uniform(0, level, -(-length // 800)), 800)[:length]
        return (envelope * random.standard_normal(length)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def make_separator():
    """A separator around a small LSTM whose masks are far from all the same."""

    def make(num_outputs=2, num_sources=2, **settings):
        import keras

        from models import registry, separator

        keras.utils.set_random_seed(1)
        network = registry.create("lstm", units=12, num_outputs=num_outputs, **settings)
        model = separator.Separator(network, -3.5, 0.8, -26.0, RATE, num_sources)
        model(np.zeros((1, 500), np.float32))
        kernel = network.mask_head.dense.kernel
        kernel.assign(100 * kernel)
        return model

    return make


@dataclasses.dataclass(frozen=True)
class Saved:
    """One separator in memory and in the three places that `loading.load` reads."""

    separator: object
    saved_model: pathlib.Path
    run: pathlib.Path
    keras_file: pathlib.Path


@pytest.fixture(scope="session")
def saved(make_separator, tmp_path_factory):
    from export import saved_model

    folder = tmp_path_factory.mktemp("models")
    separator = make_separator()
    (folder / "run").mkdir()
    separator.save(folder / "run" / "best.keras")
    separator.save(folder / "mine.keras")
    saved_model.write(separator, folder / "exported", lite=False)
    return Saved(separator, folder / "exported", folder / "run", folder / "mine.keras")


@pytest.fixture(scope="session")
def make_stub():
    """A model of one's own: a function of `[batch, sample]` to `[batch, source, sample]`."""

    def make(function, num_sources=2, rate=RATE):
        info = model_info.ModelInfo("stub", rate, num_sources, {}, {}, 0, (), {})
        return loading.LoadedModel(info, "stub", function)

    return make


@pytest.fixture(scope="session")
def bands(make_stub):
    """Voice 1 has what lies below 1 kHz, voice 2 the rest: linear, and known."""

    def split(waveform):
        spectrum = np.fft.rfft(waveform)
        low = np.fft.rfftfreq(waveform.shape[-1], 1 / RATE) < 1000
        first = np.fft.irfft(spectrum * low, waveform.shape[-1]).astype(np.float32)
        return np.stack([first, waveform - first], axis=1)

    return make_stub(split)
