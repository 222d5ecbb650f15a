"""FLAC in the graph against soundfile, and where tensorflow-io is absent or does not fit."""

import sys
import types

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from benchmarks import flac_graph
from pipeline import errors
from trainer.data import tfio


@pytest.fixture
def fresh():
    """Nothing that an earlier test has loaded is remembered."""
    for remembered in (tfio.load, flac_graph._audio):
        remembered.cache_clear()
    yield
    for remembered in (tfio.load, flac_graph._audio):
        remembered.cache_clear()


@pytest.fixture
def working():
    try:
        flac_graph._audio()
    except errors.UserError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("channels", [1, 2])
def test_flac_in_the_graph_is_soundfiles_bit_by_bit(tmp_path, channels):
    random = np.random.default_rng(channels)
    paths = []
    for number, length in enumerate((1, 4095, 20000)):
        path = tmp_path / f"{number}.flac"
        samples = random.integers(-(2**15), 2**15, (length, channels), np.int16)
        soundfile.write(path, samples, 16000, "PCM_16")
        paths.append(str(path))
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(tf.io.read_file).map(flac_graph.decode)
    for path, samples in zip(paths, decoded.as_numpy_iterator(), strict=True):
        expected, _ = soundfile.read(path, dtype="int16", always_2d=True)
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples, expected)


@pytest.mark.usefixtures("working")
@pytest.mark.recordings
def test_real_flac_is_soundfiles_bit_by_bit(recordings):
    paths = sorted(map(str, (recordings / "speech").rglob("*.flac")))[:20]
    assert paths
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(tf.io.read_file).map(flac_graph.decode)
    for path, samples in zip(paths, decoded.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(
            samples, soundfile.read(path, dtype="int16", always_2d=True)[0]
        )


@pytest.mark.usefixtures("fresh")
def test_where_it_is_absent_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(
        errors.UserError, match=r"decoding FLAC .* needs tensorflow-io; pip install"
    ):
        flac_graph.decode(b"")


@pytest.mark.usefixtures("fresh")
def test_where_it_does_not_fit_one_line_says_so(monkeypatch):
    def decode(*_, **__):
        raise NotImplementedError("unable to open file: libtensorflow_io.so")

    audio = types.SimpleNamespace(decode_flac=decode)
    monkeypatch.setitem(sys.modules, "tensorflow_io", types.SimpleNamespace(audio=audio))
    monkeypatch.setattr(tfio, "_keep_exit_status", lambda: None)
    with pytest.raises(errors.UserError, match="cannot decode FLAC; pip install"):
        flac_graph.decode(b"")
