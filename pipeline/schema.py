"""The record: names, dtypes, shapes and units of what is stored, and the names of the files.

Writer (`pipeline.dataset.shards`), reader (`trainer.data.stored_windows`) and the page
`docs/record.md` all take their facts from here, so that they cannot disagree. Neither
Beam nor TensorFlow is imported.

A record is one `tf.train.Example`. Its arrays are little-endian bytes in C order; `Feature.encode`
and `Feature.decode` turn them into those bytes and back. The letters of the axes are

    S sources, N samples, T frames, F bins, K masks stored (S - 1 for two voices: the last one's
    mask is what is left; S for more).
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

SCHEMA_VERSION = 1

# The spectrogram (`pipeline.features` and `models.spectral` compute it).
DEFAULT_SAMPLE_RATE = 8000
FRAME_LENGTH = 256
HOP = 64
NUM_BINS = FRAME_LENGTH // 2 + 1
MAGNITUDE_FLOOR = 1e-7

# Levels: 0 dB is a mean square of 1; int16 samples have full scale 32768.
FULL_SCALE = 32768
ACTIVITY_RANGE_DB = 40.0

SPLITS = ("train", "valid", "test")
MASKS = ("ibm", "irm", "psm")
PSM_MIN, PSM_MAX = -1.0, 2.0

# Files of a dataset's folder, beside the shards.
INFO_FILE = "dataset_info.json"
REJECTED_FILE = "rejected.csv"
MIXTURES_FILE = "mixtures.csv"
MARKER_FILE = "_SUCCESS"
LOCK_FILE = "_LOCK"

# Clean utterances of the train split lie in a folder of their own within the dataset's. Its index
# says where each one's samples are: `shard` is a file in that folder, `offset` the byte in that
# file at which `num_samples` int16 begin. It is sorted by shard and offset.
UTTERANCES_FOLDER = "utterances"
UTTERANCES_INDEX_FILE = "index.csv"
UTTERANCES_INDEX_COLUMNS = (
    "shard", "offset", "num_samples", "utterance_id", "speaker_id", "sex", "active_level_db",
)  # fmt: skip


def num_frames(num_samples: int) -> int:
    """Frames of the spectrogram of `num_samples` samples: ceil(samples / hop) + 1."""
    return math.ceil(num_samples / HOP) + 1


def num_stored_masks(num_sources: int) -> int:
    """K: one mask less than voices where there are two, since all masks add up to one."""
    return 1 if num_sources == 2 else num_sources


@dataclasses.dataclass(frozen=True)
class ShardName:
    """`train-00003-of-00008.tfrecord`, as a value."""

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
        """The shard that `name` names.

        Raises:
            ValueError: `name` is not the name of a shard.
        """
        match = cls._PATTERN.fullmatch(name)
        if match is None or not int(match["index"]) < int(match["count"]):
            raise ValueError(f"{name!r} is not the name of a shard")
        return cls(match["split"], int(match["index"]), int(match["count"]))

    @classmethod
    def of_split(cls, split: str, count: int) -> list["ShardName"]:
        """All shards of a split."""
        return [cls(split, index, count) for index in range(count)]


@dataclasses.dataclass(frozen=True)
class Feature:
    """One feature of the record.

    Attributes:
        name: key in the `tf.train.Example`.
        kind: which list of the Example holds it: `bytes`, `float` or `int64`.
        axes: letters of the axes, `()` for a single value.
        encoding: how an array lies in one byte string (`int16`, `float16`, `uint8`, `bits`, `irm`,
            `psm`), or None where the list holds the values themselves.
        unit: what the decoded values count or measure.
        meaning: one line for the documentation.
        mask: whether `--masks` decides that it is stored.
    """

    name: str
    kind: str
    axes: tuple[str, ...]
    encoding: str | None
    unit: str
    meaning: str
    mask: bool = False

    def encode(self, value: Any) -> list[Any]:
        """The list that goes into the Example.

        Args:
            value: array with `axes`, of real values (masks in [0, 1] or [-1, 2]; bits as bool or
                0/1); for a feature without an encoding the sequence of values, or the value.
        """
        if self.encoding is None:
            values = value if self.axes else [value]
            if self.kind == "bytes":
                return [v.encode("utf-8") if isinstance(v, str) else bytes(v) for v in values]
            return [float(v) if self.kind == "float" else int(v) for v in values]
        array = np.ascontiguousarray(value)
        if array.ndim != len(self.axes):
            raise ValueError(f"{self.name} has axes {self.axes}, but shape {array.shape}")
        return [_ENCODERS[self.encoding](array).tobytes()]

    def decode(self, values: Sequence[Any], sizes: Mapping[str, int]) -> Any:
        """What `encode` was given, from the Example's list.

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
        return _DECODERS[self.encoding](values[0], shape)

    def num_bytes(self, sizes: Mapping[str, int]) -> int:
        """Length of the byte string of an encoded array."""
        count = math.prod(sizes[axis] for axis in self.axes)
        if self.encoding == "bits":
            return (count + 7) // 8
        return count * (2 if self.encoding in ("int16", "float16") else 1)


def _round_to_uint8(array: np.ndarray) -> np.ndarray:
    # + 0.5 and truncation: all values are non-negative here, and it is one pass less than rint.
    return (array + array.dtype.type(0.5)).astype(np.uint8)


def _encode_psm(array: np.ndarray) -> np.ndarray:
    clipped = np.clip(array.astype(np.float32, copy=False), PSM_MIN, PSM_MAX)
    return _round_to_uint8((clipped - np.float32(PSM_MIN)) * np.float32(255 / (PSM_MAX - PSM_MIN)))


_ENCODERS = {
    "int16": lambda a: a.astype("<i2", copy=False),
    "float16": lambda a: a.astype("<f2", copy=False),
    "uint8": lambda a: a.astype(np.uint8, copy=False),
    "bits": lambda a: np.packbits(a.astype(bool, copy=False)),
    "irm": lambda a: _round_to_uint8(a.astype(np.float32, copy=False) * np.float32(255)),
    "psm": _encode_psm,
}
_PYTHON_TYPES = {"bytes": (bytes,), "float": (float,), "int64": (int,)}
_DECODERS = {
    "int16": lambda b, s: np.frombuffer(b, "<i2").reshape(s),
    "float16": lambda b, s: np.frombuffer(b, "<f2").reshape(s).astype(np.float32),
    "uint8": lambda b, s: np.frombuffer(b, np.uint8).reshape(s),
    "bits": lambda b, s: (
        np.unpackbits(np.frombuffer(b, np.uint8), count=math.prod(s)).reshape(s).astype(bool)
    ),
    "irm": lambda b, s: np.frombuffer(b, np.uint8).reshape(s).astype(np.float32) / 255,
    "psm": lambda b, s: (
        np.frombuffer(b, np.uint8).reshape(s).astype(np.float32) * ((PSM_MAX - PSM_MIN) / 255)
        + np.float32(PSM_MIN)
    ),
}

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
        "sources", "bytes", ("S", "N"), "int16", "1 / 32768 of full scale",
        "each voice as it is in the mixture; the mixture is their integer sum",
    ),
    Feature(
        "log_magnitude", "bytes", ("T", "F"), "float16", "log10 of magnitude",
        "of the mixture: log10(max(|X|, 1e-7)), not normalised",
    ),
    Feature("ibm", "bytes", ("K", "T", "F"), "bits", "0 or 1", "ideal binary mask", mask=True),
    Feature("irm", "bytes", ("K", "T", "F"), "irm", "0 to 1", "ideal ratio mask", mask=True),
    Feature(
        "psm", "bytes", ("K", "T", "F"), "psm", "-1 to 2",
        "phase-sensitive mask, clipped to [-1, 2]", mask=True,
    ),
    Feature(
        "voice_activity", "bytes", ("S", "T"), "uint8", "0 or 1",
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
        "samples", "bytes", ("N",), "int16", "1 / 32768 of full scale",
        "the recording up to `--max_seconds`, at its own level (lower where it would not fit)",
    ),
)  # fmt: skip


def mixture_features(masks: Iterable[str] = MASKS) -> tuple[Feature, ...]:
    """The features of a dataset that stores `masks`.

    Raises:
        ValueError: a mask that the schema does not know.
    """
    chosen = set(masks)
    unknown = chosen - set(MASKS)
    if unknown:
        raise ValueError(f"unknown masks {sorted(unknown)}; known are {list(MASKS)}")
    return tuple(f for f in MIXTURE_FEATURES if not f.mask or f.name in chosen)


def fingerprint(features: Iterable[Feature]) -> str:
    """What decides how a record is written: SHA-256, of names, lists, axes and encodings.

    It is part of a shard's plan, so that records with and without a new feature never meet in a
    dataset, whether or not `SCHEMA_VERSION` was raised.
    """
    rows = [[f.name, f.kind, f.axes, f.encoding] for f in features]
    return hashlib.sha256(json.dumps([SCHEMA_VERSION, rows]).encode()).hexdigest()


def encode(features: Sequence[Feature], values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Each feature's list, by name, ready for a `tf.train.Example`."""
    return {feature.name: feature.encode(values[feature.name]) for feature in features}


def sizes(values: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The sizes of a mixture's axes, by letter, from its int64 features' lists."""
    num_sources = int(values["num_sources"][0])
    return {
        "S": num_sources,
        "N": int(values["num_samples"][0]),
        "T": int(values["num_frames"][0]),
        "F": int(values["num_bins"][0]),
        "K": num_stored_masks(num_sources),
    }


def decode(features: Sequence[Feature], values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A mixture's record as arrays, from the Example's lists: the inverse of `encode`.

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
    """The features as a table, for the documentation."""
    encodings = {
        None: "the values", "int16": "int16", "float16": "float16", "uint8": "uint8",
        "bits": "bits (`np.packbits` over the whole array)", "irm": "uint8: round(255 · value)",
        "psm": "uint8: value = code · 3 / 255 − 1",
    }  # fmt: skip
    rows = ["| feature | list | shape | stored as | unit | meaning |", "|---|---|---|---|---|---|"]
    for f in features:
        shape = "[" + ", ".join(f.axes) + "]" if f.axes else "1"
        cells = (f"`{f.name}`", f.kind, shape, encodings[f.encoding], f.unit, f.meaning)
        # A bar within a cell, as in |X|, would end it.
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    # What docs/record.md holds between its markers; a test compares the two.
    print("### A mixture\n")
    print(markdown_table(MIXTURE_FEATURES))
    print("### A clean utterance\n")
    print(markdown_table(UTTERANCE_FEATURES), end="")
