"""From synthetic voices to separated ones by the commands, as a person types them."""

import csv
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def test_the_dataset_is_what_its_info_says(data):
    info = json.loads((data.output / "dataset_info.json").read_text())
    shards = sorted(path.name for path in data.output.glob("*.tfrecord"))
    listed = sorted(s["name"] for split in info["splits"].values() for s in split["shards"])
    assert shards == listed
    assert "test-00001-of-00002.tfrecord" in shards
    assert (data.output / "_SUCCESS").exists()
    with open(data.output / "mixtures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(split["mixtures"] for split in info["splits"].values()) == 36


def test_a_finished_run_has_figures_curves_and_a_model(run):
    with open(run.output / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert (run.output / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((run.output / "config.json").read_text())
    assert "SI-SDR" in run.stdout + run.stderr


def test_the_voices_are_the_mixture_taken_apart(example, voices):
    mixture, rate = soundfile.read(example.output / "mixture.wav")
    references = [soundfile.read(example.output / f"reference{n}.wav")[0] for n in (1, 2)]
    np.testing.assert_array_equal(np.sum(references, axis=0), mixture)
    found = []
    for n in (1, 2):
        samples, found_rate = soundfile.read(voices.output / f"mixture_voice{n}.wav")
        assert found_rate == rate
        found.append(samples)
    np.testing.assert_allclose(np.sum(found, axis=0), mixture, atol=2 / 32768)
    pictures = list(voices.output.glob("*.png"))
    assert pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_the_readmes_lines_load_the_model_in_a_process_without_the_project(
    model, example, voices, tmp_path
):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.split("<!-- five lines that a test runs -->\n```python\n")[1].split("```")[0]
    lines = lines.replace("exported/lstm", str(model.output))
    waveform, _ = soundfile.read(example.output / "mixture.wav", dtype="float32")
    np.save(tmp_path / "waveform.npy", waveform[None])
    lines = re.sub(r"np\.zeros\(.*?\), np\.float32\)", "np.load('waveform.npy')", lines)
    program = lines + (
        "np.save('voices.npy', voices.numpy())\n"
        "import sys\n"
        "assert not {'models', 'export', 'trainer', 'pipeline', 'keras.src.models'} & {\n"
        "    name for name in sys.modules if getattr(sys.modules[name], '__file__', None)\n"
        f"    and str(sys.modules[name].__file__).startswith({str(ROOT)!r} + '/export')}}\n"
    )
    # -I: neither this folder nor PYTHONPATH is looked at.
    subprocess.run([sys.executable, "-I", "-c", program], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "voices.npy")
    assert found.shape == (1, 2, waveform.size)
    for n in (1, 2):
        written, _ = soundfile.read(voices.output / f"mixture_voice{n}.wav", dtype="float32")
        np.testing.assert_allclose(found[0, n - 1], written, atol=2 / 32768)


def test_the_report_anchors_its_figures(report):
    results = json.loads((report.output / "results.json").read_text())
    assert "oracle IBM" in json.dumps(results)
    with open(report.output / "results.csv", newline="") as file:
        assert len({row["mixture_id"] for row in csv.DictReader(file)}) == 6
    page = (report.output / "report.html").read_text(encoding="utf-8")
    assert "<audio" in page
    assert not re.search(r"""(src|href)=["']https?://""", page)


@pytest.mark.parametrize("name", ["corpus", "data", "run"])
def test_the_same_command_again_does_nothing(name, request, run_command):
    done = request.getfixturevalue(name)
    before = {path: path.stat().st_mtime_ns for path in done.output.rglob("*") if path.is_file()}
    again = run_command(*done.command)
    assert again.returncode == 0, again.stderr
    after = {path: path.stat().st_mtime_ns for path in done.output.rglob("*") if path.is_file()}
    assert after == before


COMMANDS = (
    "pipeline.preprocess", "pipeline.voices", "trainer.task", "export.saved_model",
    "export.separate", "export.evaluate", "export.example",
)  # fmt: skip


@pytest.mark.parametrize("module", COMMANDS)
def test_help_lists_the_flags_without_a_heavy_library(module):
    program = (
        "import runpy, sys\n"
        f"sys.argv = [{module!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        "heavy = {'tensorflow', 'apache_beam', 'keras', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert "--output_dir" in shown.stdout or "--model_dir" in shown.stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_an_unknown_flag_is_an_error(module, run_command):
    needed = ["--input_dir=a", "--output_dir=b"] if module == "pipeline.preprocess" else []
    done = run_command(module, "--no_such_flag=1", *needed)
    assert done.returncode == 2
    assert "no_such_flag" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
