"""From the plan of one shard to its file, and the small JSON beside it.

A shard's bytes are a function of its plan: whichever worker writes it, whenever, they are the same
(on one type of processor and one set of versions). The file gets its name when it is whole, then
the JSON is written in the same way; a shard whose JSON fits the plan and the versions, and whose
SHA-256 fits the JSON, need not be written again.
"""

import dataclasses
import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any, Protocol, TypeVar

import cachetools
import numpy as np

from pipeline import errors, features, plan, schema, version
from pipeline.audio import decoding
from pipeline.dataset import dataset, histogram, tfrecord
from pipeline.io import atomic, storage, stored_json

# A mixture in which a voice is active for less is left out.
MIN_ACTIVE_SECONDS = 0.5

# Recordings are voices of several mixtures; what a worker keeps of them, decoded, in bytes (an hour
# at 8 kHz is 115 MB), and the longest that is kept.
_KEPT_BYTES = 2**27
_LONGEST_KEPT_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What the JSON beside a shard holds.

    Attributes:
        shard: name, records, bytes, SHA-256.
        plan_digest: `ShardPlan.digest` of what was written.
        samples: of all mixtures in it.
        frames: likewise.
        dropped: ids of planned mixtures in which a voice is active for less than half a second.
        active_level_mdb: sum over the mixtures of their active level in thousandths of a dB.
        counts: int64 `[code]`, how often each float16 code of the log-magnitudes came.
        versions: of the libraries that wrote it (`version.versions`), which decide its bytes too.
    """

    shard: dataset.ShardInfo
    plan_digest: str
    samples: int
    frames: int
    dropped: tuple[str, ...]
    active_level_mdb: int
    counts: np.ndarray
    versions: dict[str, str]

    def to_json(self) -> str:
        """The text of the file."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("shard", "counts")
        }
        fields |= {
            "schema_version": schema.SCHEMA_VERSION,
            "shard": dataclasses.asdict(self.shard),
            "log_magnitude_codes": histogram.to_dict(self.counts),
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Sidecar":
        """The inverse of `to_json`.

        Raises:
            ValueError: it is no such text, or of another version of the schema.
        """
        try:
            fields = stored_json.loads(text)
            if fields.pop("schema_version") != schema.SCHEMA_VERSION:
                raise ValueError("another version of the schema")
            sidecar = cls(
                shard=dataset.ShardInfo(**fields.pop("shard")),
                dropped=tuple(fields.pop("dropped")),
                counts=histogram.from_dict(fields.pop("log_magnitude_codes")),
                **fields,
            )
            stored_json.check(sidecar)
            stored_json.check(sidecar.shard)
            return sidecar
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"damaged: {error}") from error


_kept: cachetools.LRUCache[tuple[str, int], np.ndarray] = cachetools.LRUCache(
    _KEPT_BYTES, getsizeof=lambda samples: samples.nbytes
)
# Some runners' workers are threads.
_kept_lock = threading.Lock()


class AnySidecar(Protocol):
    """What the side-cars of all kinds of shards have in common."""

    @property
    def shard(self) -> dataset.ShardInfo:
        """Name, records, bytes, SHA-256."""

    @property
    def plan_digest(self) -> str:
        """Of what was written."""

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that wrote it."""


_Found = TypeVar("_Found", bound=AnySidecar)


def find(shard: plan.ShardPlan, folder: str) -> Sidecar | None:
    """The side-car of a shard that is already there and whole.

    Args:
        shard: the plan.
        folder: of the dataset.

    Returns:
        None where the shard or its side-car is missing, damaged, of another plan, or of other
        versions.
    """
    return find_whole(storage.join(folder, shard.path), shard.digest, Sidecar.from_json)


def read(shard: plan.ShardPlan, folder: str) -> Sidecar:
    """The side-car of a shard that has been written.

    Args:
        shard: the plan.
        folder: of the dataset.

    Raises:
        UserError: it cannot be read, is damaged, or of another plan.
    """
    return read_sidecar(storage.join(folder, shard.path), shard.digest, Sidecar.from_json)


def find_whole(path: str, digest: str, parse: Callable[[str], _Found]) -> _Found | None:
    """The side-car of a shard of any kind that is already there and whole.

    Args:
        path: of the shard.
        digest: of its plan.
        parse: the side-car's text to what it holds; raises ValueError.

    Returns:
        None where the shard or its side-car is missing, damaged, of another plan, or written with
        other versions than this process has: its bytes could be others than ours.
    """
    try:
        sidecar = read_sidecar(path, digest, parse)
        if sidecar.versions != version.versions():
            return None
        return sidecar if storage.sha256(path) == sidecar.shard.sha256 else None
    except (errors.UserError, OSError):
        return None


def read_sidecar(path: str, digest: str, parse: Callable[[str], _Found]) -> _Found:
    """The side-car of a shard of any kind.

    Args:
        path: of the shard.
        digest: of its plan.
        parse: the side-car's text to what it holds; raises ValueError.

    Raises:
        UserError: it cannot be read, is damaged, or of another plan.
    """
    path = f"{path}.json"
    try:
        sidecar = parse(storage.read_bytes(path).decode("utf-8"))
        if sidecar.plan_digest == digest:
            return sidecar
        reason = "it is of another plan; did another job write here?"
    except ValueError as error:
        reason = str(error)
    raise errors.UserError(f"{path}: {reason}; run the same command again")


def check_files(infos: Mapping[str, dataset.ShardInfo], contents: bool) -> None:
    """Compares shards with what their side-cars say, as the last thing before the marker.

    A worker that outlived its job may have replaced a shard after its side-car was read.

    Args:
        infos: by the shard's path.
        contents: compare SHA-256 too, which reads all of them; otherwise only the lengths of local
            files.

    Raises:
        UserError: one differs, or is not there.
    """

    def differs(path: str) -> bool:
        info = infos[path]
        if not storage.is_remote(path) and os.path.getsize(path) != info.bytes:
            return True
        return contents and storage.sha256(path) != info.sha256

    with futures.ThreadPoolExecutor() as threads:
        for path, other in zip(infos, threads.map(differs, infos), strict=True):
            if other:
                raise errors.UserError(
                    f"{path}: is not what the JSON beside it describes; did another job write "
                    "here? Run the same command again"
                )


def common_versions(sidecars: Iterable[AnySidecar]) -> dict[str, str]:
    """The versions that all shards of a dataset were written with.

    Args:
        sidecars: of all its shards, at least one.

    Raises:
        UserError: they differ, as where workers do: the dataset would be no function of its plan.
    """
    first, *rest = sidecars
    for other in rest:
        for name in sorted({*first.versions, *other.versions}):
            one, two = first.versions.get(name), other.versions.get(name)
            if one != two:
                raise errors.UserError(
                    f"{first.shard.name} was written with {name} {one}, {other.shard.name} with "
                    f"{name} {two}; install the same version for all workers and run the same "
                    "command again"
                )
    return first.versions


def write(
    shard: plan.ShardPlan, folder: str, on_mixture: Callable[[], None] = lambda: None
) -> Sidecar:
    """Makes and writes a shard and its side-car.

    Args:
        shard: the plan.
        folder: of the dataset.
        on_mixture: called after each mixture, for progress.

    Returns:
        What the side-car holds.

    Raises:
        UserError: a recording cannot be read, or is not the one that the plan was made for.
        OSError: the folder does not take the file.
    """
    samples = frames = level = 0
    dropped = []
    counts = np.zeros(histogram.NUM_CODES, np.int64)
    stored = schema.mixture_features(shard.masks)
    with atomic.create(storage.join(folder, str(shard.name))) as file:
        writer = tfrecord.Writer(file)
        for mixture in shard.mixtures:
            sources = mix(mixture, shard.recordings, shard.sample_rate)
            values = compute(sources, shard.masks)
            active = values["voice_activity"].sum(axis=1) * schema.HOP / shard.sample_rate
            if active.min() < MIN_ACTIVE_SECONDS:
                dropped.append(mixture.id)
            else:
                values |= _names(mixture, shard)
                lists = schema.encode(stored, values)
                kinds = {f.name: (f.kind, lists[f.name]) for f in stored}
                writer.write(tfrecord.example_bytes(kinds))
                counts += histogram.count(values["log_magnitude"])
                samples += mixture.num_samples
                frames += schema.num_frames(mixture.num_samples)
                # Rounded to an integer, so that the mean is the same in any order.
                level += round(1000 * features.active_level_db(mixed(sources)))
            on_mixture()
    info = dataset.ShardInfo(str(shard.name), writer.records, writer.bytes, writer.sha256)
    sidecar = Sidecar(
        info, shard.digest, samples, frames, tuple(dropped), level, counts, version.versions()
    )
    atomic.write_text(storage.join(folder, shard.name.sidecar), sidecar.to_json())
    return sidecar


def forget() -> None:
    """Lets go of the recordings that this process has kept, decoded."""
    with _kept_lock:
        _kept.clear()


def mix(
    mixture: plan.Mixture, recordings: dict[str, plan.Recording], sample_rate: int
) -> np.ndarray:
    """The voices as they are in the mixture, rebuilt from the plan.

    Args:
        mixture: the plan.
        recordings: by utterance id.
        sample_rate: of the dataset, Hz.

    Returns:
        int16 `[source, sample]`; their integer sum is the mixture.

    Raises:
        UserError: a recording cannot be read, or is not the one that the plan was made for.
    """
    sources = np.zeros((len(mixture.utterance_ids), mixture.num_samples), np.int16)
    for source, utterance, gain in zip(
        sources, mixture.utterance_ids, mixture.gains_db, strict=True
    ):
        samples = load(recordings[utterance], sample_rate, mixture.num_samples)
        scaled = samples * np.float32(schema.FULL_SCALE * 10 ** (gain / 20))
        source[: len(scaled)] = np.rint(scaled, out=scaled)
    return sources


def mixed(sources: np.ndarray) -> np.ndarray:
    """The mixture of int16 `[source, sample]`: float32 `[sample]`, full scale 1, exactly."""
    return sources.sum(axis=0, dtype=np.int32).astype(np.float32) / schema.FULL_SCALE


def compute(sources: np.ndarray, masks: tuple[str, ...]) -> dict[str, Any]:
    """The record's arrays.

    Args:
        sources: int16 `[source, sample]`.
        masks: those wanted.

    Returns:
        By feature: `sources`, `log_magnitude` float16 `[frame, bin]`, `voice_activity` bool
        `[source, frame]`, and the masks `[stored mask, frame, bin]`.
    """
    num_sources = len(sources)
    voices = features.stft(sources / np.float32(schema.FULL_SCALE))
    # The transform is linear, so the mixture needs none of its own.
    mixture = voices.sum(axis=0)
    values: dict[str, Any] = {
        "sources": sources,
        "log_magnitude": features.log_magnitude(mixture).astype(np.float16),
        "voice_activity": features.voice_activity(voices),
    }
    stored = slice(schema.num_stored_masks(num_sources))
    if "ibm" in masks or "irm" in masks:
        magnitudes = np.abs(voices)
        if "ibm" in masks:
            values["ibm"] = features.ideal_binary_mask(magnitudes)[stored]
        if "irm" in masks:
            values["irm"] = features.ideal_ratio_mask(magnitudes)[stored]
    if "psm" in masks:
        values["psm"] = features.phase_sensitive_mask(voices, mixture)[stored]
    return values


def load(recording: plan.Recording, sample_rate: int, num_samples: int) -> np.ndarray:
    """A recording at the dataset's rate, the mean of its channels, cut at its end.

    The last ones are kept in memory, by their SHA-256, until `forget`.

    Args:
        recording: which.
        sample_rate: of the dataset, Hz.
        num_samples: that are wanted.

    Returns:
        Float32 `[sample]`, full scale 1, read-only: the first `num_samples`, or all where there are
        fewer.

    Raises:
        UserError: it cannot be read, or is not the one that the plan was made for.
    """
    key = (recording.sha256, sample_rate)
    with _kept_lock:
        kept = _kept.get(key)
    if kept is not None:
        return kept[:num_samples]
    data = storage.read_bytes(recording.path)
    if hashlib.sha256(data).hexdigest() != recording.sha256:
        raise errors.UserError(
            f"{recording.path}: has changed since it was inspected; run the same command again"
        )
    try:
        # The inspection has compared FLAC's own checksum.
        with decoding.Reader(io.BytesIO(data), verify=False) as reader:
            length = reader.num_samples
            short = length is not None and length <= _LONGEST_KEPT_SECONDS * reader.rate
            if reader.rate == sample_rate and not short:
                # Nothing is resampled, so that what will be cut off need not be decoded.
                blocks = [decoding.mean_channel(next(reader.blocks(num_samples)))]
            else:
                blocks = list(map(decoding.mean_channel, reader.blocks()))
    except decoding.AudioError as error:
        raise errors.UserError(f"{recording.path}: {error}") from error
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    samples = decoding.resample(samples, reader.rate, sample_rate)
    samples.flags.writeable = False
    if short:
        with _kept_lock:
            # Contiguous: a view would keep all channels.
            _kept[key] = np.ascontiguousarray(samples)
    return samples[:num_samples]


def _names(mixture: plan.Mixture, shard: plan.ShardPlan) -> dict[str, Any]:
    return {
        "mixture_id": mixture.id,
        "utterance_ids": mixture.utterance_ids,
        "speaker_ids": mixture.speakers,
        "sexes": [shard.recordings[u].sex for u in mixture.utterance_ids],
        "gains_db": mixture.gains_db,
        "sample_rate": shard.sample_rate,
        "num_samples": mixture.num_samples,
        "num_frames": schema.num_frames(mixture.num_samples),
        "num_bins": schema.NUM_BINS,
        "num_sources": len(mixture.utterance_ids),
    }
