"""A worker imports only what the manual installs in its image and setup.py requires."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
# For each module, the name of its package if it is different.
NAMES = {
    "absl": "absl-py",
    "apache_beam": "apache-beam",
    "google": "protobuf",
    "google_crc32c": "google-crc32c",
    "grpc": "grpcio",
}
# Packages that apache-beam installs, and those that only the launching process needs.
WITH_BEAM = {"grpcio", "protobuf"}
LATER = {"tqdm"}
# The imports of a worker: Beam's own program, and the module whose functions were pickled.
PROGRAM = """
import sys
for name in ("absl", "tensorflow", "keras", "tqdm", "jinja2", "matplotlib", "tensorboard"):
    sys.modules[name] = None
import pipeline.beam.transforms, pipeline.beam.worker
print(*(m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] == "pipeline"))
"""


def imported(path):
    """Returns the packages that a module imports, anywhere in it, by their names on PyPI."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    return {NAMES.get(name, name) for name in found - {"pipeline"} - sys.stdlib_module_names}


@pytest.fixture(scope="module")
def of_workers():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set().union(*(imported(pathlib.Path(path)) for path in done.stdout.split()))


def test_workers_need_what_the_manual_puts_into_their_image(of_workers):
    text = " ".join((ROOT / "BUILD.md").read_text().split())
    listed = re.search(r"pip install --no-deps`, then (.*?)\)", text)[1].split(", ")
    assert set(listed) == of_workers - WITH_BEAM - LATER


def test_what_the_pipeline_imports_is_asked_for():
    wanted = set().union(*(imported(path) for path in (ROOT / "pipeline").rglob("*.py")))
    setup = (ROOT / "setup.py").read_text()
    required = re.search(r"install_requires=\[(.*?)\]", setup, re.DOTALL)[1]
    names = set(re.findall(r'"([\w-]+)', required))
    optional = {"av", "espeakng_loader", "parselmouth"}
    assert wanted - optional <= names
