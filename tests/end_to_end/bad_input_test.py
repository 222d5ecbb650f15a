"""What a person can get wrong: one line that helps, an exit code, nothing that looks whole."""

import csv
import json
import shutil

import numpy as np
import pytest
import soundfile


def refused(done, *words, output=None):
    """The command said why in one line, and wrote nothing that looks whole."""
    assert done.returncode in (1, 2), (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    if output is not None:
        left = [path.name for path in output.rglob("*")] if output.exists() else []
        assert not {"_SUCCESS", "best.keras", "saved_model.pb", "report.html"} & set(left)
        assert not any(name.endswith(".wav") for name in left)


def write_voices(folder, speakers, count=3, seconds=2):
    random = np.random.default_rng(0)
    for speaker in speakers:
        (folder / speaker).mkdir(parents=True)
        for n in range(count):
            noise = random.standard_normal(seconds * 8000) * 0.1
            soundfile.write(folder / speaker / f"{n}.wav", noise, 8000)
    return folder


def write_manifest(path, header, *rows):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


class TestPreprocess:
    def test_no_such_folder(self, run_command, tmp_path):
        output = tmp_path / "out"
        done = run_command(
            "pipeline.preprocess", f"--input_dir={tmp_path}/absent", f"--output_dir={output}"
        )
        refused(done, "absent", output=output)

    def test_no_audio(self, run_command, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "notes.txt").write_text("nothing to hear")
        output = tmp_path / "out"
        done = run_command(
            "pipeline.preprocess", f"--input_dir={tmp_path}/in", f"--output_dir={output}"
        )
        refused(done, str(tmp_path / "in"), output=output)

    def test_one_speaker(self, run_command, tmp_path):
        output = tmp_path / "out"
        voices = write_voices(tmp_path / "in", ["anna"])
        done = run_command("pipeline.preprocess", f"--input_dir={voices}", f"--output_dir={output}")
        refused(done, "speaker", output=output)

    def test_manifest_without_a_column(self, run_command, tmp_path):
        output = tmp_path / "out"
        manifest = write_manifest(tmp_path / "m.csv", ["path", "who"], ["a.wav", "anna"])
        done = run_command(
            "pipeline.preprocess", f"--manifest={manifest}", f"--output_dir={output}"
        )
        refused(done, "m.csv", "speaker", output=output)

    def test_manifest_with_a_speaker_in_two_splits(self, run_command, tmp_path):
        output = tmp_path / "out"
        write_voices(tmp_path, ["anna", "ben"])
        manifest = write_manifest(
            tmp_path / "m.csv", ["path", "speaker", "split"],
            ["anna/0.wav", "anna", "train"], ["anna/1.wav", "anna", "test"],
            ["ben/0.wav", "ben", "train"],
        )  # fmt: skip
        done = run_command(
            "pipeline.preprocess", f"--manifest={manifest}", f"--output_dir={output}"
        )
        refused(done, "anna", output=output)

    def test_other_settings_on_a_finished_dataset(self, run_command, corpus, data):
        before = (data.output / "dataset_info.json").read_bytes()
        done = run_command(
            "pipeline.preprocess", f"--input_dir={corpus.output}", f"--output_dir={data.output}",
            "--num_shards=2", "--max_snr_db=3",
        )  # fmt: skip
        refused(done, "max_snr_db", "overwrite")
        assert (data.output / "dataset_info.json").read_bytes() == before
        assert (data.output / "_SUCCESS").exists()

    @pytest.mark.parametrize(
        "flag", ["--num_shards=0", "--valid_fraction=2", "--max_snr_db=-1", "--sample_rate=5"]
    )
    def test_a_number_out_of_range(self, flag, run_command, tmp_path):
        done = run_command(
            "pipeline.preprocess", f"--input_dir={tmp_path}", f"--output_dir={tmp_path}/out", flag
        )
        refused(done, flag.split("=")[0].lstrip("-"), output=tmp_path / "out")


class TestTrainer:
    def test_folder_without_marker(self, run_command, data, tmp_path):
        shutil.copytree(data.output, tmp_path / "data")
        (tmp_path / "data" / "_SUCCESS").unlink()
        output = tmp_path / "run"
        done = run_command("trainer.task", f"--data_dir={tmp_path}/data", f"--model_dir={output}")
        refused(done, "_SUCCESS", output=output)

    def test_no_train_split(self, run_command, data, tmp_path):
        shutil.copytree(data.output, tmp_path / "data")
        path = tmp_path / "data" / "dataset_info.json"
        info = json.loads(path.read_text())
        del info["splits"]["train"]
        path.write_text(json.dumps({**info, "mean": None, "deviation": None,
                                    "active_level_db": None}))  # fmt: skip
        output = tmp_path / "run"
        done = run_command("trainer.task", f"--data_dir={tmp_path}/data", f"--model_dir={output}")
        refused(done, "train", output=output)

    def test_another_dataset_than_the_checkpoints(self, run_command, corpus, run, folder):
        other = folder / "other"
        made = run_command(
            "pipeline.preprocess", f"--input_dir={corpus.output}", f"--output_dir={other}",
            "--num_shards=2", "--seed=5",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        done = run_command(
            *(f"--data_dir={other}" if flag.startswith("--data_dir") else flag
              for flag in run.command),
        )  # fmt: skip
        refused(done, "data")

    @pytest.mark.parametrize("flag", ["--epochs=0", "--batch_size=-1", "--learning_rate=-1"])
    def test_a_number_out_of_range(self, flag, run_command, data, tmp_path):
        done = run_command(
            "trainer.task", f"--data_dir={data.output}", f"--model_dir={tmp_path}/run", flag
        )
        refused(done, flag.split("=")[0].lstrip("-"), output=tmp_path / "run")


class TestExport:
    def test_no_such_run(self, run_command, tmp_path):
        output = tmp_path / "model"
        done = run_command(
            "export.saved_model", f"--model_dir={tmp_path}/absent", f"--output_dir={output}"
        )
        refused(done, "absent", output=output)

    def test_no_such_recording(self, run_command, model, tmp_path):
        done = run_command(
            "export.separate", tmp_path / "absent.wav", f"--model={model.output}",
            f"--output_dir={tmp_path}/out",
        )  # fmt: skip
        refused(done, "absent.wav", output=tmp_path / "out")

    def test_text_named_wav(self, run_command, model, tmp_path):
        (tmp_path / "text.wav").write_text("this is no recording" * 100)
        done = run_command(
            "export.separate", tmp_path / "text.wav", f"--model={model.output}",
            f"--output_dir={tmp_path}/out",
        )  # fmt: skip
        assert done.returncode in (1, 2)
        assert "text.wav" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list((tmp_path / "out").rglob("*.wav"))

    def test_evaluation_of_a_folder_that_is_no_dataset(self, run_command, model, tmp_path):
        output = tmp_path / "report"
        done = run_command(
            "export.evaluate", f"--model={model.output}", f"--data_dir={tmp_path}",
            f"--output_dir={output}",
        )  # fmt: skip
        refused(done, str(tmp_path), output=output)

    def test_a_dataset_of_another_rate(self, run_command, model, corpus, tmp_path):
        data, output = tmp_path / "data", tmp_path / "report"
        made = run_command(
            "pipeline.preprocess", f"--input_dir={corpus.output}", f"--output_dir={data}",
            "--num_shards=1", "--sample_rate=16000",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        done = run_command(
            "export.evaluate", f"--model={model.output}", f"--data_dir={data}",
            f"--output_dir={output}",
        )  # fmt: skip
        refused(done, "16000", "8000", output=output)
