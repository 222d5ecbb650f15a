"""tensorflow-io where it is, where it is not, and where it does not fit."""

import os
import subprocess
import sys
import types

import pytest

from pipeline import errors
from trainer.data import tfio


@pytest.fixture
def fresh():
    """Nothing that an earlier test has loaded is remembered."""
    tfio.load.cache_clear()
    yield
    tfio.load.cache_clear()


def test_a_local_dataset_loads_nothing():
    program = (
        "import sys; from trainer.data import tfio; tfio.connect('/data');"
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


@pytest.mark.usefixtures("fresh")
def test_where_it_does_not_fit_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_io", types.SimpleNamespace())
    monkeypatch.setattr(tfio, "_keep_exit_status", lambda: None)
    with pytest.raises(errors.UserError, match=r"tensorflow 2\.\S+ .*cannot read nobodys://; pip"):
        tfio.connect("nobodys://box/data")


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
