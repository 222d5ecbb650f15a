"""Files for LiteRT and ONNX Runtime: what they hold, run without TensorFlow, and refuse."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import soundfile

from export import lite, onnx
from export.outlets import conversion, formats
from export.separation import loading
from pipeline import errors, file_names

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

RATE = 8000
# Python runs it before anything else where it is found on the path.
_WITHOUT = """
import sys

for name in ("tensorflow", "keras", "apache_beam", "tf2onnx"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def files(saved, tmp_path_factory):
    """The small LSTM, as each command writes it."""
    folder = tmp_path_factory.mktemp("portable")
    separator = conversion.separator_of(saved.saved_model)
    for name, settings in (("float", {}), ("half", {"float16": True}), ("int8", {"int8": True})):
        lite.write(separator, folder / f"{name}.tflite", **settings)
    onnx.write(separator, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("kind", ["saved_model", "run"])
def test_gpus_are_hidden_before_anything_is_traced(saved, kind, monkeypatch):
    """Where Keras sees one, its LSTM writes operations that no converter knows."""
    import tensorflow as tf

    hidden = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: hidden.append(given))
    conversion.separator_of(getattr(saved, kind))
    assert hidden == [([], "GPU")]

    def initialised(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", initialised)
    with pytest.raises(errors.UserError, match="already used a GPU"):
        conversion.separator_of(getattr(saved, kind))


def test_a_saved_model_is_built_again(saved, speechlike):
    found = conversion.separator_of(saved.saved_model)
    mixture = speechlike(RATE)[np.newaxis]
    np.testing.assert_array_equal(found(mixture), saved.separator(mixture))


@pytest.mark.parametrize("name", ["float.tflite", "model.onnx"])
@pytest.mark.parametrize("length", [0, 1, 63, 1000, 20000])
def test_any_length_level_and_number(files, saved, speechlike, name, length):
    model = loading.load(files / name)
    mixtures = np.stack([speechlike(length, 1), 1e-3 * speechlike(length, 2), np.zeros(length)])
    mixtures = mixtures.astype(np.float32)
    found = model.separate(mixtures)
    expected = loading.load(saved.saved_model).separate(mixtures)
    assert found.shape == expected.shape == (3, 2, length)
    assert found.dtype == np.float32
    for voices, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(voices, others, atol=2e-5 * (np.abs(others).max(initial=0)))


def test_masks(files, saved):
    magnitudes = np.random.default_rng(1).normal(-3, 1, (2, 30, 129)).astype(np.float32)
    found = loading.load(files / "float.tflite").masks(magnitudes)
    expected = loading.load(saved.saved_model).masks(magnitudes)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(errors.UserError, match="has no masks"):
        loading.load(files / "model.onnx").masks(magnitudes)


@pytest.mark.parametrize(("name", "db"), [("half", -60), ("int8", -15)])
def test_fewer_bits_are_smaller_and_nearly_the_same(files, saved, speechlike, name, db):
    size, whole = ((files / f"{kind}.tflite").stat().st_size for kind in (name, "float"))
    assert size < 0.9 * whole
    mixture = speechlike(2 * RATE)[np.newaxis]
    found = loading.load(files / f"{name}.tflite").separate(mixture)
    expected = loading.load(saved.saved_model).separate(mixture)
    assert -110 < conversion.difference_db(found, expected) < db
    np.testing.assert_allclose(found.sum(axis=1), mixture, atol=1e-5)


@pytest.mark.parametrize("name", ["half", "int8"])
def test_digital_silence_is_no_trouble_with_fewer_bits(files, saved, speechlike, name):
    """Constants that keep a logarithm from zero are not rounded to zero."""
    mixture = np.concatenate([np.zeros(RATE, np.float32), speechlike(RATE)])[np.newaxis]
    found = loading.load(files / f"{name}.tflite").separate(mixture)
    expected = loading.load(saved.saved_model).separate(mixture)
    assert not found[..., : RATE // 2].any()
    assert conversion.difference_db(found, expected) < -15


def test_a_result_that_fails_on_silence_is_refused(saved, make_stub):
    def separate(waveform):
        voices = np.asarray(saved.separator(waveform))
        return voices if waveform.all() else np.full_like(voices, np.nan)

    with pytest.raises(errors.UserError, match="voices differ by nan dB"):
        conversion.compare(saved.separator, make_stub(separate), conversion.COARSE_DB)


def test_a_page_and_an_evaluation_take_them(files):
    from export.evaluation import clusterers
    from export.serving import model_catalog

    paths = [str(files / name) for name in ("float.tflite", "model.onnx")]
    models = model_catalog.Models(model_catalog.sources(paths))
    assert not models.need_keras
    for title, name in zip(models.titles.values(), ("float.tflite", "model.onnx"), strict=False):
        assert title == f"{name} · lstm, 2 voices, 8 kHz"
    assert [clusterers.load(path, "kmeans") for path in paths] == [None, None]


def test_what_the_files_say_of_the_model(files, saved):
    import onnx as onnx_library

    said = loading.load(saved.saved_model).info
    for name in ("float.tflite", "int8.tflite", "model.onnx"):
        info = loading.load(files / name).info
        assert (info.name, info.sample_rate, info.num_sources) == ("lstm", RATE, 2)
        assert info.constants == said.constants
        assert info.stream is None
    # In the ways that the two formats have for it.
    with zipfile.ZipFile(files / "float.tflite") as archive:
        assert archive.namelist() == [file_names.MODEL_INFO]
    model = onnx_library.load(files / "model.onnx")
    onnx_library.checker.check_model(model)
    assert {node.domain for node in model.graph.node} == {""}
    assert [i.name for i in model.graph.input] == ["waveform"]
    assert [o.name for o in model.graph.output] == ["sources"]


@pytest.mark.parametrize("name", ["int8.tflite", "model.onnx"])
def test_the_command_separates_without_tensorflow(files, saved, speechlike, tmp_path, name):
    (tmp_path / "sitecustomize.py").write_text(_WITHOUT)
    soundfile.write(tmp_path / "talk.wav", speechlike(RATE, level=0.1), RATE, subtype="FLOAT")
    done = subprocess.run(
        [
            sys.executable, "-m", "export.separate", str(tmp_path / "talk.wav"),
            f"--model={files / name}", f"--output_dir={tmp_path / 'out'}",
        ],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    mixture = soundfile.read(tmp_path / "talk.wav", dtype="float32")[0]
    expected = loading.load(files / name).separate(mixture[np.newaxis])[0]
    for number in (1, 2):
        voice, rate = soundfile.read(tmp_path / "out" / f"talk_voice{number}.wav")
        assert rate == RATE
        np.testing.assert_allclose(voice, expected[number - 1], atol=1e-6)


class TestRefusals:
    @pytest.mark.parametrize("name", ["float.tflite", "model.onnx"])
    def test_damaged(self, files, tmp_path, name):
        data = (files / name).read_bytes()
        for damaged in (b"", data[: len(data) // 2], bytes(1000)):
            path = tmp_path / name
            path.write_bytes(damaged)
            with pytest.raises(errors.UserError, match="is damaged") as caught:
                loading.load(path)
            assert "\n" not in str(caught.value)
            assert name in str(caught.value)

    @pytest.mark.parametrize("suffix", formats.SUFFIXES)
    def test_not_there(self, tmp_path, suffix):
        with pytest.raises(errors.UserError, match="no such model"):
            loading.load(tmp_path / f"nothing{suffix}")

    @pytest.mark.parametrize(
        ("write", "ending", "module"),
        [(lite.write, "tflite", "ai_edge_litert.interpreter"), (onnx.write, "onnx", "onnxruntime")],
    )
    def test_a_runtime_that_is_missing(self, saved, tmp_path, monkeypatch, write, ending, module):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(errors.UserError, match=r"pip install 'voices-apart\["):
            write(saved.separator, tmp_path / f"model.{ending}")
        assert list(tmp_path.iterdir()) == []

    def test_an_operation_that_there_is_not(self, make_separator, tmp_path, capfd):
        import keras
        import tensorflow as tf

        separator = make_separator()
        inner = type(separator.network).call

        class Strange(type(separator.network)):
            def call(self, inputs, training=None):
                masks = inner(self, inputs, training=training)
                return masks * tf.bitcast(tf.bitwise.invert(tf.bitcast(masks, tf.int32)), "float32")

        network = Strange.from_config(separator.network.get_config())
        copy = type(separator)(network, -3.5, 0.8, -26.0, RATE, 2)
        copy(np.zeros((1, 500), np.float32))
        assert keras.backend.backend() == "tensorflow"
        for write, ending in ((lite.write, "tflite"), (onnx.write, "onnx")):
            with pytest.raises(errors.UserError, match=r"Strange cannot.*no operation for "):
                write(copy, tmp_path / f"model.{ending}")
            assert list(tmp_path.iterdir()) == []
        # What the converters have to say is for nobody.
        assert capfd.readouterr() == ("", "")
