"""A wrong --output_dir never deletes a user's files, and a killed job recognises its own."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap

import pytest
import soundfile

from pipeline import errors, job, schema
from pipeline.beam import transforms
from pipeline.dataset import dataset, inspection_cache, ownership
from pipeline.io import atomic

SHARD = "train-00005-of-00010.tfrecord"
SIDECAR = json.dumps({"schema_version": 1, "plan_digest": "ab", "shard": {"name": SHARD}})
INFO = json.dumps({"schema_version": 0, "plan_digest": "ab", "splits": {}})


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fill(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({SHARD: "theirs"}, SHARD),
        ({SHARD: "theirs", f"{SHARD}.json": "{}"}, SHARD),
        ({SHARD: "theirs", f"{SHARD}.json": "damaged"}, SHARD),
        ({f"{SHARD}.json": '{"shard": 5}'}, f"{SHARD}.json"),
        ({f"utterances/{SHARD}": "theirs"}, f"utterances/{SHARD}"),
        ({"utterances/index.csv": "theirs"}, "utterances/index.csv"),
        # Our files beside others, as after a first job in the same folder.
        ({SHARD: "", f"{SHARD}.json": SIDECAR, "test-00000-of-00001.tfrecord": "theirs"}, "test-"),
        # TensorFlow Datasets uses this name for its info, Spark this marker for its folders.
        ({"dataset_info.json": '{"splits": [], "name": "mnist"}'}, "dataset_info.json"),
        ({"_SUCCESS": ""}, "_SUCCESS"),
        ({"rejected.csv": "who,when\n"}, "rejected.csv"),
        ({"_work/thesis.tex": "theirs"}, "_work/thesis.tex"),
        ({"_work/a/statistics.json": "theirs"}, "_work/a/statistics.json"),
        ({"_work/utterances.jsonl": "", "_work/thesis.tex": "theirs"}, "_work/thesis.tex"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_others_wrote_is_left_alone(tmp_path, corpus_folder, files, named, overwrite):
    out = tmp_path / "out"
    fill(out, {**files, "notes.txt": "theirs"})
    before = content(out)
    settings = job.Settings((str(corpus_folder),), output_dir=str(out), overwrite=overwrite)
    with pytest.raises(errors.UserError, match=r"out: ") as caught:
        job.run(settings, say=lambda _: None)
    if overwrite or "_SUCCESS" not in files:
        assert named in str(caught.value)
        assert "choose another --output_dir" in str(caught.value)
    assert content(out) == before


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"notes.txt": "theirs", "model.tfrecord": "theirs"},
        {SHARD: "", f"{SHARD}.json": SIDECAR, "mixtures.csv": ""},
        {f"{SHARD}.json": SIDECAR},
        {SHARD: "", "dataset_info.json": INFO},
        {SHARD: "", "_work/utterances.jsonl": ""},
        {SHARD: "", f"utterances/{SHARD}": "", f"_work/utterances/{SHARD}.plan": ""},
        {"rejected.csv": "path,reason\na.wav,silent\n"},
    ],
)
def test_what_jobs_leave_behind_is_theirs_to_go_on_with(tmp_path, files):
    fill(tmp_path, files)
    (tmp_path / "_work").mkdir(exist_ok=True)
    ownership.refuse_others(str(tmp_path))


def test_a_shard_without_its_side_car_does_not_outlive_a_failed_job(tmp_path):
    other = "valid-00000-of-00001.tfrecord"
    fill(tmp_path, {SHARD: "", f"{SHARD}.json": SIDECAR, other: "", f"utterances/{other}": ""})
    dataset.remove_leftovers(str(tmp_path))
    assert set(map(str, content(tmp_path))) == {SHARD, f"{SHARD}.json"}


@pytest.fixture(scope="module")
def small(tmp_path_factory, voice):
    """The smallest possible corpus."""
    folder = tmp_path_factory.mktemp("small")
    for speaker in "ab":
        (folder / speaker).mkdir()
        soundfile.write(folder / speaker / "1.wav", voice(ord(speaker), 1.2, 8000), 8000)
    return folder


def settings(corpus, out, overwrite=False):
    return job.Settings(
        (str(corpus),), output_dir=str(out), valid_fraction=0.0, num_shards=1, overwrite=overwrite,
        masks=("ibm",), utterances=overwrite,
    )  # fmt: skip


def test_everything_in_a_work_folder_is_known(small, tmp_path, monkeypatch):
    seen = set()
    remove = atomic.remove_folder

    def look_and_remove(path):
        seen.update(ownership._in_work(os.path.dirname(path)))
        remove(path)

    monkeypatch.setattr(atomic, "remove_folder", look_and_remove)
    clean = dataclasses.replace(settings(small, tmp_path), utterances=True)
    job.run(clean, say=lambda _: None)
    assert {name for name in seen if not ownership.is_of_work(name)} == set()
    assert any(name.startswith(inspection_cache.PREFIX) for name in seen)
    assert {transforms.STATISTICS_FILE, transforms.INSPECTED, transforms.WRITTEN} <= seen
    assert "utterances/train-00000-of-00001.tfrecord.plan" in seen


# Runs jobs in forks, and kills each just before a different operation on its folder.
KILLED = """
    import os, pathlib, shutil, sys
    from pipeline import job; from pipeline.dataset import ownership
    from pipeline.beam import runners, transforms  # Before the first fork.

    corpus, base, overwrite = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] == "True"
    settings = dict(
        input_dir=(corpus,), valid_fraction=0.0, num_shards=1, masks=("ibm",), overwrite=overwrite,
        utterances=overwrite,
    )

    def count(name, module, limit):
        original = getattr(module, name)
        def counted(*arguments, **more):
            if "_work/" not in str(arguments[0]) and not more.get("dir_fd"):
                done.append(name)
            if len(done) == limit:
                os._exit(9)
            return original(*arguments, **more)
        setattr(module, name, counted)

    for limit in range(1, 200, 6 if overwrite else 1):
        out = base / str(limit)
        if overwrite:
            shutil.copytree(base / "finished", out)
        child = os.fork()
        if not child:
            done = []
            count("replace", os, limit)
            count("unlink", os, limit)
            count("rmtree", shutil, limit)
            job.run(job.Settings(output_dir=str(out), **settings), say=lambda _: None)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9), code
        ownership.refuse_others(str(out))
        if code == 0:
            break
"""


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_job_that_is_killed_anywhere_finds_its_folder_its_own(small, tmp_path, overwrite):
    job.run(settings(small, tmp_path / "finished"), say=lambda _: None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), small, tmp_path, str(overwrite)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = content(tmp_path / "finished")
    del expected[next(path for path in expected if path.name == schema.INFO_FILE)]
    killed = sorted((p for p in tmp_path.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    assert len(killed) > 2
    # The last one was not interrupted.
    assert dataset.is_whole(str(killed[-1]))
    orphans = [
        path
        for path in killed
        if any(not shard.with_name(f"{shard.name}.json").exists() for shard in path.glob("*rd"))
    ]
    assert orphans or overwrite, "none was killed between a shard and its side-car"
    for path in orphans[:1] or killed[:1]:
        job.run(settings(small, path, overwrite), say=lambda _: None)
        again = content(path)
        assert {name: again[name] for name in expected} == expected
