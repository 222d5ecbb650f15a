"""The record: names, dtypes, shapes and units of what is stored, and the names of the files.

The writer (`pipeline.dataset.shards`), the reader (`trainer.data.stored_windows`) and the page
`docs/record.md` all use these definitions, so they cannot disagree. Neither Beam nor TensorFlow is
imported.

A record is one `tf.train.Example`. Its arrays are little-endian bytes in C order; `Feature.encode`
and `Feature.decode` convert them to those bytes and back. The letters of the axes are

    S sources, N samples, T frames, F bins, K stored masks (S - 1 for two voices, where the last
    mask is one minus the first; S for more).
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline import encodings, ideal_masks

SCHEMA_VERSION = 1

# The spectrogram, computed by `pipeline.features` and `models.spectral`.
DEFAULT_SAMPLE_RATE = 8000
FRAME_LENGTH = 256
HOP = 64
NUM_BINS = FRAME_LENGTH // 2 + 1
MAGNITUDE_FLOOR = 1e-7

# Levels: 0 dB is a mean square of 1; int16 samples have full scale 32768.
FULL_SCALE = 32768
ACTIVITY_RANGE_DB = 40.0

SPLITS = ("train", "valid", "test")
MASKS = tuple(ideal_masks.MASKS)

# Files in a dataset's folder, beside the shards.
INFO_FILE = "dataset_info.json"
REJECTED_FILE = "rejected.csv"
MIXTURES_FILE = "mixtures.csv"
MARKER_FILE = "_SUCCESS"

# The clean utterances of the train split have their own folder in the dataset's folder. Its index
# says where the samples of each are: `shard` is a file in that folder, `offset` the byte in it at
# which `num_samples` int16 begin. The index is sorted by shard and offset.
UTTERANCES_FOLDER = "utterances"
UTTERANCES_INDEX_FILE = "index.csv"
UTTERANCES_INDEX_COLUMNS = (
    "shard", "offset", "num_samples", "utterance_id", "speaker_id", "sex", "active_level_db",
)  # fmt: skip


def num_frames(num_samples: int) -> int:
    """Returns the number of frames of `num_samples` samples: ceil(samples / hop) + 1."""
    return math.ceil(num_samples / HOP) + 1


def num_stored_masks(num_sources: int) -> int:
    """Returns K: one mask fewer than voices if there are two, since all masks add up to one."""
    return 1 if num_sources == 2 else num_sources


@dataclasses.dataclass(frozen=True)
class ShardName:
    """A shard's name, such as `train-00003-of-00008.tfrecord`, as a value."""

    split: str
    index: int
    count: int

    _PATTERN = re.compile(r"(?P<split>[a-z]+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.tfrecord")

    def __str__(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}.tfrecord"

    @property
    def sidecar(self) -> str:
        """The small JSON beside the shard: its plan's digest, checksum, counts, histogram."""
        return f"{self}.json"

    @classmethod
    def parse(cls, name: str) -> "ShardName":
        """Parses the name of a shard.

        Raises:
            ValueError: `name` is not the name of a shard.
        """
        match = cls._PATTERN.fullmatch(name)
        if match is None or not int(match["index"]) < int(match["count"]):
            raise ValueError(f"{name!r} is not the name of a shard")
        return cls(match["split"], int(match["index"]), int(match["count"]))

    @classmethod
    def of_split(cls, split: str, count: int) -> list["ShardName"]:
        """Returns all shards of a split."""
        return [cls(split, index, count) for index in range(count)]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of the record.

    Attributes:
        name: key in the `tf.train.Example`.
        kind: which list of the Example holds it: `bytes`, `float` or `int64`.
        axes: letters of the axes, `()` for a single value.
        encoding: how an array is encoded in one byte string; None if the list holds the values
            themselves.
        unit: what the decoded values count or measure.
        meaning: one line for the documentation.
        mask: whether it is only stored if `--masks` says so.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    encoding: encodings.Encoding | None
    unit: str
    meaning: str
    mask: bool = False

    def encode(self, value: Any) -> list[Any]:
        """Returns the list for the Example.

        Args:
            value: array with `axes`, of real values (masks in [0, 1] or [-1, 2]; bits as bool or
                0/1); for a feature without an encoding, the sequence of values or the value.
        """
        if self.encoding is None:
            values = value if self.axes else [value]
            if self.kind == "bytes":
                return [v.encode("utf-8") if isinstance(v, str) else bytes(v) for v in values]
            return [float(v) if self.kind == "float" else int(v) for v in values]
        array = np.ascontiguousarray(value)
        if array.ndim != len(self.axes):
            raise ValueError(f"{self.name} has axes {self.axes}, but shape {array.shape}")
        return [self.encoding.encode(array)]

    def decode(self, values: Sequence[Any], sizes: Mapping[str, int]) -> Any:
        """Returns the value that `encode` was given, from the Example's list.

        Args:
            values: the list.
            sizes: size of each axis by its letter.

        Returns:
            Array with `axes` (float32 for masks and `float16`, bool for bits, otherwise the stored
            dtype), a list of str or float, or a single value.

        Raises:
            ValueError: the bytes do not fit the sizes.
        """
        if self.encoding is None:
            items = [v.decode("utf-8") if isinstance(v, bytes) else v for v in values]
            wanted = sizes[self.axes[0]] if self.axes else 1
            if len(items) != wanted:
                raise ValueError(f"{self.name} has {len(items)} values, not {wanted}")
            return items if self.axes else items[0]
        if len(values) != 1:
            raise ValueError(f"{self.name} has {len(values)} byte strings, not 1")
        shape = tuple(sizes[axis] for axis in self.axes)
        expected = self.num_bytes(sizes)
        if len(values[0]) != expected:
            raise ValueError(
                f"{self.name} has {len(values[0])} bytes, but shape {shape} needs {expected}"
            )
        return self.encoding.decode(values[0], shape)

    def num_bytes(self, sizes: Mapping[str, int]) -> int:
        """Returns the length of the byte string of an encoded array."""
        if self.encoding is None:
            raise ValueError(f"{self.name} is no array")
        return self.encoding.num_bytes(math.prod(sizes[axis] for axis in self.axes))


_PYTHON_TYPES = {"bytes": (bytes,), "float": (float,), "int64": (int,)}

MIXTURE_FEATURES = (
    Feature("mixture_id", "bytes", (), None, "-", "unique in the dataset"),
    Feature("utterance_ids", "bytes", ("S",), None, "-", "the recording of each voice"),
    Feature("speaker_ids", "bytes", ("S",), None, "-", "who speaks"),
    Feature("sexes", "bytes", ("S",), None, "-", "`f`, `m`, or empty where it is not known"),
    Feature("gains_db", "float", ("S",), None, "dB", "what was applied to the recording"),
    Feature("sample_rate", "int64", (), None, "Hz", "of `sources`"),
    Feature("num_samples", "int64", (), None, "samples", "N"),
    Feature("num_frames", "int64", (), None, "frames", "T = ceil(N / 64) + 1"),
    Feature("num_bins", "int64", (), None, "bins", "F = 129"),
    Feature("num_sources", "int64", (), None, "voices", "S"),
    Feature(
        "sources", "bytes", ("S", "N"), encodings.INT16, "1 / 32768 of full scale",
        "each voice as it is in the mixture; the mixture is their integer sum",
    ),
    Feature(
        "log_magnitude", "bytes", ("T", "F"), encodings.FLOAT16, "log10 of magnitude",
        "of the mixture: log10(max(|X|, 1e-7)), not normalised",
    ),
    *(
        Feature(
            mask.name, "bytes", ("K", "T", "F"), mask.encoding,
            "0 or 1" if mask.encoding.packed else "{:g} to {:g}".format(*mask.range), mask.meaning,
            mask=True,
        )
        for mask in ideal_masks.MASKS.values()
    ),
    Feature(
        "voice_activity", "bytes", ("S", "T"), encodings.UINT8, "0 or 1",
        "1 where the voice's power in the frame is within 40 dB of its loudest frame",
    ),
)  # fmt: skip

UTTERANCE_FEATURES = (
    Feature("utterance_id", "bytes", (), None, "-", "unique in the dataset"),
    Feature("speaker_id", "bytes", (), None, "-", "who speaks"),
    Feature("sex", "bytes", (), None, "-", "`f`, `m`, or empty where it is not known"),
    Feature("sample_rate", "int64", (), None, "Hz", "of `samples`"),
    Feature("num_samples", "int64", (), None, "samples", "N"),
    Feature("active_level_db", "float", (), None, "dB", "active level of `samples`, to 0.01"),
    Feature(
        "samples", "bytes", ("N",), encodings.INT16, "1 / 32768 of full scale",
        "the recording up to `--max_seconds`, at its own level (lower where it would not fit)",
    ),
)  # fmt: skip


def mixture_features(masks: Iterable[str] = MASKS) -> tuple[Feature, ...]:
    """Returns the features of a dataset that stores `masks`.

    Raises:
        ValueError: a mask is unknown.
    """
    chosen = set(masks)
    unknown = chosen - set(MASKS)
    if unknown:
        raise ValueError(f"unknown masks {sorted(unknown)}; known are {list(MASKS)}")
    return tuple(f for f in MIXTURE_FEATURES if not f.mask or f.name in chosen)


def fingerprint(features: Iterable[Feature]) -> str:
    """Returns a SHA-256 of everything that determines how a record is written.

    This is names, lists, axes and encodings. It is part of a shard's plan, so records with and
    without a new feature are never mixed in a dataset, even if `SCHEMA_VERSION` was not raised.
    """
    rows = [[f.name, f.kind, f.axes, f.encoding and f.encoding.name] for f in features]
    return hashlib.sha256(json.dumps([SCHEMA_VERSION, rows]).encode()).hexdigest()


def encode(features: Sequence[Feature], values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns each feature's list by name, ready for a `tf.train.Example`."""
    return {feature.name: feature.encode(values[feature.name]) for feature in features}


def sizes(values: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Returns the sizes of a mixture's axes by letter, from the lists of its int64 features."""
    num_sources = int(values["num_sources"][0])
    return {
        "S": num_sources,
        "N": int(values["num_samples"][0]),
        "T": int(values["num_frames"][0]),
        "F": int(values["num_bins"][0]),
        "K": num_stored_masks(num_sources),
    }


def decode(features: Sequence[Feature], values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Decodes a mixture's record to arrays: the inverse of `encode`.

    Raises:
        ValueError: a feature is missing or does not fit the record's sizes.
    """
    absent = [feature.name for feature in features if not values.get(feature.name)]
    if absent:
        raise ValueError(f"the record lacks {', '.join(absent)}")
    for feature in features:
        if not all(
            isinstance(value, _PYTHON_TYPES[feature.kind]) for value in values[feature.name]
        ):
            raise ValueError(f"{feature.name} is not a list of {feature.kind}")
    axis_sizes = sizes(values)
    return {f.name: f.decode(values[f.name], axis_sizes) for f in features}


def markdown_table(features: Sequence[Feature]) -> str:
    """Returns the features as a table for the documentation."""
    rows = ["| feature | list | shape | stored as | unit | meaning |", "|---|---|---|---|---|---|"]
    for f in features:
        shape = "[" + ", ".join(f.axes) + "]" if f.axes else "1"
        stored = f.encoding.description if f.encoding else "the values"
        cells = (f"`{f.name}`", f.kind, shape, stored, f.unit, f.meaning)
        # A bar within a cell, as in |X|, would end the cell.
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    # The text between the markers in docs/record.md; a test compares the two.
    print("### A mixture\n")
    print(markdown_table(MIXTURE_FEATURES))
    print("### A clean utterance\n")
    print(markdown_table(UTTERANCE_FEATURES), end="")
