"""The whole job, as a function and as a command, on small synthetic corpora and real recordings."""

import csv
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf
from absl import flags

from pipeline import errors, fact_table, job, plan, schema, version
from pipeline.beam import runners
from pipeline.corpora import corpus as corpus_lib
from pipeline.corpora import mixture_list
from pipeline.dataset import dataset, mixture_shards, recordings, shards
from pipeline.io import object_lock

MODULE = "pipeline.preprocess"


def make(folder, *inputs, beam_flags=(), **settings):
    """Runs the job; returns the info and the lines that it printed."""
    lines = []
    info = job.run(
        job.Settings(
            input_dir=tuple(map(str, inputs)),
            output_dir=str(folder),
            num_shards=settings.pop("num_shards", 2),
            **settings,
        ),
        beam_flags,
        lines.append,
    )
    return info, "\n".join(lines)


def checksums(folder):
    """Returns the SHA-256 of every file, and the info without its times."""
    found = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file()
    }
    info = json.loads((pathlib.Path(folder) / schema.INFO_FILE).read_text())
    del info["created"]
    return {**found, schema.INFO_FILE: info}


def records(folder, split):
    found = []
    for path in sorted(pathlib.Path(folder).glob(f"{split}-*.tfrecord")):
        found += [schema.decode(schema.MIXTURE_FEATURES, lists) for lists in examples(path)]
    return found


def examples(path):
    """Returns the lists of each record of a shard, as TensorFlow reads them."""
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        yield {n: getattr(f, f.WhichOneof("kind")).value for n, f in feature.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, corpus_folder):
    """A dataset of the small corpus, with two of four speakers in valid."""
    folder = tmp_path_factory.mktemp("finished")
    make(folder, corpus_folder)
    return folder


def test_a_dataset_is_whole_and_described(finished, corpus_folder):
    info = dataset.read(str(finished))
    assert {name: split.mixtures for name, split in info.splits.items()} == {
        "train": 6,
        "valid": 6,
    }
    assert info.counts == {
        "recordings": 12, "rejected": 0, "too_short": 0, "cut": 0, "dropped": 0
    }  # fmt: skip
    assert info.config["max_seconds"] == 600
    assert info.config["input_dir"] == [str(corpus_folder)]
    for name, split in info.splits.items():
        found = records(finished, name)
        assert len(found) == split.mixtures
        assert split.seconds == sum(r["num_samples"] for r in found) / 8000
        assert split.frames == sum(r["num_frames"] for r in found)
        assert split.speakers == len({s for r in found for s in r["speaker_ids"]}) == 2
        for shard in split.shards:
            data = (finished / shard.name).read_bytes()
            assert shard.bytes == len(data)
            assert shard.sha256 == hashlib.sha256(data).hexdigest()
    names = [s.name for split in info.splits.values() for s in split.shards]
    names += [f"utterances/{s.name}" for s in info.utterances.shards]
    assert {p.relative_to(finished).as_posix() for p in finished.rglob("*")} == {
        *names, *(f"{name}.json" for name in names), "utterances", "utterances/index.csv",
        "dataset_info.json", "mixtures.csv", "rejected.csv", "_SUCCESS",
    }  # fmt: skip


def test_utterances_of_train_lie_where_the_index_says(finished, corpus_folder):
    info = dataset.read(str(finished))
    records_of_train = records(finished, "train")
    place = finished / schema.UTTERANCES_FOLDER
    with open(place / schema.UTTERANCES_INDEX_FILE, newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == sorted(rows, key=lambda row: (row["shard"], int(row["offset"])))
    index = {row["utterance_id"]: row for row in rows}
    assert set(index) == {r["utterance_ids"][0] for r in records_of_train}
    stored = 0
    for shard in info.utterances.shards:
        for lists in examples(place / shard.name):
            sizes = {"N": lists["num_samples"][0]}
            record = {f.name: f.decode(lists[f.name], sizes) for f in schema.UTTERANCE_FEATURES}
            row = index[record["utterance_id"]]
            assert (row["shard"], row["speaker_id"]) == (shard.name, record["speaker_id"])
            assert float(row["active_level_db"]) == pytest.approx(record["active_level_db"])
            mapped = np.memmap(
                place / shard.name, "<i2", "r", int(row["offset"]), (int(row["num_samples"]),)
            )
            np.testing.assert_array_equal(mapped, record["samples"])
            samples, rate = soundfile.read(corpus_folder / f"{record['utterance_id']}.wav")
            expected = soxr.resample(samples.astype(np.float32), rate, 8000, quality="HQ") * 32768
            assert record["samples"].shape == expected.shape
            assert np.abs(record["samples"] - expected).max() <= 0.51
            stored += expected.size
    assert info.utterances.utterances == len(rows)
    assert info.utterances.speakers == info.splits["train"].speakers
    assert info.utterances.seconds == stored / 8000


def test_mean_and_deviation_are_those_of_trains_records(finished):
    info = dataset.read(str(finished))
    values = np.concatenate([r["log_magnitude"].ravel() for r in records(finished, "train")])
    assert info.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-9)
    assert info.deviation == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_the_list_has_what_is_in_the_shards_and_rebuilds_it(finished, corpus_folder, tmp_path):
    mixtures = mixture_list.from_csv((finished / schema.MIXTURES_FILE).read_text(), "list")
    stored = {r["mixture_id"]: r for s in ("train", "valid") for r in records(finished, s)}
    assert {m.id for m in mixtures} == set(stored)
    for mixture in mixtures:
        record = stored[mixture.id]
        assert record["utterance_ids"] == list(mixture.utterance_ids)
        np.testing.assert_allclose(record["gains_db"], mixture.gains_db, rtol=1e-6)
    path = finished / schema.MIXTURES_FILE
    make(tmp_path, corpus_folder, mixture_list=str(path))
    again, before = checksums(tmp_path), checksums(finished)
    assert {n: c for n, c in again.items() if n != schema.INFO_FILE} == {
        n: c for n, c in before.items() if n != schema.INFO_FILE
    }
    assert dataset.read(str(tmp_path)).num_sources == 2


def test_long_recordings_are_cut_and_counted(finished, corpus_folder, tmp_path):
    info, said = make(tmp_path / "out", corpus_folder, max_seconds=2.0)
    # Lengths are 1.5, 1.8 and 2.1 s, plus 0.2 s for each further speaker.
    assert info.counts["cut"] == 7
    assert "7 recordings are longer than --max_seconds" in said
    assert info.counts["dropped"] == 0
    for split in info.splits:
        whole = {r["mixture_id"]: r for r in records(finished, split)}
        cut = {r["mixture_id"]: r for r in records(tmp_path / "out", split)}
        assert set(cut) == set(whole)
        assert max(r["num_samples"] for r in cut.values()) == 16000
        for name, record in cut.items():
            assert record["num_samples"] == min(16000, whole[name]["num_samples"])
            assert record["gains_db"] == whole[name]["gains_db"]
            begin = whole[name]["sources"][:, : record["num_samples"]]
            np.testing.assert_array_equal(record["sources"], begin)
    with open(tmp_path / "out" / "utterances" / "index.csv", newline="") as file:
        lengths = [int(row["num_samples"]) for row in csv.DictReader(file)]
    assert len(lengths) == 6
    assert max(lengths) == 16000
    with pytest.raises(dataset.DatasetError, match=r"max_seconds: 2\.0, now 600\.0"):
        make(tmp_path / "out", corpus_folder)
    whole = str(finished / schema.MIXTURES_FILE)
    with pytest.raises(errors.UserError, match=r"mixture .* more than --max_seconds"):
        make(tmp_path / "list", corpus_folder, mixture_list=whole, max_seconds=1.6)


def test_a_folder_may_be_called_like_a_pattern(finished, corpus_folder, tmp_path):
    for name in ("a[1]*?", "[!x]"):
        make(tmp_path / name, corpus_folder)
        assert checksums(tmp_path / name) == checksums(finished)


def test_shards_of_other_versions_are_made_again(finished, corpus_folder, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "_SUCCESS").unlink()
    # As if all but two had been written before an upgrade.
    now = version.versions()
    then = json.dumps({**now, "soxr": "0.1"}, sort_keys=True, separators=(",", ":"))
    paths = sorted(folder.rglob("*.tfrecord.json"))
    for path in paths[:-2]:
        text = path.read_text()
        path.write_text(text.replace(json.dumps(now, sort_keys=True, separators=(",", ":")), then))
        assert path.read_text() != text
    before = {path: path.stat().st_mtime_ns for path in paths}
    info, _ = make(folder, corpus_folder)
    assert [path for path in paths if path.stat().st_mtime_ns == before[path]] == paths[-2:]
    assert checksums(folder) == checksums(finished)
    assert info.versions == now


def test_workers_of_other_versions_are_told(corpus_folder, tmp_path, monkeypatch):
    now, asked = version.versions(), []

    def versions():
        asked.append(1)
        return {**now, "soxr": "0.1"} if len(asked) % 5 == 0 else now

    monkeypatch.setattr(shards.version, "versions", versions)
    with pytest.raises(errors.UserError, match=r"with soxr \S+, .* with soxr .*same version"):
        make(tmp_path, corpus_folder)
    assert not dataset.is_whole(str(tmp_path))
    monkeypatch.setattr(shards.version, "versions", lambda: now)
    info, _ = make(tmp_path, corpus_folder)
    assert info.versions == now


def test_nothing_decoded_is_kept_when_a_job_has_ended(corpus_folder, tmp_path, monkeypatch):
    recordings.forget()
    kept, forget = [], recordings.forget
    monkeypatch.setattr(
        recordings, "forget", lambda: [kept.append(len(recordings._kept)), forget()]
    )
    make(tmp_path, corpus_folder)
    assert kept == [12]
    assert len(recordings._kept) == 0


def test_a_passing_folder_is_where_the_workers_are(finished, corpus_folder, tmp_path, monkeypatch):
    seen = []
    run = runners.run
    monkeypatch.setattr(
        runners, "run", lambda flags, *rest: [seen.extend(tmp_path.iterdir()), run((), *rest)]
    )
    dry = {"dry_run": True, "beam_flags": ["--runner=FlinkRunner"]}
    make(tmp_path / "new" / "out", corpus_folder, **dry)
    make(tmp_path / "new" / "out", corpus_folder, **dry)
    assert len(seen) == 2
    assert seen[0] != seen[1]
    assert all(path.name.startswith(".voices-apart-") for path in seen)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(errors.UserError, match="--dry_run needs --output_dir"):
        make("", corpus_folder, **dry)
    seen.clear()
    make(tmp_path / "out", corpus_folder, dry_run=True)
    assert seen == []


def test_a_part_of_a_list_needs_only_its_recordings(finished, corpus_folder, tmp_path):
    lines = (finished / schema.MIXTURES_FILE).read_text().splitlines()
    short = tmp_path / "short.csv"
    short.write_text("\n".join(lines[:2]) + "\n")
    info, _ = make(tmp_path / "out", corpus_folder, mixture_list=str(short))
    (record,) = records(tmp_path / "out", "train")
    (same,) = [r for r in records(finished, "train") if r["mixture_id"] == record["mixture_id"]]
    np.testing.assert_array_equal(record["sources"], same["sources"])
    assert info.counts["recordings"] == 2
    assert info.utterances.utterances == 2
    (shard, other) = info.utterances.shards
    ids = [
        lists["utterance_id"][0].decode()
        for s in (shard, other)
        for lists in examples(tmp_path / "out" / "utterances" / s.name)
    ]
    assert sorted(ids) == sorted(record["utterance_ids"])


@pytest.mark.parametrize(
    "beam_flags",
    [
        ("--direct_num_workers=2",),
        ("--direct_num_workers=2", "--direct_running_mode=multi_threading"),
        ("--runner=BundleBasedDirectRunner",),
    ],
)
def test_other_runners_and_workers_give_the_same_bytes(
    finished, corpus_folder, tmp_path, beam_flags
):
    make(tmp_path, corpus_folder, beam_flags=beam_flags)
    assert checksums(tmp_path) == checksums(finished)


def test_the_same_again_does_nothing_and_other_settings_are_refused(
    corpus_folder, tmp_path, finished
):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    info, said = make(folder, corpus_folder)
    assert "already done" in said
    assert info == dataset.read(str(folder))
    with pytest.raises(dataset.DatasetError, match=r"seed: 0, now 1.*--overwrite"):
        make(folder, corpus_folder, mixing=plan.Settings(seed=1))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    # Settings that do not determine the content may change.
    make(folder, corpus_folder, max_bad_fraction=0.5, beam_flags=["--direct_num_workers=2"])
    make(folder, corpus_folder, mixing=plan.Settings(seed=1), num_shards=1, overwrite=True)
    assert dataset.read(str(folder)).config["seed"] == 1
    # A refusal leaves existing files unchanged.
    before = checksums(folder)
    with pytest.raises(errors.UserError):
        make(folder, corpus_folder, min_seconds=500.0, overwrite=True)
    assert checksums(folder) == before
    assert dataset.read(str(folder)).config["seed"] == 1
    assert sorted(p.name for p in folder.glob("*.tfrecord")) == [
        "train-00000-of-00001.tfrecord",
        "valid-00000-of-00001.tfrecord",
    ]


def test_a_corpus_that_was_moved_is_the_same_and_one_like_it_is_not(
    finished, corpus_folder, tmp_path, voice
):
    shutil.copytree(finished, tmp_path / "out")
    shutil.copytree(corpus_folder, tmp_path / "elsewhere")
    info, said = make(tmp_path / "out", tmp_path / "elsewhere")
    assert "already done" in said
    assert info == dataset.read(str(finished))
    # The same names, but one recording is different.
    soundfile.write(tmp_path / "elsewhere" / "speaker0" / "0.wav", voice(99, 1.5), 16000)
    before = checksums(tmp_path / "out")
    with pytest.raises(dataset.DatasetError, match="recordings: others"):
        make(tmp_path / "out", tmp_path / "elsewhere")
    assert checksums(tmp_path / "out") == before


def test_utterances_are_a_setting(finished, corpus_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    with pytest.raises(dataset.DatasetError, match="utterances: True, now not set"):
        make(folder, corpus_folder, utterances=False)
    info, said = make(folder, corpus_folder, utterances=False, overwrite=True)
    assert info.utterances is None
    assert "clean" not in said
    assert not (folder / schema.UTTERANCES_FOLDER).exists()
    # The mixtures are the same with and without utterances.
    old = {n: c for n, c in checksums(finished).items() if not n.startswith("utterances/")}
    assert {n for n, c in checksums(folder).items() if c != old[n]} == {schema.INFO_FILE}
    with pytest.raises(dataset.DatasetError, match="utterances: not set, now True"):
        make(folder, corpus_folder)


def test_new_recordings_are_another_corpus(corpus_folder, tmp_path, voice):
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    make(tmp_path / "out", corpus)
    soundfile.write(corpus / "speaker0" / "new.wav", voice(99, 2.0), 16000)
    with pytest.raises(dataset.DatasetError, match="corpus: "):
        make(tmp_path / "out", corpus)


def test_what_is_whole_is_kept_and_what_is_damaged_made_again(finished, corpus_folder, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "_SUCCESS").unlink()
    kept, damaged, gone = sorted(folder.glob("*.tfrecord"))[:3]
    kept_too, damaged_too = sorted(folder.glob("utterances/*.tfrecord"))
    for path in (damaged, damaged_too):
        data = bytearray(path.read_bytes())
        data[1000] ^= 1
        path.write_bytes(data)
    gone.unlink()
    (folder / "utterances" / "index.csv").unlink()
    before = [path.stat().st_mtime_ns for path in (kept, kept_too)]
    make(folder, corpus_folder)
    assert [path.stat().st_mtime_ns for path in (kept, kept_too)] == before
    assert checksums(folder) == checksums(finished)


def test_a_job_that_goes_on_does_not_mix_records_with_and_without_a_feature(
    finished, corpus_folder, tmp_path, monkeypatch
):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    new = schema.Feature("longest", "int64", (), None, "samples", "of the voices")
    monkeypatch.setattr(schema, "MIXTURE_FEATURES", (*schema.MIXTURE_FEATURES, new))
    compute = mixture_shards.compute
    monkeypatch.setattr(
        mixture_shards,
        "compute",
        lambda sources, masks: {**compute(sources, masks), "longest": sources.shape[1]},
    )
    with pytest.raises(dataset.DatasetError, match="features: "):
        make(folder, corpus_folder)
    (folder / "_SUCCESS").unlink()
    for path in sorted(folder.glob("*.tfrecord"))[::2]:
        path.unlink()
    info, _ = make(folder, corpus_folder)
    for split in info.splits.values():
        for shard in split.shards:
            for lists in examples(folder / shard.name):
                assert lists["longest"] == lists["num_samples"]


@pytest.mark.parametrize("count", [2, 3])
def test_a_few_speakers_are_enough_whatever_they_are_called(tmp_path, voice, count):
    names = [f"s{n}" for n in range(200)]
    fractions = {n: int(hashlib.sha256(n.encode()).hexdigest(), 16) / 2**256 for n in names}
    # By the fraction, only one of them would be valid.
    low = min(names, key=fractions.__getitem__)
    high = sorted(names, key=fractions.__getitem__)[-count:]
    for seed, name in enumerate([low, *high[1:]]):
        (tmp_path / "in" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / name / "1.wav", voice(seed, 2.0), 16000)
    info, said = make(tmp_path / "out", tmp_path / "in")
    assert {name: split.mixtures for name, split in info.splits.items()} == {"train": count}
    assert f"no valid split: {count} speakers are too few" in said


def test_a_single_speaker_may_be_the_folder_above_the_speakers(tmp_path, voice):
    for seed, name in enumerate("ab"):
        (tmp_path / "people" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "people" / name / "1.wav", voice(seed, 2.0), 16000)
    with pytest.raises(errors.UserError, match=r"1 speaker.*\(people\).* in which the speakers'"):
        make(tmp_path / "out", tmp_path)


def test_bad_recordings_are_named_and_left_out(corpus_folder, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    (corpus / "speaker1" / "empty, with a comma.wav").write_bytes(b"")
    data = (corpus / "speaker0" / "0.wav").read_bytes()
    (corpus / "speaker0" / "cut.wav").write_bytes(data[: len(data) // 2])
    (corpus / "speaker0" / "nowhere.wav").symlink_to("/nonexistent")
    soundfile.write(corpus / "speaker2" / "silent.wav", np.zeros(20000), 16000)
    info, said = make(tmp_path / "out", corpus)
    with open(tmp_path / "out" / schema.REJECTED_FILE, newline="") as file:
        rows = {pathlib.Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"empty, with a comma.wav", "cut.wav", "nowhere.wav", "silent.wav"}
    assert all(rows.values())
    assert info.counts["rejected"] == 4
    assert info.counts["recordings"] == 16
    assert "4 unusable" in said
    assert sum(split.mixtures for split in info.splits.values()) == 12


def test_a_recording_of_two_speakers_is_nobodys(corpus_folder, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    shutil.copy(corpus / "speaker0" / "0.wav", corpus / "speaker1" / "copy.wav")
    # Two copies of the same person's recording are accepted.
    shutil.copy(corpus / "speaker2" / "0.wav", corpus / "speaker2" / "again.wav")
    info, _ = make(tmp_path / "out", corpus)
    with open(tmp_path / "out" / schema.REJECTED_FILE, newline="") as file:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    first, second = (str(corpus / n) for n in ("speaker0/0.wav", "speaker1/copy.wav"))
    assert rows == {
        first: f"the same file as {second}, which is speaker1's",
        second: f"the same file as {first}, which is speaker0's",
    }
    assert sum(split.mixtures for split in info.splits.values()) == 12


def test_a_finished_dataset_keeps_its_list_of_rejected_recordings(tmp_path):
    facts = fact_table.FactTable.of([])
    found = job.Inspected(facts, [corpus_lib.Rejection("a.wav", "empty")])
    settings = job.Settings(output_dir=str(tmp_path), overwrite=True)
    for name in (schema.MARKER_FILE, schema.REJECTED_FILE):
        (tmp_path / name).write_text("old")
    with pytest.raises(errors.UserError, match=r"none of 1 .*; the first is a\.wav: empty"):
        job.refuse_bad(settings, found)
    assert (tmp_path / schema.REJECTED_FILE).read_text() == "old"
    dataset.remove_marker(str(tmp_path))
    with pytest.raises(errors.UserError, match=r"rejected\.csv lists them"):
        job.refuse_bad(settings, found)
    assert "a.wav" in (tmp_path / schema.REJECTED_FILE).read_text()


def test_too_many_bad_recordings_fail(corpus_folder, tmp_path):
    corpus = tmp_path / "corpus"
    shutil.copytree(corpus_folder, corpus)
    for number in range(11):
        (corpus / "speaker1" / f"bad{number:02d}.wav").write_bytes(b"RIFF")
    with pytest.raises(errors.UserError, match=r"11 of 23 .*max_bad_fraction=0\.01.*bad00"):
        make(tmp_path / "out", corpus)
    assert [p.name for p in (tmp_path / "out").iterdir()] == [schema.REJECTED_FILE]
    make(tmp_path / "out", corpus, max_bad_fraction=0.5)
    for path in corpus.rglob("*.wav"):
        path.write_bytes(b"")
    with pytest.raises(errors.UserError, match="none of 23 recordings"):
        make(tmp_path / "none", corpus, max_bad_fraction=1.0)


def test_a_corpus_of_test_alone_has_no_statistics(corpus_folder, tmp_path):
    rows = [
        f"{path},{path.parent.name},test" for path in sorted(corpus_folder.glob("speaker*/*.wav"))
    ]
    manifest = corpus_folder / "test.csv"
    manifest.write_text("path,speaker,split\n" + "\n".join(rows) + "\n")
    try:
        info = job.run(
            job.Settings(manifest=(str(manifest),), output_dir=str(tmp_path)), say=lambda _: None
        )
    finally:
        manifest.unlink()
    assert list(info.splits) == ["test"]
    assert (info.mean, info.deviation, info.active_level_db) == (None, None, None)
    assert info.utterances is None
    assert not (tmp_path / "utterances").exists()
    assert info == dataset.read(str(tmp_path))


def test_a_dry_run_counts_and_writes_nothing(finished, corpus_folder, tmp_path, run_command):
    done = run_command(MODULE, f"--input_dir={corpus_folder}", "--dry_run", cwd=tmp_path)
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []
    info = dataset.read(str(finished))
    parts = [(name, split, split.mixtures) for name, split in info.splits.items()]
    for name, split, count in (*parts, ("clean", info.utterances, info.utterances.utterances)):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
        words = line.split()
        assert int(words[1]) == count
        assert float(words[3]) == pytest.approx(split.seconds / 3600, abs=0.005)
        assert int(words[5]) == split.speakers
        size = sum(shard.bytes for shard in split.shards) / 1e6
        assert float(words[7]) == pytest.approx(size, abs=0.06)


def test_help_is_quick_and_names_beams_flags(run_command):
    start = time.monotonic()
    done = run_command(MODULE, "--help")
    assert time.monotonic() - start < 3  # Under a second on an idle machine.
    assert done.returncode == 0
    for word in ("--input_dir", "--mixture_list", "--max_snr_db", "--runner", "Beam"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ([], 2, "--input_dir or --manifest is needed"),
        (["--input_dir=CORPUS"], 2, "--output_dir is needed"),
        (["--input_dir=CORPUS", "--output_dir=OUT", "--sead=1"], 2, "--sead=1"),
        (["--input_dir=CORPUS", "--output_dir=OUT", "--num_sources=1"], 2, "num_sources"),
        (["--input_dir=CORPUS", "--output_dir=OUT", "--max_snr_db=nan"], 2, "max_snr_db"),
        (["--input_dir=", "--output_dir=OUT"], 2, "--input_dir is empty"),
        (["--input_dir=CORPUS", "--output_dir=OUT", "--masks=ibm,xyz"], 2, "'xyz'"),
        (
            ["--input_dir=CORPUS", "--output_dir=OUT", "--min_seconds=9", "--max_seconds=8"], 2,
            "--min_seconds is more than --max_seconds",
        ),
        (
            ["--input_dir=CORPUS", "--output_dir=OUT", "--mixture_list=x", "--level=raw"], 2,
            "--level has no effect",
        ),
        (
            ["--input_dir=CORPUS", "--output_dir=OUT", "--level=raw", "--max_snr_db=3"], 2,
            "--max_snr_db has no effect with --level=raw",
        ),
        (["--input_dir=/nonexistent", "--output_dir=OUT"], 1, "/nonexistent: no such folder"),
        (["--input_dir=CORPUS", "--output_dir=/proc/x"], 1, "/proc/x"),
    ],
)  # fmt: skip
def test_what_a_person_can_get_wrong_is_one_line(
    corpus_folder, tmp_path, run_command, given, code, message
):
    given = [f.replace("CORPUS", str(corpus_folder)).replace("OUT", str(tmp_path)) for f in given]
    done = run_command(MODULE, *given)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("below", "settings", "message"),
    [
        ("", {"mixture_list": "/no.csv"}, r"/no\.csv: no such file"),
        ("", {"min_seconds": 60.0}, "--min_seconds"),
        ("", {"mixing": plan.Settings(num_sources=5)}, r"4 speaker\(s\)"),
        ("speaker0", {}, "in no speaker's folder"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(corpus_folder, tmp_path, below, settings, message):
    with pytest.raises(errors.UserError, match=message):
        make(tmp_path, corpus_folder / below, **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_mixtures_may_begin_with_a_byte_order_mark(corpus_folder, tmp_path):
    header = "mixture_id,split,num_samples,utterance_1,speaker_1,gain_db_1,utterance_2,speaker_2,"
    text = f"{header}gain_db_2\na,train,9000,u,s,0.00,v,t,0.00\n"
    path, found = tmp_path / "list.csv", []
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text(text, encoding)
        settings = job.Settings(input_dir=(str(corpus_folder),), mixture_list=str(path))
        source = job.read_source(settings)
        found.append((source.listed, source.config))
    assert found[0] == found[1]


def test_flags_that_neither_knows_are_refused():
    for flag in ("--direct_num_worker=2", "stray"):
        with pytest.raises(flags.Error, match=flag):
            runners.parse(["--runner=FlinkRunner", flag, "--flink_master=localhost:1"])
    with pytest.raises(flags.Error, match="invalid int value: 'x'"):
        runners.parse(["--direct_num_workers=x"])


@pytest.mark.slow
def test_a_failure_in_a_worker_process_is_one_line(corpus_folder, tmp_path):
    # A file-size limit simulates a full disk for every process that writes a shard.
    given = [f"--input_dir={corpus_folder}", f"--output_dir={tmp_path}", "--direct_num_workers=2"]
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000,) * 2);"
        f"sys.argv = ['preprocess', *{given!r}];"
        "runpy.run_module('pipeline.preprocess', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # Shards of utterances are smaller; complete ones are kept for the next attempt.
    left = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert all(str(path.parent) == "utterances" and ".tmp" not in path.name for path in left)
    make(tmp_path, corpus_folder)
    assert dataset.is_whole(str(tmp_path))


@pytest.mark.slow
def test_a_job_that_was_killed_is_finished_by_the_next(tmp_path, voice, run_command):
    for speaker in range(4):
        (tmp_path / "corpus" / f"s{speaker}").mkdir(parents=True)
        for number in range(20):
            samples = voice(speaker, 6.0 + 0.01 * number)
            soundfile.write(tmp_path / "corpus" / f"s{speaker}" / f"{number}.wav", samples, 16000)
    given = [f"--input_dir={tmp_path}/corpus", f"--output_dir={tmp_path}/out", "--num_shards=16"]
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    out = tmp_path / "out"

    def finished():
        # Files are written under hidden names and renamed.
        return [p for p in out.glob("*.tfrecord.json") if not p.name.startswith(".")]

    while process.poll() is None and len(finished()) < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "_SUCCESS").exists()
    with pytest.raises(dataset.DatasetError, match="not whole"):
        dataset.read(str(out))
    kept = {path: path.stat().st_mtime_ns for path in finished()}
    done = run_command(MODULE, *given)
    assert done.returncode == 0, done.stderr
    assert len(kept) >= 4
    assert all(path.stat().st_mtime_ns == old for path, old in kept.items())
    make(tmp_path / "undisturbed", tmp_path / "corpus", num_shards=16)
    assert checksums(out) == checksums(tmp_path / "undisturbed")


def test_real_recordings(recordings, tmp_path):
    info, said = make(tmp_path, recordings / "timit_sample", num_shards=8)
    assert "TIMIT" in said
    assert info.counts["rejected"] == 0
    assert sum(split.mixtures for split in info.splits.values()) == 128
    seconds = sum(split.seconds for split in info.splits.values())
    size = sum(shard.bytes for split in info.splits.values() for shard in split.shards)
    assert size / seconds <= 105_000
    assert info.mean == pytest.approx(-3.4, abs=0.15)
    train, valid = (
        {s for r in records(tmp_path, x) for s in r["speaker_ids"]} for x in info.splits
    )
    assert not train & valid
    assert len(train | valid) == 16


def test_what_another_job_has_taken_over_is_left_to_it(tmp_path):
    work = tmp_path / "_work"
    work.mkdir()
    (work / "statistics.json").write_text("null")
    shard = tmp_path / "train-00000-of-00001.tfrecord"
    shard.write_bytes(b"the other job has not written its side-car yet")
    with pytest.raises(object_lock.LostError), job.work_folder(str(tmp_path)):
        raise object_lock.LostError("another has taken over")
    assert (work / "statistics.json").exists()
    assert shard.exists()
