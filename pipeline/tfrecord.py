"""`tf.train.Example` messages and TFRecord framing without TensorFlow.

A worker that writes shards would otherwise spend seconds and 300 MB on importing it. The bytes are
those of `tf.train.Example.SerializeToString(deterministic=True)` and of `tf.io.TFRecordWriter`; a
test holds both against TensorFlow's.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import functools
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def example_bytes(lists: Mapping[str, tuple[str, Sequence[Any]]]) -> bytes:
    """A serialised `tf.train.Example`.

    Args:
        lists: for each feature's name the kind of its list (`bytes`, `float` or `int64`) and the
            values.
    """
    example = _example_class()()
    features = example.features.feature
    for name, (kind, values) in lists.items():
        getattr(features[name], f"{kind}_list").value.extend(values)
    return example.SerializeToString(deterministic=True)


class Writer:
    """Frames records into a file and keeps account of what it wrote.

    Attributes:
        records: written so far.
        bytes: likewise.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Writes to `file`, which stays the caller's to close."""
        self._file = file
        self._hash = hashlib.sha256()
        self.records = 0
        self.bytes = 0

    def write(self, record: bytes) -> None:
        """Appends one record."""
        length = struct.pack("<Q", len(record))
        head = length + struct.pack("<I", _masked_crc(length))
        tail = struct.pack("<I", _masked_crc(record))
        for part in (head, record, tail):
            self._file.write(part)
            self._hash.update(part)
            self.bytes += len(part)
        self.records += 1

    @property
    def sha256(self) -> str:
        """Of all that was written, hexadecimal."""
        return self._hash.hexdigest()


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _example_class() -> Any:
    """The message class, from TensorFlow's `example.proto` and `feature.proto`.

    It lives in a pool of its own, so that it does not meet TensorFlow's where both are loaded.
    """
    file = descriptor_pb2.FileDescriptorProto(
        name="example.proto", package="tensorflow", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str]) -> Any:
        proto = file.message_type.add(name=name)
        for field_name, number, kind, of in fields:
            repeated = kind in (_FIELD.TYPE_BYTES, _FIELD.TYPE_FLOAT, _FIELD.TYPE_INT64)
            field = proto.field.add(name=field_name, number=number, type=kind)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if of:
                field.type_name = f".tensorflow.{of}"
        return proto

    message("BytesList", ("value", 1, _FIELD.TYPE_BYTES, ""))
    message("FloatList", ("value", 1, _FIELD.TYPE_FLOAT, ""))
    message("Int64List", ("value", 1, _FIELD.TYPE_INT64, ""))
    lists = ("BytesList", "FloatList", "Int64List")
    feature = message(
        "Feature",
        *(
            (f"{of[:-4].lower()}_list", number, _FIELD.TYPE_MESSAGE, of)
            for number, of in enumerate(lists, 1)
        ),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", 1, _FIELD.TYPE_MESSAGE, "Features.FeatureEntry"))
    features.field[0].label = _FIELD.LABEL_REPEATED
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_OPTIONAL,
        type_name=".tensorflow.Feature",
    )  # fmt: skip
    message("Example", ("features", 1, _FIELD.TYPE_MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
