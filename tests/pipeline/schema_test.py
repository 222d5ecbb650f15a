"""The record's encodings: round trips, stated tolerances, bytes by hand, damage; file names."""

import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from pipeline import schema

FEATURES = {feature.name: feature for feature in schema.MIXTURE_FEATURES}


def mixture(num_sources=2, num_samples=1000, seed=0):
    generator = np.random.default_rng(seed)
    num_frames = schema.num_frames(num_samples)
    shape = (schema.num_stored_masks(num_sources), num_frames, schema.NUM_BINS)
    return {
        "mixture_id": "train/ä/0",
        "utterance_ids": [f"u{i}" for i in range(num_sources)],
        "speaker_ids": [f"s{i}" for i in range(num_sources)],
        "sexes": (["f", "m", ""] * 2)[:num_sources],
        "gains_db": [float(-3.25 + i) for i in range(num_sources)],
        "sample_rate": 8000,
        "num_samples": num_samples,
        "num_frames": num_frames,
        "num_bins": schema.NUM_BINS,
        "num_sources": num_sources,
        "sources": generator.integers(-32768, 32768, (num_sources, num_samples), np.int16),
        "log_magnitude": generator.uniform(-7, 0.5, shape[1:]).astype(np.float32),
        "ibm": generator.random(shape) < 0.5,
        "irm": generator.random(shape, np.float32),
        "psm": generator.uniform(-1, 2, shape).astype(np.float32),
        "voice_activity": generator.integers(0, 2, (num_sources, num_frames), np.uint8),
    }


@pytest.mark.parametrize(
    ("num_samples", "num_frames"), [(1, 2), (63, 2), (64, 2), (65, 3), (128, 3), (8000, 126)]
)
def test_frames_from_one_sample_on(num_samples, num_frames):
    assert schema.num_frames(num_samples) == num_frames


@pytest.mark.parametrize("num_sources", [2, 3, 5])
@pytest.mark.parametrize("num_samples", [1, 64, 1000])
def test_a_record_comes_back(num_sources, num_samples):
    values = mixture(num_sources, num_samples)
    decoded = schema.decode(schema.MIXTURE_FEATURES, schema.encode(schema.MIXTURE_FEATURES, values))
    assert decoded.keys() == values.keys()
    tolerance = {"irm": 0.5 / 255, "psm": 1.5 / 255, "log_magnitude": 2**-9}
    for name, value in values.items():
        if name in tolerance:
            # Half a step of the code; float16 has 11 bits, so half a step of 4 to 8 is 2^-9.
            np.testing.assert_allclose(decoded[name], value, atol=tolerance[name] + 1e-6, rtol=0)
            assert decoded[name].dtype == np.float32
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(decoded[name], value)
        else:
            assert decoded[name] == value


def test_a_record_survives_a_tf_example():
    values = mixture(3)
    example = tf.train.Example()
    for feature in schema.MIXTURE_FEATURES:
        values_list = getattr(example.features.feature[feature.name], f"{feature.kind}_list")
        values_list.value.extend(feature.encode(values[feature.name]))
    parsed = tf.train.Example.FromString(example.SerializeToString(deterministic=True))
    lists = {
        f.name: getattr(parsed.features.feature[f.name], f"{f.kind}_list").value
        for f in schema.MIXTURE_FEATURES
    }
    decoded = schema.decode(schema.MIXTURE_FEATURES, lists)
    np.testing.assert_array_equal(decoded["sources"], values["sources"])
    np.testing.assert_array_equal(decoded["ibm"], values["ibm"])
    assert decoded["mixture_id"] == values["mixture_id"]
    assert decoded["sexes"] == ["f", "m", ""]


def test_arrays_are_little_endian_in_c_order():
    samples = np.array([[1, -2, 300], [4, 5, -32768]])
    expected = struct.pack("<6h", 1, -2, 300, 4, 5, -32768)
    assert FEATURES["sources"].encode(samples) == [expected]
    assert FEATURES["sources"].encode(samples.astype(">i2")) == [expected]
    assert FEATURES["sources"].encode(np.asfortranarray(samples)) == [expected]
    half = FEATURES["log_magnitude"].encode(np.array([[1.0, -2.5]]))
    assert half == [struct.pack("<2e", 1.0, -2.5)]


def test_bits_lie_from_the_highest_on_over_the_whole_array():
    # One plane of three frames by five bins: 15 bits, in two bytes, the last bit unused.
    bits = np.array([[[1, 0, 0, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]])
    assert FEATURES["ibm"].encode(bits) == [bytes([0b10000001, 0b11111100])]
    sizes = {"K": 1, "T": 3, "F": 5}
    np.testing.assert_array_equal(FEATURES["ibm"].decode([b"\x81\xfc"], sizes), bits)


def test_codes_of_the_ratio_mask():
    values = np.array([[[0, 1, 0.5, 0.499 / 255, 0.501 / 255]]])
    assert FEATURES["irm"].encode(values) == [bytes([0, 255, 128, 0, 1])]


def test_codes_of_the_phase_sensitive_mask_are_clipped():
    values = np.array([[[-1, 2, 0, 0.5, 1, -1000, 1000]]], np.float32)
    codes = FEATURES["psm"].encode(values)[0]
    assert list(codes) == [round((v + 1) * 85 + 1e-9) for v in (-1, 2, 0, 0.5, 1, -1, 2)]
    decoded = FEATURES["psm"].decode([codes], {"K": 1, "T": 1, "F": 7})[0, 0]
    np.testing.assert_allclose(decoded, np.array(list(codes)) * 3 / 255 - 1, atol=1e-6)
    # 0 and 1 have exact codes: the mask of a single voice is restored exactly.
    np.testing.assert_allclose(decoded[[2, 4]], [0, 1], atol=1e-6)


@pytest.mark.parametrize("code", ["irm", "psm"])
def test_every_code_is_a_fixed_point(code):
    codes = bytes(range(256))
    sizes = {"K": 1, "T": 2, "F": 128}
    assert FEATURES[code].encode(FEATURES[code].decode([codes], sizes)) == [codes]


@pytest.mark.parametrize("name", [f.name for f in schema.MIXTURE_FEATURES if f.encoding])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_number_of_bytes_is_an_error(name, change):
    lists = schema.encode(schema.MIXTURE_FEATURES, mixture())
    data = lists[name][0]
    lists[name] = [data[:change] if change < 0 else data + b"\0"]
    with pytest.raises(ValueError, match=f"{name} has {len(data) + change} bytes"):
        schema.decode(schema.MIXTURE_FEATURES, lists)


def test_wrong_numbers_of_values_are_errors():
    lists = schema.encode(schema.MIXTURE_FEATURES, mixture())
    with pytest.raises(ValueError, match="sexes has 1 values, not 2"):
        schema.decode(schema.MIXTURE_FEATURES, {**lists, "sexes": [b"f"]})
    with pytest.raises(ValueError, match="ibm has 2 byte strings"):
        schema.decode(schema.MIXTURE_FEATURES, {**lists, "ibm": lists["ibm"] * 2})
    with pytest.raises(ValueError, match="sources has axes"):
        FEATURES["sources"].encode(np.zeros(5))


def test_an_absent_feature_is_named():
    lists = schema.encode(schema.MIXTURE_FEATURES, mixture())
    del lists["psm"]
    with pytest.raises(ValueError, match="lacks psm"):
        schema.decode(schema.MIXTURE_FEATURES, lists)
    without = schema.mixture_features(["ibm", "irm"])
    assert "psm" not in schema.decode(without, lists)


def test_masks_are_chosen_in_the_schemas_order():
    everything = [f.name for f in schema.mixture_features()]
    assert everything == list(FEATURES)
    chosen = [f.name for f in schema.mixture_features(["psm"])]
    assert set(everything) - set(chosen) == {"ibm", "irm"}
    with pytest.raises(ValueError, match="unknown masks"):
        schema.mixture_features(["imb"])


def test_two_voices_store_one_mask():
    assert [schema.num_stored_masks(s) for s in (2, 3, 4)] == [1, 3, 4]


def test_a_second_of_two_voices_takes_99_kb():
    sizes = {"S": 2, "N": 8000, "T": 126, "F": 129, "K": 1}
    total = sum(f.num_bytes(sizes) for f in schema.MIXTURE_FEATURES if f.encoding)
    assert total == 2 * 2 * 8000 + 126 * 129 * (2 + 1 + 1) + (126 * 129 + 7) // 8 + 2 * 126
    assert total < 105_000


def test_utterances_have_a_record_of_their_own():
    samples = np.arange(-5, 5, dtype=np.int16)
    values = {
        "utterance_id": "u", "speaker_id": "s", "sex": "", "sample_rate": 8000,
        "num_samples": 10, "active_level_db": -26.5, "samples": samples,
    }  # fmt: skip
    lists = schema.encode(schema.UTTERANCE_FEATURES, values)
    decoded = {f.name: f.decode(lists[f.name], {"N": 10}) for f in schema.UTTERANCE_FEATURES}
    np.testing.assert_array_equal(decoded.pop("samples"), samples)
    values.pop("samples")
    assert decoded == values


def test_shards_have_names():
    name = schema.ShardName("train", 3, 8)
    assert str(name) == "train-00003-of-00008.tfrecord"
    assert schema.ShardName.parse(str(name)) == name
    assert name.sidecar.endswith("train-00003-of-00008.tfrecord.json")
    assert [s.index for s in schema.ShardName.of_split("test", 3)] == [0, 1, 2]
    for wrong in (
        "train-00008-of-00008.tfrecord",
        "train-3-of-8.tfrecord",
        "x",
        str(name) + ".tmp",
    ):
        with pytest.raises(ValueError, match="not the name of a shard"):
            schema.ShardName.parse(wrong)


def test_the_table_names_every_feature_once():
    rows = schema.markdown_table(schema.MIXTURE_FEATURES).splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(FEATURES)
    # A bar within a cell (|X|) must be escaped, or the table would have an extra column.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_the_schema_and_the_signal_layer_import_neither_beam_nor_tensorflow():
    program = (
        "import sys; import pipeline.schema, pipeline.features, pipeline.audio.decoding, "
        "pipeline.corpora.corpus, "
        "pipeline.inspection; "
        "print({'apache_beam', 'tensorflow', 'keras', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
