"""Framing and messages against TensorFlow's own."""

import hashlib

import pytest
import tensorflow as tf

from pipeline import tfrecord

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
    # An empty list is set without values; TensorFlow's constructor above does the same.
    assert tf.train.Example.FromString(tfrecord.example_bytes(LISTS)) == tensorflow_example()
    assert tfrecord.example_bytes(LISTS) == expected


def test_a_byte_string_lies_where_it_is_said_to():
    record = tensorflow_example().SerializeToString(deterministic=True)
    offset = tfrecord.bytes_offset(record, "array")
    (array,) = LISTS["array"][1]
    # It holds every byte in order, so that it begins at one place only.
    assert record.count(array) == 1
    assert offset == record.index(array)
    with pytest.raises(KeyError, match="absent"):
        tfrecord.bytes_offset(record, "absent")


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
