"""The exported folder: its signatures, parity with the separator, and what is left on failure."""

import dataclasses
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf

from export import saved_model
from export.outlets import conversion, formats, model_info
from export.separation import loading
from models import registry, separator
from pipeline import errors, file_names


@pytest.fixture(scope="module")
def loaded(saved):
    return tf.saved_model.load(str(saved.saved_model))


@pytest.mark.parametrize("length", [1, 100, 256, 8001])
def test_sources_are_the_separators(saved, loaded, length, speechlike):
    waveform = np.stack([speechlike(length, seed) for seed in (1, 2, 3)])
    sources = loaded.signatures["serving_default"](waveform=tf.constant(waveform))["sources"]
    expected = np.asarray(saved.separator(waveform))
    assert sources.dtype == tf.float32
    np.testing.assert_allclose(sources, expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(sources, axis=1), waveform, atol=1e-6)


def test_voices_differ(saved, speechlike):
    """Else parity and sums would say nothing."""
    first, second = np.asarray(saved.separator(speechlike(8000)[None]))[0]
    assert np.square(first - second).mean() > 0.05 * np.square(first + second).mean()


def test_masks_are_the_separators(saved, loaded):
    values = np.random.default_rng(0).normal(-3.5, 0.8, (2, 40, 129)).astype(np.float32)
    masks = loaded.signatures["masks"](log_magnitude=tf.constant(values))["masks"]
    assert masks.shape == (2, 2, 40, 129)
    np.testing.assert_allclose(masks, np.asarray(saved.separator.masks(values)), atol=1e-5)


def test_nothing_has_no_voices(loaded):
    separate = loaded.signatures["serving_default"]
    assert separate(waveform=tf.zeros([3, 0]))["sources"].shape == (3, 2, 0)


@pytest.mark.parametrize("level", [1e-30, 1e-6, 1e4, 1e25])
def test_any_level(loaded, level, speechlike):
    separate = loaded.signatures["serving_default"]
    waveform = speechlike(4000)[None]
    expected = separate(waveform=tf.constant(waveform))["sources"].numpy()
    found = separate(waveform=tf.constant(waveform * np.float32(level)))["sources"].numpy()
    np.testing.assert_allclose(found / np.float32(level), expected, atol=1e-4)


def test_silence(loaded):
    sources = loaded.signatures["serving_default"](waveform=tf.zeros([1, 3000]))["sources"]
    assert not np.any(sources)


def test_one_output_is_exported_as_two_voices(make_separator, tmp_path, speechlike):
    model = make_separator(num_outputs=1)
    info = saved_model.write(model, tmp_path / "fixed", lite=False).info
    assert info.num_sources == 2
    waveform = speechlike(3000)[None]
    found = loading.load(tmp_path / "fixed").separate(waveform)
    np.testing.assert_allclose(found, np.asarray(model(waveform)), atol=1e-5)


def test_half_precision_is_exported_in_full(tmp_path, speechlike):
    keras.utils.set_random_seed(2)
    network = registry.create("lstm", units=8, dtype="mixed_bfloat16")
    model = separator.Separator(network, -3.5, 0.8, -26.0, 8000, 2)
    waveform = speechlike(4000)[None]
    expected = np.asarray(model(waveform))
    saved_model.write(model, tmp_path / "model", lite=False)
    graph = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"].graph
    nodes = [graph.as_graph_def(), *graph.as_graph_def().library.function]
    assert not any("DT_BFLOAT16" in str(node) for node in nodes)
    found = loading.load(tmp_path / "model").separate(waveform)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_info_says_what_it_is(saved):
    info = model_info.ModelInfo.from_json((saved.saved_model / file_names.MODEL_INFO).read_text())
    assert (info.name, info.sample_rate, info.num_sources) == ("lstm", 8000, 2)
    assert info.constants == {"mean": -3.5, "deviation": 0.8, "active_level_db": -26.0}
    assert info.network["config"]["units"] == 12
    assert info.num_parameters == sum(np.size(w) for w in saved.separator.network.get_weights())
    assert model_info.ModelInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"format": 99}, "newer"),
        ({"sample_rate": "fast"}, "damaged"),
        ({"num_sources": 0}, "damaged"),
        ({"surprise": 1}, "damaged"),
    ],
)
def test_info_of_another_kind_is_refused(saved, change, word):
    fields = json.loads((saved.saved_model / file_names.MODEL_INFO).read_text())
    with pytest.raises(errors.UserError, match=word):
        model_info.ModelInfo.from_json(json.dumps({**fields, **change}))


@pytest.mark.parametrize("nested", ["[" * 200_000, '{"a":' * 200_000])
def test_info_that_is_nested_without_end_is_damaged(nested):
    with pytest.raises(errors.UserError, match="damaged"):
        model_info.ModelInfo.from_json(nested)


def test_a_model_is_replaced_only_when_asked(make_separator, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    saved_model.write(make_separator(), target, lite=False)
    with pytest.raises(errors.UserError, match="--overwrite"):
        saved_model.write(make_separator(), target, lite=False)
    saved_model.write(
        make_separator(num_outputs=3, num_sources=3), target, overwrite=True, lite=False
    )
    assert loading.load(target).num_sources == 3
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    (target / "notes.txt").write_text("three years")
    with pytest.raises(errors.UserError, match=r"holds notes\.txt, which --overwrite"):
        saved_model.write(make_separator(), target, overwrite=True, lite=False)
    assert loading.load(target).num_sources == 3


def test_no_other_folder_is_ever_replaced(make_separator, tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(errors.UserError, match="no exported model"):
        saved_model.write(make_separator(), tmp_path, overwrite=True, lite=False)
    assert (tmp_path / "thesis.txt").read_text() == "three years"


def test_a_failure_leaves_what_was_there(make_separator, saved, tmp_path, monkeypatch):
    import shutil

    target = tmp_path / "model"
    shutil.copytree(saved.saved_model, target)

    def fail(module, path, signatures):
        (tmp_path / "model").stat()
        open(f"{path}.half", "w").close()
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(errors.UserError, match="No space left"):
        saved_model.write(make_separator(), target, overwrite=True, lite=False)
    monkeypatch.undo()
    assert loading.load(target).num_sources == 2
    with pytest.raises(errors.UserError, match="no such model"):
        loading.load(tmp_path / "other")


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def exported(request, make_separator, tmp_path_factory):
    """A model with its LiteRT file: the separator, the folder, what came of it, and the size."""
    pytest.importorskip("ai_edge_litert")
    separator = make_separator()
    folder = tmp_path_factory.mktemp("exported") / "model"
    return separator, folder, saved_model.write(separator, folder, float16=request.param)


def test_the_lite_file_gives_the_saved_models_voices(exported, speechlike):
    separator, folder, written = exported
    assert written.lite_problem == ""
    lite, saved = loading.load(folder / file_names.LITE_MODEL), loading.load(folder)
    assert lite.info.network == saved.info.network
    for mixture in (speechlike(24000), 0.02 * speechlike(1234)):
        voices = saved.separate(mixture[np.newaxis])
        found = lite.separate(mixture[np.newaxis])
        assert conversion.difference_db(found, voices) < conversion.EXACT_DB
        expected = np.asarray(separator(mixture[np.newaxis]))
        assert conversion.difference_db(voices, expected) < -50


def test_separate_takes_the_lite_file_and_no_tensorflow(exported, tmp_path, speechlike):
    _, folder, _ = exported
    soundfile.write(tmp_path / "mixture.wav", speechlike(8000), 8000)
    program = (
        "import runpy, sys; sys.modules['tensorflow'] = None; "
        "runpy.run_module('export.separate', run_name='__main__', alter_sys=True)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mixture.wav"), f"--model={folder}",
         f"--output_dir={tmp_path}"], check=True,
    )  # fmt: skip
    assert (tmp_path / "mixture_voice2.wav").exists()


def test_weights_of_16_bits(tmp_path, speechlike):
    """Large enough for weights to be most of the files; read again, they are the rounded ones."""
    keras.utils.set_random_seed(1)
    network = registry.create("ffn", units=500)
    model = separator.Separator(network, -3.5, 0.8, -26.0, 8000, 2)
    model(np.zeros((1, 500), np.float32))
    sizes = {}
    for float16 in (False, True):
        folder = tmp_path / str(float16)
        saved_model.write(model, folder, float16=float16)
        sizes[float16] = {
            part: sum(file.stat().st_size for file in folder.glob(part))
            for part in ("variables/*", "*.tflite")
        }
    for part in sizes[True]:
        assert sizes[True][part] < 0.6 * sizes[False][part], sizes
    again = conversion.separator_of(tmp_path / "True")
    for found, weight in zip(again.get_weights(), model.get_weights(), strict=True):
        assert found.dtype == np.float32
        rounded = weight.astype(np.float16) if weight.size >= 1024 else weight
        np.testing.assert_array_equal(found, rounded.astype(np.float32))
    assert saved_model.write(again, tmp_path / "again", lite=False, float16=True).info.name == "ffn"
    waveform = speechlike(8000)[np.newaxis]
    np.testing.assert_array_equal(
        loading.load(tmp_path / "again").separate(waveform),
        loading.load(tmp_path / "True").separate(waveform),
    )


def test_weights_that_16_bits_do_not_hold_are_refused(make_separator, tmp_path):
    model = make_separator()
    kernel = model.network.mask_head.dense.kernel
    kernel.assign(1e6 * kernel)
    with pytest.raises(errors.UserError, match="voices differ by"):
        saved_model.write(model, tmp_path / "model", lite=False, float16=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runtime": "no_such_runtime"}, "run by LiteRT, which is not installed: pip install"),
        ({"converter": lambda *_, **__: 1 / 0}, "cannot be converted: division by zero"),
    ],
)
def test_where_there_can_be_no_lite_file_it_says_so(
    make_separator, tmp_path, monkeypatch, change, words
):
    monkeypatch.setattr(formats, "LITERT", dataclasses.replace(formats.LITERT, **change))
    done = saved_model.write(make_separator(), tmp_path / "model")
    assert done.lite is None
    assert words in done.lite_problem
    assert not (tmp_path / "model" / file_names.LITE_MODEL).exists()
    assert formats.quickest(tmp_path / "model") == tmp_path / "model"
    assert loading.load(tmp_path / "model").num_sources == 2


def test_command(saved, run_command, tmp_path):
    done = run_command(
        "export.saved_model", f"--model_dir={saved.run}", f"--output_dir={tmp_path}/x"
    )
    assert done.returncode == 0, done.stderr
    assert "lstm" in done.stdout
    assert "export.separate takes it" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "x" / file_names.LITE_MODEL).is_file()
    again = run_command(
        "export.saved_model", f"--model_dir={saved.run}", f"--output_dir={tmp_path}/x"
    )
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
    assert len(again.stderr.splitlines()) == 1
