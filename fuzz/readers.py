"""The readers to fuzz: each takes any bytes and may reject them only in its documented way.

Accepted input is checked by a round trip or a bound. Any other exception is a bug.
"""

import contextlib
import csv
import io
import itertools
import math
import os
import tempfile
from collections.abc import Callable, Iterator

import numpy as np

from pipeline import errors, schema
from pipeline.audio import decoding, limits
from pipeline.corpora import corpus, mixture_list
from pipeline.dataset import dataset, mixture_shards, tfrecord, utterance_shards
from pipeline.io import stored_json
from trainer.data import clean_utterances


def recording(data: bytes) -> None:
    """Any recording: finite samples at a plausible rate, or a reason in one line."""
    with _refusing(errors.UserError):
        samples, rate = decoding.decode(data)
        assert samples.size
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert limits.MIN_RATE <= rate <= limits.MAX_RATE


def sphere(data: bytes) -> None:
    """A SPHERE file: if accepted, it has the number of samples given by a plain header parse."""
    recording(data)
    if data.startswith(b"NIST_1A"):
        with _refusing(errors.UserError):
            samples, _ = decoding.decode(data)
            header = data[: int(data[8:16])].split(b"end_head")[0]
            counts = [line.split()[2] for line in header.split(b"\n") if _is_count(line)]
            assert len(samples) == int(counts[0].split(b".")[0])


def _is_count(line: bytes) -> bool:
    return line.split()[:1] == [b"sample_count"]


def manifest(data: bytes) -> None:
    """A manifest: paths stay in its folder, ids are unique, and it survives a rewrite."""
    with _refusing(errors.UserError), tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        path = os.path.join(folder, "manifest.csv")
        with open(path, "wb") as file:
            file.write(data)
        table = corpus.read_manifest(path)
        assert len({u.id for u in table.utterances}) == len(table.utterances)
        for utterance in table.utterances:
            assert os.path.realpath(utterance.path).startswith(os.path.realpath(folder) + os.sep)
            assert utterance.speaker
            assert utterance.split in ("", *schema.SPLITS)
        assert all(rejection.reason for rejection in table.rejections)
        rows = [(u.path, u.speaker, u.sex, u.split) for u in table.utterances]
        with open(path, "w", encoding="utf-8", newline="") as text:
            csv.writer(text).writerows([("path", "speaker", "sex", "split"), *rows])
        if rows:
            assert corpus.read_manifest(path).utterances == table.utterances


def mixtures(data: bytes) -> None:
    """A list of mixtures: it survives a round trip."""
    with _refusing(errors.UserError, UnicodeDecodeError):
        found = mixture_list.from_csv(data.decode("utf-8"), "list.csv")
        assert mixture_list.from_csv(mixture_list.to_csv(found), "list.csv") == found
        assert all(math.isfinite(gain) for mixture in found for gain in mixture.gains_db)


def record(data: bytes) -> None:
    """A record of a mixture: its arrays match its sizes and survive re-encoding."""
    with _refusing(ValueError):
        values = schema.decode(schema.MIXTURE_FEATURES, tfrecord.parse(data))
        again = schema.decode(
            schema.MIXTURE_FEATURES, schema.encode(schema.MIXTURE_FEATURES, values)
        )
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(again[name], value)
                assert not math.isnan(schema.num_frames(values["num_samples"]))


def framing(data: bytes) -> None:
    """A file of records: it survives a round trip, and the records found in it are intact."""
    file = io.BytesIO(data)
    rows = list(tfrecord.whole_records(file, len(data)))
    end = 0
    for start, count in rows:
        assert start >= end
        found = list(itertools.islice(tfrecord.read(file, start), count))
        assert len(found) == count
        assert all(data[begin : begin + len(record)] == record for begin, record in found)
        end = found[-1][0] + len(found[-1][1]) + 4
    with _refusing(ValueError):
        found = list(tfrecord.read(file))
        again = io.BytesIO()
        writer = tfrecord.Writer(again)
        assert [writer.write(record) for _, record in found] == [begin for begin, _ in found]
        assert again.getvalue() == data
        assert rows == ([(0, len(found))] if found else [])


def info(data: bytes) -> None:
    """A dataset's info: if accepted, it is usable and survives a round trip."""
    with _refusing(dataset.DatasetError, UnicodeDecodeError):
        found = dataset.DatasetInfo.from_json(data.decode("utf-8"))
        assert found.sample_rate > 0
        assert found.num_sources >= 2
        assert set(found.masks) <= set(schema.MASKS)
        for split in found.splits.values():
            for shard in split.shards:
                schema.ShardName.parse(shard.name)
                assert shard.records >= 0
                assert shard.bytes >= 0
        assert dataset.DatasetInfo.from_json(found.to_json()) == found


def sidecar(data: bytes) -> None:
    """The JSON beside a shard: if accepted, it is usable and survives a round trip."""
    with _refusing(ValueError):
        found = stored_json.loads(data, mixture_shards.Sidecar)
        assert found.log_magnitude_codes.to_array().dtype == np.int64
        assert stored_json.loads(found.to_json(), mixture_shards.Sidecar) == found


def utterance_sidecar(data: bytes) -> None:
    """The JSON beside a shard of clean utterances: as for `sidecar`."""
    with _refusing(ValueError):
        found = stored_json.loads(data, utterance_shards.Sidecar)
        assert stored_json.loads(found.to_json(), utterance_shards.Sidecar) == found
        assert utterance_shards.index_csv([found])


def index(data: bytes) -> None:
    """The index of clean utterances: its lines point into the shards and nowhere else."""
    shard = dataset.ShardInfo(str(_INDEXED), 0, len(_SHARD), "")
    # Make the number of utterances match the number of lines.
    lines = max(0, data.count(b"\n") - 1)
    clean = dataset.UtterancesInfo(lines, 1, 1.0, (shard,), "")
    config = {"sample_rate": 8000, "num_sources": 2, "masks": []}
    about = dataset.DatasetInfo(
        schema.SCHEMA_VERSION, config, {}, None, None, None, "", {}, "", utterances=clean
    )
    with _refusing(errors.UserError), tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        place = os.path.join(folder, schema.UTTERANCES_FOLDER)
        os.mkdir(place)
        for name, content in (
            (str(_INDEXED), _SHARD), (schema.UTTERANCES_INDEX_FILE, data),
        ):  # fmt: skip
            with open(os.path.join(place, name), "wb") as file:
                file.write(content)
        found = clean_utterances.read(folder, about)
        assert len(found.samples) == len(found.levels_db) == lines
        assert np.isfinite(found.levels_db).all()
        assert sorted(np.concatenate([[], *found.by_speaker])) == list(range(lines))
        for samples in found.samples:
            assert samples.dtype == np.dtype("<i2")
            assert samples.size
            assert samples.tobytes() in _SHARD


READERS: dict[str, Callable[[bytes], None]] = {
    "sphere": sphere,
    "recording": recording,
    "manifest": manifest,
    "mixtures": mixtures,
    "record": record,
    "framing": framing,
    "info": info,
    "sidecar": sidecar,
    "utterance_sidecar": utterance_sidecar,
    "index": index,
}
_INDEXED = schema.ShardName("train", 0, 1)
_SHARD = bytes(range(256))
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@contextlib.contextmanager
def _refusing(*expected: type[Exception]) -> Iterator[None]:
    """Allows the expected exceptions; their message must be one line of reasonable length."""
    try:
        yield
    except AssertionError:
        raise
    except expected as error:
        if isinstance(error, errors.UserError):
            text = str(error)
            assert text, "no reason"
            assert len(text) < 1000, text
