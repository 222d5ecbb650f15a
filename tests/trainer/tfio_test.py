"""tensorflow-io where it is, where it is not, and where it does not fit."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipeline import errors
from trainer import tfio


@pytest.fixture
def fresh():
    """Nothing that an earlier test has loaded is remembered."""
    tfio._load.cache_clear()
    tfio._audio.cache_clear()
    yield
    tfio._load.cache_clear()
    tfio._audio.cache_clear()


@pytest.fixture
def working():
    try:
        tfio._audio()
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
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(tf.io.read_file).map(tfio.decode_flac)
    for path, samples in zip(paths, decoded.as_numpy_iterator(), strict=True):
        expected, _ = soundfile.read(path, dtype="int16", always_2d=True)
        assert samples.dtype == np.int16
        np.testing.assert_array_equal(samples, expected)


@pytest.mark.usefixtures("working")
@pytest.mark.recordings
def test_real_flac_is_soundfiles_bit_by_bit(recordings):
    paths = sorted(map(str, (recordings / "speech").rglob("*.flac")))[:20]
    assert paths
    decoded = tf.data.Dataset.from_tensor_slices(paths).map(tf.io.read_file).map(tfio.decode_flac)
    for path, samples in zip(paths, decoded.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(
            samples, soundfile.read(path, dtype="int16", always_2d=True)[0]
        )


def test_a_local_dataset_loads_nothing():
    program = (
        "import sys; from trainer import tfio; tfio.connect('/data');"
        "print(sorted({'tensorflow', 'tensorflow_io', 'apache_beam'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.usefixtures("fresh")
def test_where_it_is_absent_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", None)
    with pytest.raises(
        errors.UserError, match=r"needs tensorflow-io; pip install 'voices-apart\[io\]'"
    ):
        tfio.connect("nobodys://box/data")
    with pytest.raises(errors.UserError, match="needs tensorflow-io"):
        tfio.decode_flac(b"")


@pytest.mark.usefixtures("fresh")
def test_where_it_does_not_fit_one_line_says_so(monkeypatch):
    def decode(*_, **__):
        raise NotImplementedError("unable to open file: libtensorflow_io.so")

    audio = types.SimpleNamespace(decode_flac=decode)
    monkeypatch.setitem(sys.modules, "tensorflow_io", types.SimpleNamespace(audio=audio))
    monkeypatch.setattr(tfio, "_keep_exit_status", lambda: None)
    with pytest.raises(errors.UserError, match=r"tensorflow 2\.\S+ .*cannot read nobodys://; pip"):
        tfio.connect("nobodys://box/data")
    with pytest.raises(errors.UserError, match="cannot decode FLAC; pip install"):
        tfio.decode_flac(b"")


def test_the_endpoint_has_both_names(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("S3_ENDPOINT", raising=False)
    tfio._name_endpoint()
    assert os.environ["S3_ENDPOINT"] == "http://127.0.0.1:1"
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:2")
    tfio._name_endpoint()
    assert os.environ["S3_ENDPOINT"] == "http://127.0.0.1:2"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "127.0.0.1:1", "http://127.0.0.1:many"])
def test_an_endpoint_where_nobody_listens(monkeypatch, endpoint):
    monkeypatch.setenv("S3_ENDPOINT", endpoint)
    with pytest.raises(errors.UserError, match=r"^s3://box/data: no answer from .*127\.0\.0\.1:"):
        tfio.connect("s3://box/data")
