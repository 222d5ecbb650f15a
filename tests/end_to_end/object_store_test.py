"""The way of the data through an S3 server on this machine, and `gs://` as far as it goes."""

import datetime
import io
import json
import socket

import pytest
from apache_beam.io import filesystems
from apache_beam.options import pipeline_options

from pipeline.io import object_lock, objects, storage

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")

BUCKET = "voices"
EXPIRED = datetime.timedelta(minutes=5)


@pytest.fixture(scope="module")
def endpoint():
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def environment(endpoint):
    """What a person sets; `AWS_ENDPOINT_URL` is all that differs from Amazon's own store."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }


class Store:
    """The bucket, as another client sees it."""

    def __init__(self, endpoint):
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip
        self.client.create_bucket(Bucket=BUCKET)

    def put(self, name, data):
        self.client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def put_folder(self, name, folder):
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{name}/{path.relative_to(folder)}", path.read_bytes())

    def folder(self, name):
        """Content by name below a folder."""
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/").get("Contents", [])
        get = self.client.get_object
        return {
            item["Key"].removeprefix(f"{name}/"): get(Bucket=BUCKET, Key=item["Key"])["Body"].read()
            for item in found
        }

    def make_old(self, name):
        from moto.s3 import models

        (backend,) = (b["aws"] for b in models.s3_backends.values() if BUCKET in b["aws"].buckets)
        backend.buckets[BUCKET].keys[name].last_modified -= EXPIRED


@pytest.fixture(scope="module")
def store(endpoint):
    return Store(endpoint)


@pytest.fixture(scope="module")
def flags(store, corpus):
    store.put_folder("corpus", corpus.output)
    return (f"--input_dir=s3://{BUCKET}/corpus", f"--output_dir=s3://{BUCKET}/data")


@pytest.fixture(scope="module")
def made(flags, environment, run_command):
    """The command, one worker."""
    done = run_command(
        "pipeline.preprocess", *flags, "--num_shards=2", "--direct_num_workers=1", env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


def local_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same(found, local):
    """The same bytes, but for where the recordings are and when it was done."""
    expected = local_files(local)
    infos = [json.loads(files.pop("dataset_info.json")) for files in (found, expected)]
    assert found == expected
    for info in infos:
        del info["created"], info["config"]["input_dir"]
    assert infos[0] == infos[1]


def refused(done, *words):
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_the_same_bytes_as_locally(made, store, data):
    assert_same(store.folder("data"), data.output)


def test_what_is_done_is_not_done_again(made, flags, environment, run_command):
    done = run_command("pipeline.preprocess", *flags, "--num_shards=2", env=environment)
    assert done.returncode == 0, done.stderr
    assert "already done with the same settings" in done.stdout


def test_a_living_job_keeps_others_off(made, store, flags, environment, run_command):
    before = store.folder("data")
    owner = {"process": 7, "host": "elsewhere", "started": "today"}
    store.put("data/_LOCK.0123", json.dumps(owner))
    done = run_command(
        "pipeline.preprocess", *flags, "--num_shards=2", "--overwrite", env=environment
    )
    refused(done, "another job (process 7 on elsewhere, since today) is writing to this folder")
    after = store.folder("data")
    assert after.pop("_LOCK.0123")
    assert after == before


@pytest.mark.slow
def test_a_dead_jobs_lock_expires_and_worker_processes_write_the_same(
    made, store, data, flags, environment, endpoint, run_command
):
    store.put("data/_LOCK.0123", "{}")
    store.make_old("data/_LOCK.0123")
    store.put("data/_work/utterances.jsonl", "by the dead job")
    # The endpoint as Beam's flag has to reach the workers too.
    by_flag = {**environment, "AWS_ENDPOINT_URL": ""}
    done = run_command(
        "pipeline.preprocess", *flags, "--num_shards=2", "--overwrite", "--direct_num_workers=2",
        f"--s3_endpoint_url={endpoint}", env=by_flag,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(store.folder("data"), data.output)


def test_a_job_that_stood_still_between_look_and_write_gives_way(store, environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    now = 1000.0
    monkeypatch.setattr(object_lock, "_now", lambda: now)
    folder = f"s3://{BUCKET}/slept"
    objects.connect([folder], pipeline_options.PipelineOptions([]))
    late, write, found = object_lock.Lease(folder), objects.write, []

    def sleep_then_write(path, content):
        nonlocal now
        monkeypatch.setattr(objects, "write", write)
        now += EXPIRED.total_seconds()
        store.make_old(f"slept/{late._name}")
        found.append(object_lock.Lease(folder))
        found[0].__enter__()
        assert list(store.folder("slept")) == [found[0]._name]
        write(path, content)

    with late:
        monkeypatch.setattr(objects, "write", sleep_then_write)
        now += object_lock._LATE_SECONDS + 1
        with pytest.raises(object_lock.LostError):
            late.check()
        found[0].check()
        assert list(store.folder("slept")) == [found[0]._name]
    found[0].__exit__(None, None, None)
    assert not store.folder("slept")


def test_a_command_without_a_job_reads_and_writes_objects(store, environment, monkeypatch):
    monkeypatch.setattr(filesystems.FileSystems, "_pipeline_options", None)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    # Beam's uploads fail if they are empty, as those of a shard without mixtures are.
    for content in (b"", b"a", b"content"):
        path = f"s3://{BUCKET}/alone/file"
        objects.write(path, io.BytesIO(content))
        assert storage.read_bytes(path) == content
        assert store.folder("alone") == {"file": content}


def test_nothing_to_read_is_an_error(made, environment, run_command):
    done = run_command(
        "pipeline.preprocess", f"--input_dir=s3://{BUCKET}/nothing", "--dry_run", env=environment
    )
    refused(done, f"s3://{BUCKET}/nothing: no such folder, or nothing in it")


@pytest.fixture(scope="module")
def needs_tensorflow_io():
    """Skips where tensorflow-io does not work, which only another process may find out."""
    import tensorflow as tf

    pytest.importorskip("tensorflow_io")
    if not tf.__version__.startswith("2.17."):
        pytest.skip(f"tensorflow-io does not work with TensorFlow {tf.__version__}")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_tensorflow_io", "made")
def test_the_trainer_reads_the_store(environment, run_command, tmp_path):
    done = run_command(
        "trainer.task", f"--data_dir=s3://{BUCKET}/data", f"--model_dir={tmp_path}/run",
        "--model=ffn", "--units=8", "--layers=1", "--epochs=1", "--batch_size=4",
        "--mixing=static", "--tensorboard=false", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "finished after 1 epochs" in done.stdout
    assert "dB SI-SDR improvement in validation" in done.stdout
    assert (tmp_path / "run" / "best.keras").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("needs_tensorflow_io", "made")
def test_the_trainers_exit_code_is_its_own(environment, run_command, tmp_path):
    done = run_command(
        "trainer.task", f"--data_dir=s3://{BUCKET}/nothing", f"--model_dir={tmp_path}/run",
        env=environment,
    )  # fmt: skip
    refused(done, f"s3://{BUCKET}/nothing: no dataset here", "pipeline.preprocess")
    assert not (tmp_path / "run").exists()


def test_gs_says_what_to_install(run_command, corpus):
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError:
        done = run_command(
            "pipeline.preprocess", f"--input_dir={corpus.output}", "--output_dir=gs://bucket/data"
        )
        refused(done, "gs://bucket", "pip install 'voices-apart[gcp]'")
    else:
        pytest.skip("the packages for gs:// are installed")


def test_gs_goes_the_same_way(run_command, corpus, data, monkeypatch):
    """Needs `pip install '.[gcp]' gcp-storage-emulator`; Google's packages slow every command."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    storage = pytest.importorskip("google.cloud.storage")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        environment = {"STORAGE_EMULATOR_HOST": address}
        done = run_command(
            "pipeline.preprocess", f"--input_dir={corpus.output}",
            f"--output_dir=gs://{BUCKET}/data", "--num_shards=2", "--no_auth", env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        client = storage.Client.create_anonymous_client()
        found = {
            blob.name.removeprefix("data/"): blob.download_as_bytes()
            for blob in client.list_blobs(BUCKET, prefix="data/")
        }
        assert_same(found, data.output)
    finally:
        server.stop()
