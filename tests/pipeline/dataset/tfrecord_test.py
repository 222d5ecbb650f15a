"""Framing and messages compared with TensorFlow's own."""

import hashlib
import io
import struct

import numpy as np
import pytest
import tensorflow as tf

from pipeline.dataset import tfrecord

LISTS = {
    "names": ("bytes", [b"one", "zw\u00f6lf".encode()]),
    "array": ("bytes", [bytes(range(256)) * 1000]),
    "gains": ("float", [1.5, -0.1, 0.0]),
    "size": ("int64", [-(2**40)]),
    "empty": ("int64", []),
    "another": ("float", [2.0]),
}


def tensorflow_example():
    lists = {
        "bytes": lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v)),
        "float": lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v)),
        "int64": lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v)),
    }
    feature = {name: lists[kind](values) for name, (kind, values) in LISTS.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature))


def test_messages_are_tensorflows_byte_for_byte():
    expected = tensorflow_example().SerializeToString(deterministic=True)
    # An empty list has no values; TensorFlow's constructor above does the same.
    assert tf.train.Example.FromString(tfrecord.example_bytes(LISTS)) == tensorflow_example()
    assert tfrecord.example_bytes(LISTS) == expected


def test_a_byte_string_lies_where_it_is_said_to():
    record = tensorflow_example().SerializeToString(deterministic=True)
    offset = tfrecord.bytes_offset(record, "array")
    (array,) = LISTS["array"][1]
    # It contains every byte in order, so that it can begin at one place only.
    assert record.count(array) == 1
    assert offset == record.index(array)
    with pytest.raises(KeyError, match="absent"):
        tfrecord.bytes_offset(record, "absent")


def test_values_lie_where_they_are_said_to():
    lists = {**LISTS, "count": ("int64", [300, 5])}
    record = tfrecord.example_bytes(lists)
    spans = tfrecord.spans(record)
    # A feature without values has no span.
    assert spans.keys() == lists.keys() - {"empty"}
    for name in ("names", "array"):
        begin, end = spans[name]
        assert record[begin:end] == lists[name][1][0]
    begin, end = spans["gains"]
    assert np.frombuffer(record[begin:end], "<f4").tolist() == pytest.approx([1.5, -0.1, 0.0])
    assert tfrecord.integer(record, spans["count"]) == 300
    for damaged in (b"\xff", record[:-3], b"\x0a\x05ab"):
        with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
            tfrecord.spans(damaged)


def test_files_are_tensorflows_byte_for_byte(tmp_path):
    records = [b"", b"a", bytes(100_000), tfrecord.example_bytes(LISTS)]
    with open(tmp_path / "ours", "wb") as file:
        writer = tfrecord.Writer(file)
        offsets = [writer.write(record) for record in records]
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as theirs:
        for record in records:
            theirs.write(record)
    data = (tmp_path / "ours").read_bytes()
    assert data == (tmp_path / "theirs").read_bytes()
    for offset, record in zip(offsets, records, strict=True):
        assert data[offset:].startswith(record)
        assert data[offset - 12 :].startswith(len(record).to_bytes(8, "little"))
    assert (writer.records, writer.bytes) == (len(records), len(data))
    assert writer.sha256 == hashlib.sha256(data).hexdigest()


SIZES = (3000, 1, 70000, 500, 0, 4000)


def damaged(tmp_path, *flips, cut=None):
    """Returns the result of `whole_records` for a file with changed bytes, or cut short."""
    random = np.random.default_rng(0)
    records = [random.integers(0, 3, size, np.uint8).tobytes() for size in SIZES]
    path = tmp_path / "x.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    data = bytearray(path.read_bytes())[:cut]
    for place in flips:
        data[place] ^= 16
    return list(tfrecord.whole_records(io.BytesIO(data), len(data)))


STARTS = [sum(SIZES[:n]) + 16 * n for n in range(len(SIZES) + 1)]


def test_a_sound_file_is_one_row_of_records(tmp_path):
    assert damaged(tmp_path) == [(0, len(SIZES))]


@pytest.mark.parametrize("where", ["length", "length's checksum", "data", "data's checksum"])
@pytest.mark.parametrize("number", [0, 2, 5])
def test_one_flipped_bit_costs_one_record(tmp_path, where, number):
    places = {"length": 0, "length's checksum": 9, "data": 12, "data's checksum": -2}
    place = places[where]
    begin = STARTS[number] if place >= 0 else STARTS[number + 1]
    expected = [(0, number), (STARTS[number + 1], len(SIZES) - number - 1)]
    assert damaged(tmp_path, begin + place) == [row for row in expected if row[1]]


def test_damage_at_two_places(tmp_path):
    found = damaged(tmp_path, STARTS[1] + 3, STARTS[4] + 1)
    assert found == [(0, 1), (STARTS[2], 2), (STARTS[5], 1)]


@pytest.mark.parametrize("cut", [STARTS[3] - 1, STARTS[2] + 12, STARTS[2] + 5, STARTS[2]])
def test_what_is_cut_short_keeps_what_came_before(tmp_path, cut):
    assert damaged(tmp_path, cut=cut) == [(0, 2)]


def test_nothing_at_all(tmp_path):
    assert damaged(tmp_path, cut=0) == []
    zeros = bytes(100_000)
    assert list(tfrecord.whole_records(io.BytesIO(zeros), len(zeros))) == []


def test_examples_are_parsed_to_what_they_were_made_of():
    lists = tfrecord.parse(tensorflow_example().SerializeToString())
    assert lists.keys() == LISTS.keys()
    for name, (kind, values) in LISTS.items():
        expected = np.float32(values).tolist() if kind == "float" else values
        assert lists[name] == expected
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        tfrecord.parse(b"\xff\xff")


def test_reads_what_tensorflow_has_written(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 100, b"last"]
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as theirs:
        for record in records:
            theirs.write(record)
    data = path.read_bytes()
    with open(path, "rb") as file:
        found = list(tfrecord.read(file))
        # Reading also works from any record on.
        assert list(tfrecord.read(file, found[2][0] - 12)) == found[2:]
    assert [record for _, record in found] == records
    assert all(data[offset:].startswith(record) for offset, record in found)


@pytest.mark.parametrize("length", [90, 2**40, 2**64 - 1])
def test_a_length_that_the_file_has_not_is_no_demand_for_memory(tmp_path, length):
    path = tmp_path / "records"
    header = length.to_bytes(8, "little")
    with tf.io.TFRecordWriter(str(path)) as theirs:
        theirs.write(b"one")
    data = path.read_bytes() + header + struct.pack("<I", tfrecord._masked_crc(header)) + bytes(80)
    path.write_bytes(data)
    with open(path, "rb") as file:
        read = tfrecord.read(file)
        assert next(read) == (12, b"one")
        with pytest.raises(ValueError, match="cut short"):
            next(read)


@pytest.mark.parametrize(
    ("spoil", "whole", "message"),
    [
        (lambda data: data[:-2], 2, "cut short"),
        (lambda data: data[:-13], 2, "cut short"),
        (lambda data: data[: 2 * 116 + 5], 2, "cut short"),
        (lambda data: data[:116] + b"x" + data[117:], 1, "length is damaged"),
        (lambda data: data[:150] + b"x" + data[151:], 1, "checksum does not fit"),
    ],
)
def test_stops_at_damage(spoil, whole, message):
    file = io.BytesIO()
    writer = tfrecord.Writer(file)
    for number in range(3):
        writer.write(bytes([number]) * 100)
    read = tfrecord.read(io.BytesIO(spoil(file.getvalue())))
    for number in range(whole):
        assert next(read)[1] == bytes([number]) * 100
    with pytest.raises(ValueError, match=message):
        next(read)
