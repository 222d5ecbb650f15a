"""The wheel installs and runs without the checkout, and holds what it needs and nothing else."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ROOMS = ("pipeline", "models", "trainer", "export")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy: setuptools would leave its build folder in the checkout.
    source = folder / "source"
    for name in (*ROOMS, "setup.py", "pyproject.toml", "README.md"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder, source],
        check=True, cwd=folder,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_it_holds_the_rooms_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(ROOMS)
    here = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here <= set(names)


def test_it_runs_elsewhere(wheel, corpus, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    work = tmp_path / "work"
    work.mkdir()
    where = subprocess.run(
        [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"],
        cwd=work, env=environment(site), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", f"--input_dir={corpus.output}",
         "--output_dir=data", "--num_shards=1"],
        cwd=work, env=environment(site), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (work / "data" / "_SUCCESS").exists()


def environment(site):
    return {**os.environ, "PYTHONPATH": str(site)}
