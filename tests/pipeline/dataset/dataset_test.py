"""The dataset's folder: reading, refusals, and a lock that is released when its process dies."""

import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import msgspec
import pytest

from pipeline import columns, file_names, job_settings, schema
from pipeline.corpora import corpus, utterance_table
from pipeline.dataset import dataset, ownership
from pipeline.io import objects

INFO = dataset.DatasetInfo(
    schema_version=schema.SCHEMA_VERSION,
    config={"sample_rate": 8000, "num_sources": 2, "masks": ["ibm", "psm"], "seed": 0},
    splits={
        "train": dataset.SplitInfo(
            1, 2, 3.5, 440, (dataset.ShardInfo("train-00000-of-00001.tfrecord", 1, 9, "ab"),)
        )
    },
    mean=-3.4,
    deviation=0.85,
    active_level_db=-23.0,
    plan_digest="cd",
    versions={"numpy": "1.26.4"},
    created="2026-01-01T00:00:00+00:00",
    counts={"recordings": 2},
)


def finish(folder, info=INFO):
    (folder / "train-00000-of-00001.tfrecord").write_bytes(b"")
    dataset.finish(str(folder), info, "mixture_id\n", "path,reason\n")


def test_what_is_finished_is_read_back(tmp_path):
    folder = str(tmp_path)
    finish(tmp_path)
    info = dataset.read(folder)
    assert info == INFO
    assert (info.sample_rate, info.num_sources, info.masks) == (8000, 2, ("ibm", "psm"))
    assert dataset.is_whole(folder)
    assert (tmp_path / schema.MIXTURES_FILE).read_text() == "mixture_id\n"
    assert (tmp_path / schema.REJECTED_FILE).read_text() == "path,reason\n"


def test_the_marker_is_written_last(tmp_path, monkeypatch):
    written = []
    create = dataset.atomic.create

    def note(path, **options):
        written.append(path)
        return create(path, **options)

    monkeypatch.setattr(dataset.atomic, "create", note)
    finish(tmp_path)
    assert [os.path.basename(path) for path in written][-2:] == [schema.INFO_FILE, "_SUCCESS"]
    assert len(written) == 4


def test_what_is_no_dataset_is_refused_with_advice(tmp_path):
    with pytest.raises(dataset.DatasetError, match=r"no such folder.*pipeline\.preprocess"):
        dataset.read(str(tmp_path / "nothing"))
    with pytest.raises(dataset.DatasetError, match=r"no dataset here.*pipeline\.preprocess"):
        dataset.read(str(tmp_path))
    (tmp_path / "train-00000-of-00008.tfrecord").write_bytes(b"")
    with pytest.raises(dataset.DatasetError, match=r"not whole \(_SUCCESS is missing\)"):
        dataset.read(str(tmp_path))
    finish(tmp_path)
    dataset.remove_marker(str(tmp_path))
    with pytest.raises(dataset.DatasetError, match="not whole"):
        dataset.read(str(tmp_path))


def test_utterances_are_described_and_may_be_absent(tmp_path):
    shards = (dataset.ShardInfo("train-00000-of-00001.tfrecord", 3, 9, "ef"),)
    info = msgspec.structs.replace(
        INFO, utterances=dataset.UtterancesInfo(3, 2, 4.5, shards, plan_digest="01")
    )
    (tmp_path / "utterances").mkdir()
    (tmp_path / "utterances" / shards[0].name).write_bytes(b"")
    (tmp_path / INFO.splits["train"].shards[0].name).write_bytes(b"")
    (tmp_path / "utterances" / "index.csv").write_text("shard\n")
    dataset.finish(str(tmp_path), info, "mixture_id\n", "path,reason\n")
    assert dataset.read(str(tmp_path)) == info
    assert (tmp_path / "utterances" / "index.csv").read_text() == "shard\n"
    # As it was written before there were utterances.
    fields = json.loads(INFO.to_json())
    assert fields.pop("utterances") is None
    assert dataset.DatasetInfo.from_json(json.dumps(fields)) == INFO


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", '{"schema_version": 1}', "\ufeff"])
def test_a_damaged_info_is_named(tmp_path, text):
    finish(tmp_path)
    (tmp_path / schema.INFO_FILE).write_text(text)
    refused(tmp_path, r"(dataset_info\.json is damaged: .*|the dataset has schema version 1, .*)")


def refused(folder, reason):
    """With the folder, and a remedy that the job lets through."""
    sidecar = {"schema_version": 1, "plan_digest": "", "shard": {}}
    name = INFO.splits["train"].shards[0].name
    (folder / f"{name}.json").write_text(json.dumps(sidecar))
    message = rf"^{folder}: {reason}; pipeline\.preprocess --overwrite "
    with pytest.raises(dataset.DatasetError, match=message):
        dataset.read(str(folder))
    ownership.refuse_others(str(folder))


def test_json_keeps_its_capitals(tmp_path):
    finish(tmp_path)
    (tmp_path / schema.INFO_FILE).write_text("{x")
    refused(tmp_path, r"dataset_info\.json is damaged: JSON is malformed: .*")


def test_a_missing_info_is_named(tmp_path):
    finish(tmp_path)
    (tmp_path / schema.INFO_FILE).unlink()
    refused(tmp_path, r"dataset_info\.json is missing")


@pytest.mark.parametrize("name", [schema.INFO_FILE, schema.MARKER_FILE])
def test_bytes_that_are_no_text_are_named(tmp_path, monkeypatch, name):
    finish(tmp_path)
    (tmp_path / name).write_bytes(b"\xff\xfe{")
    with pytest.raises(dataset.DatasetError, match=rf"{tmp_path}/{name} is damaged"):
        dataset.read(str(tmp_path))

    class Store:
        """The same folder as a store."""

        def read(self, path, limit):
            return pathlib.Path(path.removeprefix("store://")).read_bytes()[:limit]

        def exists(self, path):
            return pathlib.Path(path.removeprefix("store://")).exists()

    monkeypatch.setattr(objects, "_reader", Store())
    with pytest.raises(dataset.DatasetError, match=rf"store://{tmp_path}/{name} is damaged"):
        dataset.read(f"store://{tmp_path}")


def test_another_version_of_the_schema_is_refused(tmp_path):
    finish(tmp_path, msgspec.structs.replace(INFO, schema_version=99))
    refused(tmp_path, "the dataset has schema version 99, this program reads .*")


def test_differences_are_named():
    new = {**INFO.config, "seed": 1, "level": "raw"}
    assert dataset.differences(INFO.config, dict(INFO.config)) == []
    assert dataset.differences(INFO.config, new) == ["level: not set, now raw", "seed: 0, now 1"]


def test_what_older_datasets_do_not_name_is_what_they_were_made_with():
    new = {**INFO.config, "max_seconds": 600.0}
    assert dataset.differences(INFO.config, new) == []
    shorter = {**new, "max_seconds": 9.0}
    assert dataset.differences(INFO.config, shorter) == ["max_seconds: 600.0, now 9.0"]


def test_older_datasets_have_the_features_of_the_first_schema(monkeypatch):
    table = utterance_table.UtteranceTable.of([])
    wanted = job_settings.config(job_settings.Settings(), table)
    assert "features" in wanted
    old = {name: value for name, value in wanted.items() if name != "features"}
    # This fails when a feature is added, since older datasets are then different.
    assert dataset.differences(old, wanted) == []
    new = schema.Feature("pitch", "float", (), None, "Hz", "")
    monkeypatch.setattr(schema, "MIXTURE_FEATURES", (*schema.MIXTURE_FEATURES, new))
    (difference,) = dataset.differences(old, job_settings.config(job_settings.Settings(), table))
    assert difference.startswith("features: ")


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_the_digest_of_a_corpus_is_that_of_its_whole_table(monkeypatch, count):
    monkeypatch.setattr(columns, "CHUNK", 2)
    utterances = [corpus.Utterance(f"ü{n}", f"/x/{n}", f's"{n}', "f") for n in range(count)]
    text = json.dumps([[u.id, u.speaker, u.sex, u.split] for u in utterances])
    table = utterance_table.UtteranceTable.of(utterances)
    found = job_settings.config(job_settings.Settings(), table)["corpus"]
    assert found == hashlib.sha256(text.encode()).hexdigest()


def test_where_the_recordings_lie_is_no_difference():
    old = {**INFO.config, "input_dir": ["/a"], "corpus": "1"}
    new = {**old, "input_dir": ["/b"], "manifest": []}
    assert dataset.differences(old, new) == []
    assert dataset.moved(old, new)
    assert not dataset.moved(old, {**old, "seed": 5})
    assert dataset.differences(old, {**new, "corpus": "2"}) == ["corpus: 1, now 2"]


def test_only_our_own_leftovers_are_removed(tmp_path):
    keep = ["train-00000-of-00002.tfrecord", "train-00000-of-00002.tfrecord.json"]
    # The last two are of other programs, although they look like ours.
    others = [
        "notes.txt",
        "holiday.tfrecord",
        "train-00003-of-00002.tfrecord",
        f".{'0' * 32}.tmp.notes.txt",
    ]
    alone = "train-00000-of-00008.tfrecord"
    stale = ["valid-00007-of-00008.tfrecord", "valid-00007-of-00008.tfrecord.json"]
    temporary = [f".{'0' * 32}.tmp.{name}" for name in (*keep, "mixtures.csv", "index.csv")]
    for folder in (tmp_path, tmp_path / "utterances"):
        folder.mkdir(exist_ok=True)
        for name in (*keep, *others, alone, *stale, *temporary):
            (folder / name).write_text("x")
    (tmp_path / "index.csv").write_text("x")
    (tmp_path / "utterances" / "index.csv").write_text("x")

    def left(folder):
        return sorted(p.name for p in folder.iterdir() if p.is_file())

    dataset.remove_leftovers(str(tmp_path))
    whole = sorted([*keep, *others, *stale, "index.csv"])
    assert left(tmp_path) == left(tmp_path / "utterances") == whole
    dataset.remove_leftovers(str(tmp_path), [keep[0], f"utterances/{keep[0]}"])
    assert left(tmp_path) == sorted([*keep, *others, "index.csv"])
    # The index of the shards that are kept is replaced in one piece.
    assert left(tmp_path / "utterances") == sorted([*keep, *others, "index.csv"])
    dataset.remove_leftovers(str(tmp_path), [])
    assert left(tmp_path) == sorted([*others, "index.csv"])
    assert left(tmp_path / "utterances") == sorted(others)
    for name in others:
        (tmp_path / "utterances" / name).unlink()
    dataset.remove_leftovers(str(tmp_path), [])
    assert not (tmp_path / "utterances").exists()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    program = textwrap.dedent(
        f"""
        import sys
        from pipeline.dataset import dataset, ownership
        with dataset.lock({str(tmp_path)!r}):
            print("locked", flush=True)
            sys.stdin.read()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def enter(folder):
    with dataset.lock(str(folder)):
        return sorted(os.listdir(folder))


def test_a_second_job_is_refused(tmp_path, holder):
    with pytest.raises(dataset.DatasetError, match=rf"another job \(process {holder.pid}\)"):
        enter(tmp_path)
    holder.communicate()
    assert enter(tmp_path) == [file_names.LOCK]
    assert os.listdir(tmp_path) == []


def test_the_lock_dies_with_its_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / file_names.LOCK).exists()
    assert enter(tmp_path) == [file_names.LOCK]


def test_the_lock_makes_the_folder(tmp_path):
    assert enter(tmp_path / "a" / "b") == [file_names.LOCK]
