"""A dataset's folder: its info, the marker that it is whole, the lock, and what is missing."""

import dataclasses
import json
from typing import Any

from pipeline import errors, schema


class DatasetError(errors.UserError):
    """A folder is no dataset, or not the one that is needed."""


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """One shard: file name, number of records, of bytes, and the SHA-256 of the file."""

    name: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class SplitInfo:
    """One split: mixtures, speakers, seconds of mixture, spectrogram frames, and its shards."""

    mixtures: int
    speakers: int
    seconds: float
    frames: int
    shards: tuple[ShardInfo, ...]


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What `dataset_info.json` holds.

    Attributes:
        schema_version: of `pipeline.schema`.
        config: the settings that decide the dataset's content (sample_rate, num_sources, masks,
            level, length, seed, …), less the runner and the number of workers.
        splits: by name, those that have mixtures.
        mean: of the train split's log-magnitudes over all bins and frames; None without train.
        deviation: likewise, the standard deviation.
        active_level_db: mean over the train split's mixtures of their active level, dB; likewise.
        plan_digest: SHA-256 of the plan.
        versions: of this package and the libraries that decide bytes.
        created: UTC, ISO 8601.
    """

    schema_version: int
    config: dict[str, Any]
    splits: dict[str, SplitInfo]
    mean: float | None
    deviation: float | None
    active_level_db: float | None
    plan_digest: str
    versions: dict[str, str]
    created: str

    @property
    def sample_rate(self) -> int:
        """In Hz."""
        return int(self.config["sample_rate"])

    @property
    def num_sources(self) -> int:
        """Voices in each mixture."""
        return int(self.config["num_sources"])

    @property
    def masks(self) -> tuple[str, ...]:
        """The masks that are stored."""
        return tuple(self.config["masks"])

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "DatasetInfo":
        """The info in the text of the file.

        Raises:
            DatasetError: it is not such a text, or of another version of the schema.
        """
        try:
            fields = json.loads(text)
            if fields["schema_version"] != schema.SCHEMA_VERSION:
                raise DatasetError(
                    f"the dataset has schema version {fields['schema_version']}, this program "
                    f"reads {schema.SCHEMA_VERSION}; make it anew with pipeline.preprocess"
                )
            fields["splits"] = {
                name: SplitInfo(
                    **{**split, "shards": tuple(ShardInfo(**shard) for shard in split["shards"])}
                )
                for name, split in fields["splits"].items()
            }
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise DatasetError(f"{schema.INFO_FILE} is damaged: {error}") from error
