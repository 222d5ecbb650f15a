import dataclasses
import pathlib

import pytest

from export.outlets import formats
from pipeline import errors


@pytest.mark.parametrize(
    ("files", "path", "row"),
    [
        (["m/saved_model.pb"], "m", formats.SAVED_MODEL),
        # Half of one is told as a damaged one.
        (["m/voices_apart.json"], "m", formats.SAVED_MODEL),
        (["m/best.keras"], "m", None),
        (["m.keras"], "m.keras", None),
        (["m.tflite"], "m.tflite", formats.LITERT),
        ([], "absent.onnx", formats.ONNX),
        # A folder of whatever name is none of their files.
        (["m.onnx/best.keras"], "m.onnx", None),
        ([], "absent", None),
    ],
)
def test_a_row_is_found_by_the_path(tmp_path, files, path, row):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert formats.of(tmp_path / path) is row


@pytest.mark.parametrize("row", formats.FORMATS, ids=lambda row: row.name)
def test_what_is_not_installed_is_named(row, tmp_path):
    here = dataclasses.replace(row, runtime="no_such_runtime.inner", writers=("no_such_writer",))
    assert not here.is_installed
    (tmp_path / "model").mkdir()
    for call in (here.require, lambda: here.load(tmp_path / "model"), here.require_writers):
        with pytest.raises(errors.UserError, match=f"run by {row.name}.*pip install") as caught:
            call()
        assert "[]" not in str(caught.value)
    here = dataclasses.replace(here, runtime="json")
    assert here.is_installed
    with pytest.raises(errors.UserError, match="written by no_such_writer"):
        here.require_writers()


@pytest.mark.parametrize("row", formats.FORMATS, ids=lambda row: row.name)
def test_a_path_to_nothing(row):
    with pytest.raises(errors.UserError, match="no such model: nowhere"):
        row.load(pathlib.Path("nowhere"))
    with pytest.raises(errors.UserError, match="no such model: nowhere"):
        row.read_info(pathlib.Path("nowhere"))
