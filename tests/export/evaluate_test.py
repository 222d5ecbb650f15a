"""The evaluator as a function and as a command: figures, resuming, refusals."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import msgspec
import numpy as np
import pytest

from export import evaluate
from export.evaluation import dataset_mixtures, oracles, report, results, scoring
from export.separation import loading
from pipeline import errors, features, ideal_masks, schema
from pipeline.dataset import dataset

CHEAP = ("si_sdr", "mask_accuracy")
SYSTEMS = [*oracles.ANCHORS, "run"]


@pytest.fixture(scope="session")
def test_set(make_dataset, tmp_path_factory):
    """A dataset's folder with five mixtures to test on."""
    folder = tmp_path_factory.mktemp("evaluated") / "tones"
    make_dataset(folder, {"train": 2, "test": 5})
    return folder


@pytest.fixture(scope="session")
def finished(saved, test_set, tmp_path_factory):
    """The folder and the summary of a whole run with a model."""
    folder = tmp_path_factory.mktemp("report")
    summary = evaluate.evaluate(
        [str(saved.run)], [str(test_set)], str(folder), metric_names=CHEAP, workers=1
    )
    return folder, summary


def read_rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def mixtures(folder, split="test"):
    return list(dataset_mixtures.read(str(folder), dataset.read(str(folder)), split))


class TestResults:
    def test_a_row_for_every_mixture_and_system(self, finished, test_set):
        folder, _ = finished
        found = [(row["mixture_id"], row["system"]) for row in read_rows(folder)]
        ids = sorted(mixture.id for mixture in mixtures(test_set))
        assert found == [(i, system) for i in ids for system in SYSTEMS]

    def test_the_mixture_is_where_improvement_starts(self, finished):
        for row in read_rows(finished[0]):
            if row["system"] == "mixture":
                assert float(row["si_sdr_improvement"]) == 0
                assert row["mask_accuracy"] == "nan"

    def test_model_and_oracle_are_as_computed_here(self, finished, test_set, saved):
        """The definition written out: both permutations by hand, both signals zero-mean."""
        rows = {(row["mixture_id"], row["system"]): row for row in read_rows(finished[0])}
        model = loading.load(saved.run)
        for mixture in mixtures(test_set)[:2]:
            spectra = features.stft(mixture.voices)
            whole = features.stft(mixture.waveform)
            masked = whole * ideal_masks.binary(np.abs(spectra))
            ideal = features.inverse_stft(masked, mixture.waveform.size)
            estimates = {
                "oracle IBM": ideal,
                "run": model.separate(mixture.waveform[np.newaxis])[0],
            }
            before = np.mean([ratio(voice, mixture.waveform) for voice in mixture.voices])
            for system, (first, second) in estimates.items():
                one, two = mixture.voices
                sums = (
                    ratio(one, first) + ratio(two, second),
                    ratio(one, second) + ratio(two, first),
                )
                row = rows[mixture.id, system]
                assert float(row["si_sdr"]) == pytest.approx(max(sums) / 2, abs=1e-3)
                improvement = max(sums) / 2 - before
                assert float(row["si_sdr_improvement"]) == pytest.approx(improvement, abs=1e-3)

    def test_a_network_of_waveforms_has_the_masks_of_its_estimates(self, bands, test_set):
        mixture = mixtures(test_set)[0]
        (separation,) = evaluate._separate({"bands": bands}, mixture)
        # 32 bins lie below 1 kHz: all there is voice 1's, and nothing above.
        first, second = separation.masks
        assert np.median(first[:, :30]) > 0.99
        assert np.median(second[:, 34:]) > 0.99
        row = scoring.score(mixture, [separation], CHEAP)[-1]
        magnitudes = np.abs(features.stft(mixture.voices))
        whole = np.abs(features.stft(mixture.waveform))
        counted = (whole >= whole.max() / 100) & (magnitudes[0] != magnitudes[1])
        low = np.abs(features.stft(separation.estimates))
        agree = 100 * np.mean(((magnitudes[0] > magnitudes[1]) == (low[0] > low[1]))[counted])
        swapped = row["order"] == "2 1"
        assert row["mask_accuracy_as_given"] == pytest.approx(agree, abs=1e-3)
        assert row["mask_accuracy"] == pytest.approx(100 - agree if swapped else agree, abs=1e-3)

    def test_masks_are_of_the_level_at_which_the_model_hears(self, bands, test_set):
        """That at which it was trained, whatever the record's."""
        seen = []

        def masks(log_magnitude):
            seen.append(log_magnitude[0])
            return np.zeros((1, 2, *log_magnitude.shape[1:]), np.float32)

        mixture = mixtures(test_set)[0]
        spectrum = features.stft(mixture.waveform)
        loud = np.abs(spectrum) > np.abs(spectrum).max() / 100
        level = features.active_level_db(mixture.waveform)
        for trained in (-26.0, -40.0):
            info = msgspec.structs.replace(
                bands.info,
                constants={"active_level_db": trained},
                signatures=("masks", "serving_default"),
            )
            model = loading.LoadedModel(info, "stub", bands.separate, masks)
            evaluate._separate({"stub": model}, mixture)
            heard = features.log_magnitude(spectrum * 10 ** ((trained - level) / 20))
            np.testing.assert_allclose(seen[-1][loud], heard[loud], atol=0.005)
        assert abs(level + 26) > 0.5  # Else one of the two would prove nothing.

    def test_no_examples_cost_no_second_look(self, test_set, tmp_path, monkeypatch):
        looks, read = [], dataset_mixtures.read
        monkeypatch.setattr(
            dataset_mixtures, "read", lambda *given: looks.append(given) or read(*given)
        )
        for count in (0, 1):
            evaluate.evaluate(
                [], [str(test_set)], str(tmp_path / str(count)), metric_names=CHEAP, workers=1,
                examples=count,
            )  # fmt: skip
        assert len(looks) == 1 + 2

    def test_summary_is_the_mean_of_the_rows(self, finished):
        folder, summary = finished
        assert json.loads((folder / "results.json").read_text()) == summary
        systems = summary["datasets"][0]["systems"]
        assert list(systems) == SYSTEMS
        for system in SYSTEMS:
            values = [
                float(row["si_sdr_improvement"])
                for row in read_rows(folder)
                if row["system"] == system
            ]
            described = systems[system]["si_sdr_improvement"]["all"]
            assert described["mean"] == pytest.approx(np.mean(values), abs=1e-5)
            assert described["median"] == pytest.approx(np.median(values), abs=1e-5)
        assert systems["oracle IBM"]["mask_accuracy"]["all"]["mean"] == 100
        assert systems["oracle IBM"]["si_sdr_improvement"]["all"]["mean"] > 8

    def test_what_is_known_of_a_mixture(self, finished, test_set):
        rows = {row["mixture_id"]: row for row in read_rows(finished[0])}
        for mixture in mixtures(test_set):
            row = rows[mixture.id]
            assert row["pair"] == "mixed"
            assert row["speakers"] == "speaker0 speaker1"
            assert float(row["seconds"]) == pytest.approx(mixture.waveform.size / 8000, abs=1e-4)
            levels = [features.active_level_db(voice) for voice in mixture.voices]
            assert float(row["relative_level_1"]) == pytest.approx(levels[0] - levels[1], abs=1e-3)
            assert float(row["relative_level_2"]) == pytest.approx(levels[1] - levels[0], abs=1e-3)

    def test_again_does_nothing_and_other_settings_are_refused(self, finished, test_set, capsys):
        folder, summary = finished
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        model = summary["settings"]["models"][0]["path"]
        settings = {"metric_names": CHEAP, "workers": 1}
        assert evaluate.evaluate([model], [str(test_set)], str(folder), **settings) is None
        assert "holds these results already" in capsys.readouterr().out
        with pytest.raises(errors.UserError, match="--overwrite"):
            evaluate.evaluate([], [str(test_set)], str(folder), **settings)
        assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        assert not list(folder.glob("*partial*"))


def ratio(reference, estimate):
    """SI-SDR by its formula, dB."""
    reference = reference.astype(np.float64) - reference.mean(dtype=np.float64)
    estimate = estimate.astype(np.float64) - estimate.mean(dtype=np.float64)
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * np.log10((target @ target) / ((target - estimate) @ (target - estimate)))


class TestResuming:
    def test_a_run_that_died_goes_on_to_the_same_results(self, test_set, tmp_path, monkeypatch):
        settings = {"metric_names": CHEAP, "workers": 1, "examples": 0}
        evaluate.evaluate([], [str(test_set)], str(tmp_path / "whole"), **settings)
        score_all = scoring.score_all
        scored = []

        def dying(tasks, workers):
            for number, done in enumerate(score_all(tasks, workers)):
                if number == 2:
                    raise OSError("the disk is full")
                yield done

        def counting(tasks, workers):
            for task, rows in score_all(tasks, workers):
                scored.append(task.mixture.id)
                yield task, rows

        died = tmp_path / "died"
        monkeypatch.setattr(scoring, "score_all", dying)
        with pytest.raises(OSError, match="disk is full"):
            evaluate.evaluate([], [str(test_set)], str(died), **settings)
        assert [path.name for path in died.iterdir()] == [results.JOURNAL_FILE]
        # It was killed while it wrote a line.
        with open(died / results.JOURNAL_FILE, "a") as file:
            file.write('{"dataset": "tones", "mixtu')
        monkeypatch.setattr(scoring, "score_all", counting)
        evaluate.evaluate([], [str(test_set)], str(died), **settings)
        assert len(scored) == 3
        whole = (tmp_path / "whole" / "results.csv").read_bytes()
        assert (died / "results.csv").read_bytes() == whole

    def test_a_journal_of_other_settings_is_not_gone_on_with(self, tmp_path):
        results.Journal(str(tmp_path), {"split": "test"}).add("d", "m", [{"si_sdr": 1.0}])
        assert results.Journal(str(tmp_path), {"split": "test"}).rows("d") == [{"si_sdr": 1.0}]
        with pytest.raises(errors.UserError, match="other settings"):
            results.Journal(str(tmp_path), {"split": "valid"})
        assert not len(results.Journal(str(tmp_path), {"split": "valid"}, overwrite=True))
        results.Journal(str(tmp_path), {"split": "valid"}).add("d", "m", [{"si_sdr": 2.0}])
        # What an interrupted --overwrite had done is gone on with.
        assert len(results.Journal(str(tmp_path), {"split": "valid"}, overwrite=True)) == 1

    def test_old_results_stay_until_there_are_new_ones(self, test_set, tmp_path, monkeypatch):
        settings = {"metric_names": CHEAP, "workers": 1, "examples": 0}
        folder, data = str(tmp_path), [str(test_set)]
        evaluate.evaluate([], data, folder, **settings)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

        def broken(*_, **__):
            raise OSError("the disk is full")

        for module, name in ((scoring, "score_all"), (report, "render"), (results, "_json")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, broken)
                with pytest.raises(OSError, match="disk is full"):
                    evaluate.evaluate(
                        [], data, folder, **settings, max_mixtures=2, overwrite=True
                    )  # fmt: skip
            now = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
            assert now.pop(results.JOURNAL_FILE)
            assert now == before
        evaluate.evaluate([], data, folder, **settings, max_mixtures=2, overwrite=True)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(before)
        assert len({row["mixture_id"] for row in read_rows(tmp_path)}) == 2
        assert results.finished_settings(folder)["max_mixtures"] == 2

    def test_results_that_are_half_replaced_are_no_results(self, tmp_path, monkeypatch):
        """Killed between two renames."""
        results.write(str(tmp_path), {}, "old", {"settings": 1})
        replace = os.replace

        def dying(source, target):
            if str(target).endswith(results.PAGE_FILE):
                raise KeyboardInterrupt
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            with pytest.raises(KeyboardInterrupt):
                results.write(str(tmp_path), {}, "new", {"settings": 2})
        assert results.finished_settings(str(tmp_path)) is None
        results.write(str(tmp_path), {}, "new", {"settings": 2})
        assert results.finished_settings(str(tmp_path)) == 2

    def test_files_that_are_nested_without_end_are_none_of_ours(self, tmp_path):
        for name in (results.JOURNAL_FILE, results.SUMMARY_FILE):
            (tmp_path / name).write_text("[" * 200_000 + "\n")
        assert results.finished_settings(str(tmp_path)) is None
        assert not len(results.Journal(str(tmp_path), {}))

    @pytest.mark.parametrize("name", [results.ROWS_FILE, results.PAGE_FILE])
    def test_what_others_wrote_is_not_replaced(self, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(errors.UserError, match=f"{name} is there and of no run"):
            results.Journal(str(tmp_path), {})
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_dataset_is_named_once(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path)
        with pytest.raises(errors.UserError, match="link is named twice"):
            evaluate._names([str(tmp_path), str(tmp_path / "link")])

    def test_an_interrupt_is_answered_once(self, test_set):
        """Ctrl-C reaches every process of the terminal's group."""
        program = (
            "import signal, sys, time\n"
            "from export.evaluation import dataset_mixtures, scoring\n"
            "from pipeline.dataset import dataset\n"
            # What a shell starts in the background ignores it, and so does what that starts.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "def tasks(folder):\n"
            "    mixture = next(dataset_mixtures.read(folder, dataset.read(folder), 'test'))\n"
            "    for _ in range(2):\n"
            "        yield scoring.Task('tones', mixture, (), ('si_sdr', 'stoi'))\n"
            "    print('idle', flush=True)\n"  # Asked for a third: one is done.
            "    time.sleep(60)\n"
            "try:\n"
            "    list(scoring.score_all(tasks(sys.argv[1]), 1))\n"
            "except KeyboardInterrupt:\n"
            "    sys.exit(130)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(test_set)], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            assert process.stdout.readline() == "idle\n"
            os.killpg(process.pid, signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert (process.returncode, told) == (130, "")

    def test_no_mixture_is_lost_when_a_process_dies_between_two_tasks(self, test_set, monkeypatch):
        """A task cannot be handed in then; it has been taken all the same."""
        pools, make = [], scoring._pool
        monkeypatch.setattr(scoring, "_pool", lambda *g: pools.append(make(*g)) or pools[-1])
        expected = mixtures(test_set)

        def tasks():
            for number, mixture in enumerate(expected):
                if number == 3:
                    pools[-1].submit(os.abort)
                    with contextlib.suppress(BrokenProcessPool):
                        while True:
                            pools[-1].submit(int).result()
                yield scoring.Task("tones", mixture, (), ("si_sdr", "stoi"))

        done = [task.mixture.id for task, _ in scoring.score_all(tasks(), 2)]
        assert len(pools) > 1
        assert sorted(done) == sorted(mixture.id for mixture in expected)

    def test_nothing_is_written_of_fewer_mixtures_than_there_are(
        self, test_set, tmp_path, monkeypatch
    ):
        score_all = scoring.score_all
        settings = {"metric_names": CHEAP, "workers": 1, "examples": 0}
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "score_all", lambda t, w: list(score_all(t, w))[1:])
            with pytest.raises(errors.UserError, match="4 different mixtures were scored, of 5"):
                evaluate.evaluate([], [str(test_set)], str(tmp_path), **settings)
        assert [path.name for path in tmp_path.iterdir()] == [results.JOURNAL_FILE]
        summary = evaluate.evaluate([], [str(test_set)], str(tmp_path), **settings)
        assert summary["datasets"][0]["mixtures"] == 5
        assert len(read_rows(tmp_path)) == 5 * len(oracles.ANCHORS)

    def test_a_mixture_without_a_system_is_named(self, tmp_path):
        journal = results.Journal(str(tmp_path), {})
        journal.add("d", "m", [{"mixture_id": "m", "system": "mixture"}])
        journal.require("d", 1, ["mixture"])
        with pytest.raises(errors.UserError, match="m has figures of mixture, not of mixture, run"):
            journal.require("d", 1, ["mixture", "run"])

    def test_a_fault_of_a_metric_ends_the_run(self, test_set, tmp_path, monkeypatch):
        (tmp_path / "pystoi.py").write_text("def stoi(*_): raise TypeError('changed')\n")
        monkeypatch.syspath_prepend(tmp_path)
        task = scoring.Task("tones", mixtures(test_set)[0], (), ("si_sdr", "stoi"))
        with pytest.raises(TypeError, match="changed"):
            list(scoring.score_all([task], 1))

    def test_a_metric_that_takes_its_process_down(self, test_set, tmp_path, monkeypatch):
        (tmp_path / "pesq.py").write_text("import os\ndef pesq(*_): os.abort()\n")
        monkeypatch.syspath_prepend(tmp_path)
        tasks = [
            scoring.Task("tones", mixture, (), ("si_sdr", "pesq"))
            for mixture in mixtures(test_set)[:2]
        ]
        done = list(scoring.score_all(tasks, 1))
        assert {task.mixture.id for task, _ in done} == {task.mixture.id for task in tasks}
        for _, rows in done:
            assert [row["system"] for row in rows] == list(oracles.ANCHORS)
            assert all(row["si_sdr"] is not None and "pesq" not in row for row in rows)


class TestSeveral:
    @pytest.mark.slow
    def test_models_side_by_side_on_two_datasets(
        self, saved, test_set, make_dataset, tmp_path, run_command
    ):
        other = tmp_path / "others"
        make_dataset(other, {"test": 3}, seed=1)
        done = run_command(
            "export.evaluate", f"--model={saved.run}", f"--model={saved.saved_model}",
            f"--data_dir={test_set}", f"--data_dir={other}", "--max_mixtures=3", "--workers=1",
            "--metrics=si_sdr", "--noaudio", f"--output_dir={tmp_path}/report",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "exported − run: 0.00 dB" in done.stdout
        assert "tones, test: 3 mixtures" in done.stdout
        assert "others, test: 3 mixtures" in done.stdout
        summary = json.loads((tmp_path / "report" / "results.json").read_text())
        for data in summary["datasets"]:
            assert list(data["systems"]) == [*oracles.ANCHORS, "run", "exported"]
            assert data["differences"][0]["mean"] == pytest.approx(0, abs=1e-3)
        assert "<audio" not in (tmp_path / "report" / "report.html").read_text()

    def test_three_voices(self, make_separator, make_dataset, tmp_path):
        make_dataset(tmp_path / "data", {"test": 2}, num_sources=3)
        (tmp_path / "run").mkdir()
        make_separator(num_outputs=3, num_sources=3).save(tmp_path / "run" / "best.keras")
        summary = evaluate.evaluate(
            [str(tmp_path / "run")], [str(tmp_path / "data")], str(tmp_path / "report"),
            metric_names=CHEAP, workers=1,
        )  # fmt: skip
        row = read_rows(tmp_path / "report")[-1]
        assert sorted(row["order"].split()) == ["1", "2", "3"]
        assert float(row["si_sdr_3"])
        assert summary["datasets"][0]["num_sources"] == 3


class TestRefusals:
    def refused(self, done, output, *words):
        assert done.returncode in (1, 2)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        for word in words:
            assert str(word) in done.stderr
        assert not output.exists() or not list(output.iterdir())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"model": "nowhere"}, ["nowhere", "no such model"]),
            ({"data_dir": "nowhere"}, ["nowhere", "no such folder"]),
            ({"data_dir": "."}, ["no dataset"]),
            ({"split": "valid"}, ["no mixtures in split valid", "test, train"]),
            ({"metrics": "loudness"}, ["loudness", "stoi"]),
            ({"data_dir": None}, ["--data_dir"]),
            ({"workers": "0"}, ["workers"]),
        ],
    )
    def test_one_line_and_no_report(self, changes, words, test_set, saved, tmp_path, run_command):
        flags = {"model": saved.run, "data_dir": test_set, "output_dir": tmp_path / "out"}
        flags |= changes
        given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        done = run_command("export.evaluate", *given)
        self.refused(done, tmp_path / "out", *words)

    def test_another_number_of_voices_and_another_rate(self, saved, make_dataset, tmp_path):
        make_dataset(tmp_path / "three", {"test": 2}, num_sources=3)
        make_dataset(tmp_path / "fast", {"test": 2})
        info = (tmp_path / "fast" / schema.INFO_FILE).read_text()
        info = info.replace('"sample_rate": 8000', '"sample_rate": 16000')
        (tmp_path / "fast" / schema.INFO_FILE).write_text(info)
        for name, words in (("three", "2 voices.*3"), ("fast", "8000 Hz.*16000")):
            with pytest.raises(errors.UserError, match=words):
                evaluate.evaluate(
                    [str(saved.run)], [str(tmp_path / name)], str(tmp_path / "out"), workers=1
                )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "fewer"])
    def test_a_damaged_shard_is_named(self, damage, make_dataset, tmp_path):
        make_dataset(tmp_path, {"test": 4})
        shard = tmp_path / "test-00001-of-00002.tfrecord"
        data = bytearray(shard.read_bytes())
        if damage == "cut":
            shard.write_bytes(data[:-100])
        elif damage == "flipped":
            data[len(data) // 2] ^= 1
            shard.write_bytes(data)
        elif damage == "gone":
            shard.unlink()
        else:
            shard.write_bytes(data[: 16 + int.from_bytes(data[:8], "little")])
        with pytest.raises(dataset.DatasetError, match="test-00001"):
            mixtures(tmp_path)
