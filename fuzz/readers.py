"""What is fuzzed: each reader takes any bytes, and may refuse them only in the way it documents.

Where bytes are accepted, what came out is held against a round trip or a bound. Whatever else is
raised is a fault.
"""

import contextlib
import csv
import math
import os
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
from google.protobuf import message

from pipeline import (
    audio,
    containers,
    corpus,
    dataset,
    errors,
    mixture_list,
    schema,
    shards,
    tfrecord,
)


def recording(data: bytes) -> None:
    """Any recording: finite samples at a sane rate, or a reason in one line."""
    with _refusing(errors.UserError):
        samples, rate = audio.decode(data)
        assert samples.size
        assert samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert containers.MIN_RATE <= rate <= containers.MAX_RATE


def sphere(data: bytes) -> None:
    """A SPHERE file: what is accepted has as many samples as its header says, by a plain parse."""
    recording(data)
    if data.startswith(b"NIST_1A"):
        with _refusing(errors.UserError):
            samples, _ = audio.decode(data)
            header = data[: int(data[8:16])].split(b"end_head")[0]
            counts = [line.split()[2] for line in header.split(b"\n") if _is_count(line)]
            assert len(samples) == int(counts[0].split(b".")[0])


def _is_count(line: bytes) -> bool:
    return line.split()[:1] == [b"sample_count"]


def manifest(data: bytes) -> None:
    """A manifest: no path leaves its folder, no id comes twice, and it survives being rewritten."""
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
    """A list of mixtures: what is read is what is written."""
    with _refusing(errors.UserError, UnicodeDecodeError):
        found = mixture_list.from_csv(data.decode("utf-8"), "list.csv")
        assert mixture_list.from_csv(mixture_list.to_csv(found), "list.csv") == found
        assert all(math.isfinite(gain) for mixture in found for gain in mixture.gains_db)


def record(data: bytes) -> None:
    """A record of a mixture: its arrays fit its sizes, and survive being encoded again."""
    with _refusing(ValueError, message.DecodeError):
        example = tfrecord._example_class().FromString(data)
        lists = {
            name: list(getattr(feature, kind).value)
            for name, feature in example.features.feature.items()
            if (kind := feature.WhichOneof("kind"))
        }
        values = schema.decode(schema.MIXTURE_FEATURES, lists)
        again = schema.decode(
            schema.MIXTURE_FEATURES, schema.encode(schema.MIXTURE_FEATURES, values)
        )
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(again[name], value)
                assert not math.isnan(schema.num_frames(values["num_samples"]))


def info(data: bytes) -> None:
    """A dataset's info: what is accepted can be used, and is what is written."""
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
    """The JSON beside a shard: likewise."""
    with _refusing(ValueError):
        found = shards.Sidecar.from_json(data.decode("utf-8"))
        assert found.counts.dtype == np.int64
        again = shards.Sidecar.from_json(found.to_json())
        assert again.to_json() == found.to_json()


READERS: dict[str, Callable[[bytes], None]] = {
    "sphere": sphere,
    "recording": recording,
    "manifest": manifest,
    "mixtures": mixtures,
    "record": record,
    "info": info,
    "sidecar": sidecar,
}
_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@contextlib.contextmanager
def _refusing(*expected: type[Exception]) -> Iterator[None]:
    """Lets a reader refuse; what it tells people must be one line of bearable length."""
    try:
        yield
    except AssertionError:
        raise
    except expected as error:
        if isinstance(error, errors.UserError):
            text = str(error)
            assert text, "no reason"
            assert len(text) < 1000, text
