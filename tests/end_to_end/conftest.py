"""The path once, on a few synthetic speakers: each step is a fixture that ran a command."""

import dataclasses
import pathlib

import pytest


@dataclasses.dataclass(frozen=True)
class Step:
    """A command that has been run, and what it wrote."""

    command: tuple[str, ...]
    output: pathlib.Path
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("path")


@pytest.fixture(scope="session")
def step(run_command):
    """Runs a command that has to succeed."""

    def run(output, module, *flags):
        done = run_command(module, *flags)
        assert done.returncode == 0, done.stderr
        return Step((module, *map(str, flags)), output, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def corpus(folder, step):
    path = folder / "corpus"
    return step(
        path, "pipeline.voices", f"--output_dir={path}", "--num_speakers=8",
        "--num_test_speakers=4", "--utterances_per_speaker=3",
    )  # fmt: skip


@pytest.fixture(scope="session")
def data(folder, step, corpus):
    path = folder / "data"
    return step(
        path, "pipeline.preprocess", f"--input_dir={corpus.output}", f"--output_dir={path}",
        "--num_shards=2",
    )  # fmt: skip


@pytest.fixture(scope="session")
def run(folder, step, data):
    path = folder / "run"
    return step(
        path, "trainer.task", f"--data_dir={data.output}", f"--model_dir={path}", "--model=lstm",
        "--units=16", "--epochs=2", "--batch_size=8",
    )  # fmt: skip


@pytest.fixture(scope="session")
def model(folder, step, run):
    path = folder / "model"
    return step(path, "export.saved_model", f"--model_dir={run.output}", f"--output_dir={path}")


@pytest.fixture(scope="session")
def example(folder, step, data):
    path = folder / "example"
    return step(path, "export.example", f"--data_dir={data.output}", f"--output_dir={path}")


@pytest.fixture(scope="session")
def voices(folder, step, model, example):
    path = folder / "voices"
    return step(
        path, "export.separate", example.output / "mixture.wav", f"--model={model.output}",
        f"--output_dir={path}", "--plot",
    )  # fmt: skip


@pytest.fixture(scope="session")
def report(folder, step, model, data):
    path = folder / "report"
    return step(
        path, "export.evaluate", f"--model={model.output}", f"--data_dir={data.output}",
        f"--output_dir={path}", "--max_mixtures=6",
    )  # fmt: skip
