"""`tf.train.Example` messages and TFRecord framing without TensorFlow.

A worker that writes shards would otherwise spend seconds and 300 MB on importing it. The bytes are
those of `tf.train.Example.SerializeToString(deterministic=True)` and of `tf.io.TFRecordWriter`; a
test holds both against TensorFlow's.

https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import functools
import hashlib
import io
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_BLOCK = 2**20


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


def parse(record: bytes) -> dict[str, list[Any]]:
    """The lists of a serialised `tf.train.Example`, by name: what `example_bytes` was given.

    Raises:
        ValueError: it is none.
    """
    try:
        example = _example_class().FromString(record)
    except message.DecodeError as error:
        raise ValueError(f"no tf.train.Example: {error}") from error
    kinds = {name: f.WhichOneof("kind") for name, f in example.features.feature.items()}
    return {
        name: list(getattr(example.features.feature[name], kind).value) if kind else []
        for name, kind in kinds.items()
    }


def bytes_offset(record: bytes, name: str) -> int:
    """Where the byte string of a feature begins, so that it can be read without parsing.

    Args:
        record: a serialised `tf.train.Example`.
        name: of a feature that holds one byte string.

    Raises:
        KeyError: there is no such feature.
    """
    return spans(record)[name][0]


def spans(record: bytes) -> dict[str, tuple[int, int]]:
    """Where each feature's values lie: begin and end, by name; without copying them.

    They are a byte string (of several, the first), or numbers in a row as protocol buffers pack
    them. Features without a value are left out.

    Args:
        record: a serialised `tf.train.Example`.

    Raises:
        ValueError: it is none.
    """
    found = {}
    try:
        # Example.features, then each entry of its map: a key, and a Feature that holds a list. All
        # of it is made of fields with a length.
        for _, *features in _fields(record, 0, len(record)):
            for _, *entry in _fields(record, *features):
                (_, begin, end), (_, *feature) = _fields(record, *entry)
                for _, *values in _fields(record, *feature):
                    for _, start, stop in itertools.islice(_fields(record, *values), 1):
                        found[record[begin:end].decode()] = start, stop
    except (IndexError, ValueError) as error:
        raise ValueError(f"no tf.train.Example: {error}") from error
    return found


def integer(record: bytes, span: tuple[int, int]) -> int:
    """The first of the numbers at a place that `spans` gives; none of them is negative."""
    return _varint(record, span[0])[0]


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

    def write(self, record: bytes) -> int:
        """Appends one record, and gives the byte of the file at which it begins."""
        length = struct.pack("<Q", len(record))
        head = length + struct.pack("<I", _masked_crc(length))
        tail = struct.pack("<I", _masked_crc(record))
        for part in (head, record, tail):
            self._file.write(part)
            self._hash.update(part)
            self.bytes += len(part)
        self.records += 1
        return self.bytes - len(tail) - len(record)

    @property
    def sha256(self) -> str:
        """Of all that was written, hexadecimal."""
        return self._hash.hexdigest()


def read(file: BinaryIO, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Reads records one after another, up to the end of the file.

    Args:
        file: able to seek.
        offset: byte at which the first one begins.

    Yields:
        For each record the byte of the file at which its data begin, and the data.

    Raises:
        ValueError: a record is cut short, or a checksum does not fit.
    """
    # A length that no file has must not be asked for.
    file.seek(0, io.SEEK_END)
    size = file.tell()
    file.seek(offset)
    while header := file.read(12):
        length = _checked_length(header)
        if length is None:
            raise ValueError("its length is damaged" if len(header) == 12 else "it is cut short")
        if offset + length + 16 > size:
            raise ValueError("it is cut short")
        data, checksum = file.read(length), file.read(4)
        if checksum != struct.pack("<I", _masked_crc(data)):
            raise ValueError("its checksum does not fit")
        yield offset + 12, data
        offset += length + 16


def whole_records(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Finds what can be read in a file, also after damage: whole records in a row.

    A record is whole where both its checksums fit. Where its length is damaged too, the next one is
    found by the checksum of that one's length.

    Args:
        file: able to seek.
        size: of the file, bytes.

    Yields:
        For each row of records the byte at which it begins, and how many they are.
    """
    start = position = count = 0
    while position < size:
        file.seek(position)
        length = _checked_length(file.read(12))
        stop = size + 1 if length is None else position + length + 16
        if length is not None and stop <= size:
            data, checksum = file.read(length), file.read(4)
            if checksum == struct.pack("<I", _masked_crc(data)):
                position, count = stop, count + 1
                continue
        if count:
            yield start, count
        start = position = stop if stop <= size else _find_record(file, position + 1, size)
        count = 0
    if count:
        yield start, count


def _checked_length(header: bytes) -> int | None:
    """The length that a record's first twelve bytes give, if their checksum fits."""
    if len(header) < 12:
        return None
    length, checksum = struct.unpack("<QI", header)
    return length if checksum == _masked_crc(header[:8]) else None


def _find_record(file: BinaryIO, position: int, size: int) -> int:
    """Where, from `position` on, a record begins that fits into the file; `size` if none does."""
    upper_half = bytes(4)  # Of the length of a record of less than 4 GiB.
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK + 11)
        found = block.find(upper_half, 4)
        while found >= 0:
            length = _checked_length(block[found - 4 : found + 8])
            if length is not None and position + found + length + 12 <= size:
                return position + found - 4
            found = block.find(upper_half, found + 1)
        position += _BLOCK
    return size


def _fields(data: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message whose fields all have a length."""
    while start < stop:
        tag, start = _varint(data, start)
        size, start = _varint(data, start)
        if start + size > stop:
            raise ValueError("a field ends beyond its message")
        yield tag >> 3, start, start + size
        start += size


def _varint(data: bytes, start: int) -> tuple[int, int]:
    """An integer, seven bits a byte, the lowest first; and where it ends."""
    value = shift = 0
    while data[start] & 0x80:
        value |= (data[start] & 0x7F) << shift
        start, shift = start + 1, shift + 7
    return value | data[start] << shift, start + 1


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

    def add(name: str, *fields: tuple[str, int, int, str]) -> Any:
        proto = file.message_type.add(name=name)
        for field_name, number, kind, of in fields:
            repeated = kind in (_FIELD.TYPE_BYTES, _FIELD.TYPE_FLOAT, _FIELD.TYPE_INT64)
            field = proto.field.add(name=field_name, number=number, type=kind)
            field.label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            if of:
                field.type_name = f".tensorflow.{of}"
        return proto

    add("BytesList", ("value", 1, _FIELD.TYPE_BYTES, ""))
    add("FloatList", ("value", 1, _FIELD.TYPE_FLOAT, ""))
    add("Int64List", ("value", 1, _FIELD.TYPE_INT64, ""))
    lists = ("BytesList", "FloatList", "Int64List")
    feature = add(
        "Feature",
        *(
            (f"{of[:-4].lower()}_list", number, _FIELD.TYPE_MESSAGE, of)
            for number, of in enumerate(lists, 1)
        ),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = add("Features", ("feature", 1, _FIELD.TYPE_MESSAGE, "Features.FeatureEntry"))
    features.field[0].label = _FIELD.LABEL_REPEATED
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=_FIELD.TYPE_MESSAGE, label=_FIELD.LABEL_OPTIONAL,
        type_name=".tensorflow.Feature",
    )  # fmt: skip
    add("Example", ("features", 1, _FIELD.TYPE_MESSAGE, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
