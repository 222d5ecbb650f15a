"""The settings of a job, and the subset of them that determines the dataset's content."""

import dataclasses
import hashlib
import json
import math
import os
from typing import Any

from pipeline import columns, plan, schema
from pipeline.corpora import utterance_table
from pipeline.io import storage


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings from the command's flags, whose help says more.

    Attributes:
        input_dir: folders of recordings.
        manifest: CSV files.
        output_dir: the dataset's folder; may be empty with `dry_run`.
        include_sa: keep TIMIT's SA1 and SA2.
        sample_rate: sample rate of the dataset in Hz.
        masks: names of the masks to store.
        num_shards: number of shards of each split.
        valid_fraction: fraction of the train speakers that become valid if none is declared so.
        min_seconds: shorter utterances are left out.
        max_seconds: longer recordings are cut to this at their end.
        mixing: how mixtures are drawn (its `min_samples` and `max_samples` follow from these two).
        mixture_list: a `mixtures.csv` whose mixtures are used instead of drawing.
        utterances: also store the clean utterances of train.
        max_bad_fraction: the job fails if the fraction of unusable recordings is larger, and there
            are more than ten.
        dry_run: stop after the plan.
        overwrite: replace a finished dataset.
    """

    input_dir: tuple[str, ...] = ()
    manifest: tuple[str, ...] = ()
    output_dir: str = ""
    include_sa: bool = False
    sample_rate: int = schema.DEFAULT_SAMPLE_RATE
    masks: tuple[str, ...] = schema.MASKS
    num_shards: int = 8
    valid_fraction: float = 0.1
    min_seconds: float = 1.0
    max_seconds: float = 600.0
    mixing: plan.Settings = dataclasses.field(default_factory=plan.Settings)
    mixture_list: str | None = None
    utterances: bool = True
    max_bad_fraction: float = 0.01
    dry_run: bool = False
    overwrite: bool = False

    @property
    def min_samples(self) -> int:
        """Minimum length of utterances; with a list of mixtures, all are kept."""
        if self.mixture_list is not None:
            return 1
        return max(1, math.ceil(self.min_seconds * self.sample_rate))

    @property
    def max_samples(self) -> int:
        """Length to which longer recordings are cut."""
        return math.floor(self.max_seconds * self.sample_rate)


def config(
    settings: Settings,
    utterances: utterance_table.UtteranceTable,
    listed: tuple[str, int] | None = None,
) -> dict[str, Any]:
    """Returns the settings that determine the dataset's content.

    Args:
        settings: all settings.
        utterances: utterances of the corpus.
        listed: SHA-256 of the list of mixtures and its number of voices, if there is one.

    Returns:
        Names and values, as in `dataset_info.json`.
    """
    content: dict[str, Any] = {
        "input_dir": [_absolute(path) for path in settings.input_dir],
        "manifest": [_absolute(path) for path in settings.manifest],
        "corpus": _digest(utterances),
        "include_sa": settings.include_sa,
        "sample_rate": settings.sample_rate,
        "masks": list(settings.masks),
        "features": schema.fingerprint((*schema.MIXTURE_FEATURES, *schema.UTTERANCE_FEATURES)),
        "max_seconds": settings.max_seconds,
        "num_shards": settings.num_shards,
        "seed": settings.mixing.seed,
    }
    if settings.utterances:
        # Left out if false, since older datasets without utterances do not have this setting.
        content["utterances"] = True
    if listed is not None:
        digest, num_sources = listed
        return {**content, "mixture_list": digest, "num_sources": num_sources}
    mixing = dataclasses.asdict(settings.mixing)
    del mixing["min_samples"], mixing["max_samples"]
    return {
        **content,
        **mixing,
        "min_seconds": settings.min_seconds,
        "valid_fraction": settings.valid_fraction,
    }


def _digest(utterances: utterance_table.UtteranceTable) -> str:
    """Returns the SHA-256 of a table of the utterances in JSON, made some rows at a time."""
    digest = hashlib.sha256(b"[")
    known = (utterances.ids, utterances.speakers, utterances.sexes, utterances.splits)
    for part in columns.chunks(len(utterances)):
        rows = json.dumps(list(zip(*(column.at(part) for column in known), strict=True)))[1:-1]
        digest.update((", " if part[0] else "").encode() + rows.encode())
    digest.update(b"]")
    return digest.hexdigest()


def absolute(settings: Settings) -> Settings:
    """Makes paths absolute, for workers that were started in another folder."""
    return dataclasses.replace(
        settings,
        input_dir=tuple(map(_absolute, settings.input_dir)),
        manifest=tuple(map(_absolute, settings.manifest)),
        output_dir=_absolute(settings.output_dir) if settings.output_dir else "",
    )


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)
