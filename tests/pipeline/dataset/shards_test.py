"""A shard read by TensorFlow, compared with recordings from soundfile and SciPy's spectrogram."""

import dataclasses
import hashlib

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
import tensorflow as tf

from pipeline import errors, inspection, plan, schema
from pipeline.corpora import corpus
from pipeline.dataset import mixture_shards, shards

RATE = 8000


@pytest.fixture(scope="module")
def facts(corpus_folder):
    utterances = corpus.read([str(corpus_folder)]).utterances
    return [inspection.inspect(utterance, RATE) for utterance in utterances]


def make_plan(facts, masks=schema.MASKS, **settings):
    mixtures = plan.make(
        facts, {f.utterance.speaker: "train" for f in facts}, plan.Settings(**settings)
    )
    (shard,) = mixture_shards.make_plans(
        mixtures, sample_rate=RATE, masks=masks, num_shards=1, seed=0
    )
    return shard


def read(folder, shard):
    """Returns the records, parsed by TensorFlow and decoded by the schema."""
    found = []
    for record in tf.data.TFRecordDataset(str(folder / str(shard.name))).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        lists = {n: getattr(f, f.WhichOneof("kind")).value for n, f in feature.items()}
        assert set(lists) == {f.name for f in schema.mixture_features(shard.masks)}
        found.append(schema.decode(schema.mixture_features(shard.masks), lists))
    return found


def recording(shard, utterance):
    """Returns a recording at the dataset's rate, computed independently."""
    samples, rate = soundfile.read(shard.recordings[utterance].path, dtype="float32")
    return soxr.resample(samples, rate, RATE, quality="HQ")


def reference_stft(signal):
    return scipy.signal.stft(signal, window="hann", nperseg=256, noverlap=192)[2].T


@pytest.mark.parametrize("settings", [{}, {"length": "max"}, {"num_sources": 3}, {"level": "raw"}])
def test_records_hold_what_the_plan_says(tmp_path, facts, settings):
    shard = make_plan(facts, **settings)
    sidecar = shards.write(shard, str(tmp_path))
    records = read(tmp_path, shard)
    assert [r["mixture_id"] for r in records] == [m.id for m in shard.mixtures]
    assert sidecar.shard.records == len(facts)
    for record, mixture in zip(records, shard.mixtures, strict=True):
        assert record["utterance_ids"] == list(mixture.utterance_ids)
        assert record["speaker_ids"] == list(mixture.speakers)
        np.testing.assert_allclose(record["gains_db"], mixture.gains_db, rtol=1e-6)
        assert record["sources"].shape == (len(mixture.speakers), mixture.num_samples)
        for source, utterance, gain in zip(
            record["sources"], mixture.utterance_ids, mixture.gains_db, strict=True
        ):
            expected = recording(shard, utterance)[: mixture.num_samples] * 10 ** (gain / 20)
            expected = np.pad(expected, (0, mixture.num_samples - len(expected))) * 32768
            # Within half a step, and a little for float32.
            assert np.abs(source - expected).max() <= 0.51


def test_features_are_those_of_the_stored_sources(tmp_path, facts):
    shard = make_plan(facts)
    shards.write(shard, str(tmp_path))
    for record in read(tmp_path, shard)[:4]:
        voices = record["sources"] / 32768
        mixture = reference_stft(voices.sum(axis=0))
        first, second = map(reference_stft, voices)
        log_magnitude = np.log10(np.maximum(np.abs(mixture), 1e-7))
        # float16 has a precision of four digits.
        np.testing.assert_allclose(record["log_magnitude"], log_magnitude, rtol=1e-3, atol=2e-3)
        total = np.abs(first) + np.abs(second)
        audible = total > 1e-5
        irm = np.abs(first)[audible] / total[audible]
        np.testing.assert_allclose(record["irm"][0][audible], irm, atol=0.51 / 255)
        apart = np.abs(np.abs(first) - np.abs(second)) > 1e-7
        np.testing.assert_array_equal(
            record["ibm"][0][apart], (np.abs(first) > np.abs(second))[apart]
        )
        audible = np.abs(mixture) > 1e-5
        psm = np.clip((first[audible] / mixture[audible]).real, -1, 2)
        np.testing.assert_allclose(record["psm"][0][audible], psm, atol=0.51 * 3 / 255 + 1e-3)
        for activity, voice in zip(record["voice_activity"], (first, second), strict=True):
            power = 10 * np.log10(np.maximum((np.abs(voice) ** 2).sum(axis=1), 1e-30))
            clear = np.abs(power - (power.max() - 40)) > 0.01
            np.testing.assert_array_equal(activity[clear], (power > power.max() - 40)[clear])


def test_the_mixture_is_the_integer_sum(facts):
    shard = make_plan(facts)
    for mixture in shard.mixtures:
        sources = mixture_shards.mix(mixture, shard.recordings, RATE)
        total = sources.astype(np.int64).sum(axis=0)
        assert np.abs(total).max() < 32768
        np.testing.assert_array_equal(mixture_shards.mixed(sources) * 32768, total)


def test_only_the_masks_asked_for_are_stored(tmp_path, facts):
    shard = make_plan(facts, masks=("irm",))
    shards.write(shard, str(tmp_path))
    record = read(tmp_path, shard)[0]
    assert "irm" in record
    assert not {"ibm", "psm"} & set(record)


def test_the_size_of_a_second(tmp_path, facts):
    sidecar = shards.write(make_plan(facts), str(tmp_path))
    assert 90_000 < sidecar.shard.bytes / (sidecar.samples / RATE) < 105_000


def test_a_shard_is_a_function_of_its_plan(tmp_path, facts):
    shard = make_plan(facts)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shards.write(shard, str(tmp_path / name))
    for name in (str(shard.name), shard.name.sidecar):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_sidecar_describes_the_file(tmp_path, facts):
    shard = make_plan(facts)
    written = shards.write(shard, str(tmp_path))
    sidecar = shards.read(shard, str(tmp_path))
    assert sidecar == written
    data = (tmp_path / str(shard.name)).read_bytes()
    assert sidecar.shard.bytes == len(data)
    assert sidecar.shard.sha256 == hashlib.sha256(data).hexdigest()
    assert sidecar.plan_digest == shard.digest
    records = read(tmp_path, shard)
    assert sidecar.samples == sum(r["num_samples"] for r in records)
    assert sidecar.frames == sum(r["num_frames"] for r in records)
    values = np.concatenate([r["log_magnitude"] for r in records]).astype(np.float16)
    codes, counts = np.unique(values.view(np.uint16), return_counts=True)
    found = sidecar.log_magnitude_codes.to_array()
    np.testing.assert_array_equal(np.flatnonzero(found), codes)
    np.testing.assert_array_equal(found[codes], counts)


def test_the_level_is_the_active_level_of_the_mixtures(tmp_path, facts):
    shard = make_plan(facts)
    sidecar = shards.write(shard, str(tmp_path))
    levels = []
    for record in read(tmp_path, shard):
        mixture = record["sources"].sum(axis=0) / 32768
        power = [np.mean(mixture[n : n + 256] ** 2) for n in range(0, mixture.size, 256)]
        sizes = [mixture[n : n + 256].size for n in range(0, mixture.size, 256)]
        active = np.array(power) >= max(power) * 1e-4
        levels.append(
            10 * np.log10(np.average(np.array(power)[active], weights=np.array(sizes)[active]))
        )
    assert sidecar.active_level_mdb / len(levels) == pytest.approx(1000 * np.mean(levels), abs=0.5)


def test_what_is_whole_is_found(tmp_path, facts):
    shard = make_plan(facts)
    assert shards.find(shard, str(tmp_path)) is None
    written = shards.write(shard, str(tmp_path))
    assert shards.find(shard, str(tmp_path)) == written
    other = dataclasses.replace(shard, mixtures=shard.mixtures[1:])
    assert shards.find(other, str(tmp_path)) is None


@pytest.mark.parametrize(
    "damage", ["cut", "flip", "remove", "sidecar", "version", "upgrade", "garbage"]
)
def test_what_is_damaged_is_not(tmp_path, facts, damage):
    shard = make_plan(facts)
    shards.write(shard, str(tmp_path))
    path, sidecar = tmp_path / str(shard.name), tmp_path / shard.name.sidecar
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-1])
    elif damage == "flip":
        path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "remove":
        path.unlink()
    elif damage == "sidecar":
        sidecar.write_text(sidecar.read_text()[:100])
    elif damage == "version":
        sidecar.write_text(sidecar.read_text().replace('"schema_version":1', '"schema_version":9'))
    elif damage == "upgrade":
        sidecar.write_text(sidecar.read_text().replace('"soxr":"', '"soxr":"9.'))
    else:
        sidecar.write_text("[]")
    assert shards.find(shard, str(tmp_path)) is None


def test_files_are_compared_with_their_sidecars(tmp_path, facts):
    shard = make_plan(facts)
    path = tmp_path / str(shard.name)
    infos = {str(path): shards.write(shard, str(tmp_path)).shard}
    shards.check_files(infos, contents=True)
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    shards.check_files(infos, contents=False)
    with pytest.raises(errors.UserError, match=rf"{path.name}: is not what the JSON beside it"):
        shards.check_files(infos, contents=True)
    path.write_bytes(data[:-1])
    with pytest.raises(errors.UserError, match=rf"{path.name}: is not what the JSON beside it"):
        shards.check_files(infos, contents=False)


def test_a_voice_that_is_hardly_there_is_dropped_and_counted(tmp_path, voice):
    folder = tmp_path / "corpus"
    short = np.zeros(32000, np.float32)
    short[:6000] = voice(1, 1.0)[:6000]  # 0.2 s of sound
    for speaker, samples in (("a", voice(2, 2.0)), ("b", short), ("c", voice(3, 2.0))):
        (folder / speaker).mkdir(parents=True)
        soundfile.write(folder / speaker / "1.wav", samples, 16000)
    utterances = corpus.read([str(folder)]).utterances
    shard = make_plan([inspection.inspect(u, RATE) for u in utterances], mixtures_per_utterance=4)
    sidecar = shards.write(shard, str(tmp_path))
    with_b = [m.id for m in shard.mixtures if "b/1" in m.utterance_ids]
    assert 4 <= len(with_b) < 12
    assert list(sidecar.dropped) == with_b
    kept = [r["mixture_id"] for r in read(tmp_path, shard)]
    assert kept == [m.id for m in shard.mixtures if m.id not in with_b]
    assert sidecar.shard.records == len(kept)


def test_a_recording_that_has_changed_is_named(tmp_path, voice):
    for seed, speaker in enumerate("ab", 300):
        (tmp_path / "corpus" / speaker).mkdir(parents=True)
        soundfile.write(tmp_path / "corpus" / speaker / "1.wav", voice(seed, 2.0), 16000)
    utterances = corpus.read([str(tmp_path / "corpus")]).utterances
    shard = make_plan([inspection.inspect(u, RATE) for u in utterances])
    soundfile.write(tmp_path / "corpus" / "b" / "1.wav", voice(302, 2.0), 16000)
    with pytest.raises(errors.UserError, match=r"b/1\.wav: has changed"):
        shards.write(shard, str(tmp_path))
    # No file with the shard's name, and no temporary file.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]


def test_recordings_at_the_datasets_rate_are_cut_exactly(tmp_path, voice):
    for number, speaker in enumerate("ab"):
        (tmp_path / speaker).mkdir()
        samples = np.stack([voice(number, 1 + number, RATE), voice(9, 1 + number, RATE)], axis=1)
        soundfile.write(tmp_path / speaker / "1.flac", samples, RATE)
    utterances = corpus.read([str(tmp_path)]).utterances
    shard = make_plan([inspection.inspect(u, RATE) for u in utterances], level="raw")
    sources = mixture_shards.mix(shard.mixtures[0], shard.recordings, RATE)
    assert sources.shape == (2, RATE)
    for source, speaker in zip(sources, "ab", strict=True):
        samples, _ = soundfile.read(tmp_path / speaker / "1.flac", dtype="int16")
        mean = samples[:RATE].mean(axis=1)
        assert np.abs(source - mean).max() <= 0.5
