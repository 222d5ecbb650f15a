"""Shards of clean utterances, read by TensorFlow and by np.memmap through the index."""

import csv
import dataclasses
import hashlib
import io

import numpy as np
import pytest
import soundfile
import soxr
import tensorflow as tf

from pipeline import errors, inspection, schema
from pipeline.corpora import corpus
from pipeline.dataset import shards as shards_lib
from pipeline.dataset import utterance_shards
from pipeline.io import stored_json

RATE = 8000


@pytest.fixture(scope="module")
def facts(tmp_path_factory, voice):
    """Facts of a speaker's recordings, with names that a CSV has to quote, at two rates."""
    folder = tmp_path_factory.mktemp("recordings")
    utterances = []
    for number, name in enumerate(['a, "b"', "line\nbreak", "ünï", "plain", "e"]):
        path = folder / f"{number}.wav"
        rate = (8000, 16000)[number % 2]
        soundfile.write(path, voice(number, 1 + 0.3 * number, rate), rate)
        utterances.append(corpus.Utterance(name, str(path), f"s, {number % 2}", "fm"[number % 2]))
    return [inspection.inspect(utterance, RATE) for utterance in utterances]


def make_plans(facts, num_shards=1, seed=0):
    return utterance_shards.make_plans(facts, sample_rate=RATE, num_shards=num_shards, seed=seed)


def read(path):
    """Returns the records, parsed by TensorFlow and decoded by the schema."""
    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        lists = {n: getattr(f, f.WhichOneof("kind")).value for n, f in feature.items()}
        assert set(lists) == {f.name for f in schema.UTTERANCE_FEATURES}
        sizes = {"N": lists["num_samples"][0]}
        found.append({f.name: f.decode(lists[f.name], sizes) for f in schema.UTTERANCE_FEATURES})
    return found


def test_records_hold_whole_recordings_and_the_index_finds_them(tmp_path, facts):
    shards = make_plans(facts, num_shards=2)
    sidecars = [shards_lib.write(shard, str(tmp_path)) for shard in shards]
    rows = list(csv.DictReader(io.StringIO(utterance_shards.index_csv(reversed(sidecars)))))
    assert tuple(rows[0]) == schema.UTTERANCES_INDEX_COLUMNS
    paths = {fact.utterance.id: fact.utterance.path for fact in facts}
    records = [
        (str(shard.name), record)
        for shard in shards
        for record in read(tmp_path / "utterances" / str(shard.name))
    ]
    assert sorted(record["utterance_id"] for _, record in records) == sorted(paths)
    for row, (shard, record) in zip(rows, records, strict=True):
        samples, rate = soundfile.read(paths[record["utterance_id"]], dtype="float32")
        expected = soxr.resample(samples, rate, RATE, quality="HQ") * 32768
        assert record["samples"].shape == expected.shape == (record["num_samples"],)
        assert np.abs(record["samples"] - expected).max() <= 0.51
        assert record["sample_rate"] == RATE
        assert {name: row[name] for name in ("utterance_id", "speaker_id", "sex")} == {
            name: record[name] for name in ("utterance_id", "speaker_id", "sex")
        }
        assert row["shard"] == shard
        assert row["active_level_db"] == f"{record['active_level_db']:.2f}"
        mapped = np.memmap(
            tmp_path / "utterances" / shard, "<i2", "r",
            int(row["offset"]), (int(row["num_samples"]),),
        )  # fmt: skip
        np.testing.assert_array_equal(mapped, record["samples"])


def level_db(codes):
    """Computes the level by its definition, frame by frame."""
    frames = [codes[n : n + 256] / 32768 for n in range(0, len(codes), 256)]
    loudest = max(np.mean(frame**2) for frame in frames)
    active = np.concatenate([f for f in frames if np.mean(f**2) >= loudest * 1e-4])
    return 10 * np.log10(np.mean(active**2))


@pytest.mark.parametrize(
    ("peak", "largest"), [(0.25, 8192), (32767 / 32768, 32767), (1.0, 32767), (3.7, 32767)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_exceeds_full_scale_is_scaled_down_as_a_whole(voice, peak, largest, sign):
    samples = voice(5, 2.0, RATE)
    samples *= np.float32(sign * peak / samples.max())
    samples[samples * sign < -0.9 * peak] = 0  # So that the peak is on one side.
    values = utterance_shards.compute(samples, RATE)
    stored = values["samples"]
    assert stored.dtype == np.int16
    if (sign, peak) == (-1, 1.0):
        largest = 32768  # Which int16 has on this side.
    assert np.abs(stored.astype(int)).max() == largest
    gain = min(1.0, largest / (peak * 32768))
    assert np.abs(stored - samples * 32768.0 * gain).max() <= 0.51
    assert values["active_level_db"] == pytest.approx(level_db(stored), abs=0.0051)
    assert values["num_samples"] == len(samples)


def test_whole_numbers_are_kept_as_they_are():
    codes = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    codes[:2] = -32768, 32767
    values = utterance_shards.compute(codes.astype(np.float32) / 32768, RATE)
    np.testing.assert_array_equal(values["samples"], codes)


def test_what_rounds_to_silence_is_left_out(facts):
    quiet = dataclasses.replace(facts[0], peak=0.5 / 32768)
    (shard,) = make_plans([quiet, *facts[1:]])
    assert {u.id for u in shard.utterances} == {f.utterance.id for f in facts[1:]}
    step = np.full(300, np.nextafter(np.float32(0.5 / 32768), np.float32(1)))
    assert utterance_shards.compute(step, RATE)["samples"].min() == 1


def test_long_recordings_are_cut_and_what_is_then_silent_is_left_out(tmp_path, voice):
    facts = []
    for number, begin in enumerate((0, RATE)):
        samples = voice(number, 3.0, RATE)
        samples[:begin] = 0
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, samples, RATE)
        facts.append(inspection.inspect(corpus.Utterance(str(number), str(path), "s"), RATE))
    (shard,) = utterance_shards.make_plans(
        facts, sample_rate=RATE, num_shards=1, seed=0, max_samples=RATE
    )
    assert {u.num_samples for u in shard.utterances} == {RATE}
    sidecar = shards_lib.write(shard, str(tmp_path))
    assert [entry.utterance_id for entry in sidecar.utterances] == ["0"]
    (record,) = read(tmp_path / shard.path)
    codes, _ = soundfile.read(tmp_path / "0.wav", RATE, dtype="int16")
    np.testing.assert_array_equal(record["samples"], codes)
    assert shards_lib.find(shard, str(tmp_path)) == sidecar


def test_utterances_are_dealt_evenly_in_a_salted_order(facts):
    many = [
        dataclasses.replace(f, utterance=dataclasses.replace(f.utterance, id=f"{n}/{f.peak}"))
        for n in range(7)
        for f in facts
    ]
    shards = make_plans(many, num_shards=8)
    assert [str(s.name) for s in shards] == [f"train-0000{n}-of-00008.tfrecord" for n in range(8)]
    assert [len(s.utterances) for s in shards] == [5, 5, 5, 4, 4, 4, 4, 4]
    order = sorted(
        (f.utterance.id for f in many),
        key=lambda u: hashlib.sha256(f"0/order/{u}".encode()).digest(),
    )
    for number, shard in enumerate(shards):
        assert [u.id for u in shard.utterances] == order[number::8]
    assert make_plans(many[::-1], num_shards=8) == shards
    assert make_plans(many, num_shards=8, seed=1) != shards
    assert len(make_plans(many[:3], num_shards=8)) == 3
    assert make_plans([], num_shards=8) == []


def test_the_digest_covers_what_decides_bytes_and_no_more(facts):
    (shard,) = make_plans(facts)
    stored = stored_json.loads(stored_json.dumps(shard.columns), utterance_shards.Columns)
    assert utterance_shards.ShardPlan.of(stored) == shard
    (made,) = make_plans(facts).columns()
    assert made == stored == shard.columns
    first, *rest = shard.utterances

    def changed(**fields):
        recording = dataclasses.replace(first.recording, **fields)
        utterances = (dataclasses.replace(first, recording=recording), *rest)
        return dataclasses.replace(shard, utterances=utterances).digest != shard.digest

    assert changed(sha256="0" * 64)
    assert changed(speaker="other")
    assert changed(sex="")
    assert not changed(path="/moved")
    assert dataclasses.replace(shard, utterances=(*rest, first)).digest != shard.digest
    assert dataclasses.replace(shard, sample_rate=16000).digest != shard.digest
    other = schema.ShardName("train", 0, 2)
    assert dataclasses.replace(shard, name=other).digest != shard.digest


def test_a_shard_is_a_function_of_its_plan_and_found_again(tmp_path, facts):
    (shard,) = make_plans(facts)
    assert shards_lib.find(shard, str(tmp_path / "a")) is None
    ticks = []
    for name in "ab":
        written = shards_lib.write(shard, str(tmp_path / name), lambda: ticks.append(1))
    assert len(ticks) == 2 * len(facts)
    one, two = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "utterances").iterdir()} for n in "ab"
    )
    assert one == two
    assert set(one) == {str(shard.name), shard.name.sidecar}
    assert written.shard.sha256 == hashlib.sha256(one[str(shard.name)]).hexdigest()
    assert written.shard.bytes == len(one[str(shard.name)])
    assert written.shard.records == len(facts)
    assert make_plans(facts).num_bytes == pytest.approx(written.shard.bytes, rel=0.01)
    for find in (shards_lib.find, shards_lib.read):
        assert find(shard, str(tmp_path / "a")) == written
    other = dataclasses.replace(shard, utterances=shard.utterances[1:])
    assert shards_lib.find(other, str(tmp_path / "a")) is None
    with pytest.raises(errors.UserError, match="of another plan"):
        shards_lib.read(other, str(tmp_path / "a"))


@pytest.mark.parametrize("damage", ["cut", "flip", "sidecar", "version", "upgrade", "garbage"])
def test_what_is_damaged_is_not_found(tmp_path, facts, damage):
    (shard,) = make_plans(facts[:2])
    shards_lib.write(shard, str(tmp_path))
    path = tmp_path / shard.path
    sidecar = path.with_name(shard.name.sidecar)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "flip":
        path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "sidecar":
        sidecar.write_text(sidecar.read_text()[:100])
    elif damage == "version":
        sidecar.write_text(sidecar.read_text().replace('"schema_version":1', '"schema_version":9'))
    elif damage == "upgrade":
        sidecar.write_text(sidecar.read_text().replace('"soxr":"', '"soxr":"9.'))
    else:
        sidecar.write_text("[]")
    assert shards_lib.find(shard, str(tmp_path)) is None


def test_a_recording_that_has_changed_is_named(tmp_path, facts):
    (shard,) = make_plans(facts[:2])
    last = shard.utterances[1]
    changed = dataclasses.replace(last.recording, sha256="0" * 64)
    shard = dataclasses.replace(
        shard, utterances=(shard.utterances[0], dataclasses.replace(last, recording=changed))
    )
    with pytest.raises(errors.UserError, match=r"\.wav: has changed"):
        shards_lib.write(shard, str(tmp_path))
    # No file with the shard's name, and no temporary file.
    assert list((tmp_path / "utterances").iterdir()) == []


def test_an_hour_takes_about_58_megabytes():
    facts = [
        inspection.Facts(
            corpus.Utterance(f"u{n:03d}", "/x/a.wav", "speaker"), 8000 * 4, 0.5, -26.0,
            "0" * 64, 1, RATE,
        )
        for n in range(900)
    ]  # fmt: skip
    assert 57.6e6 < make_plans(facts).num_bytes < 60e6
