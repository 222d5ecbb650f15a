"""What a job is told, and that part of it which decides what is in the dataset."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable
from typing import Any

from pipeline import plan, schema
from pipeline.corpora import corpus
from pipeline.io import storage


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the command's flags say; their help has more.

    Attributes:
        input_dir: folders of recordings.
        manifest: CSV files.
        output_dir: the dataset's folder; may be empty with `dry_run`.
        include_sa: keep TIMIT's SA1 and SA2.
        sample_rate: of the dataset, Hz.
        masks: that are stored.
        num_shards: of each split.
        valid_fraction: of the train speakers, where no split is declared valid.
        min_seconds: shorter utterances are left out.
        max_seconds: of longer recordings only the beginning is taken.
        mixing: how mixtures are drawn (its `min_samples` and `max_samples` follow from these two).
        mixture_list: a `mixtures.csv` that takes the place of drawing.
        utterances: also store the clean utterances of train.
        max_bad_fraction: more unusable recordings, and more than ten, are a failure.
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
        """Utterances of fewer are left out; with a list of mixtures none is."""
        if self.mixture_list is not None:
            return 1
        return max(1, math.ceil(self.min_seconds * self.sample_rate))

    @property
    def max_samples(self) -> int:
        """Of longer recordings only so many are taken."""
        return math.floor(self.max_seconds * self.sample_rate)


def config(
    settings: Settings,
    utterances: Iterable[corpus.Utterance],
    listed: tuple[str, int] | None = None,
) -> dict[str, Any]:
    """The settings that decide what is in the dataset.

    Args:
        settings: all of them.
        utterances: of the corpus.
        listed: SHA-256 of the list of mixtures and how many voices they have, where there is one.

    Returns:
        Names and values, as `dataset_info.json` keeps them.
    """
    table = [[u.id, u.speaker, u.sex, u.split] for u in utterances]
    content: dict[str, Any] = {
        "input_dir": [_absolute(path) for path in settings.input_dir],
        "manifest": [_absolute(path) for path in settings.manifest],
        "corpus": hashlib.sha256(json.dumps(table).encode()).hexdigest(),
        "include_sa": settings.include_sa,
        "sample_rate": settings.sample_rate,
        "masks": list(settings.masks),
        "features": schema.fingerprint((*schema.MIXTURE_FEATURES, *schema.UTTERANCE_FEATURES)),
        "max_seconds": settings.max_seconds,
        "num_shards": settings.num_shards,
        "seed": settings.mixing.seed,
    }
    if settings.utterances:
        # Not where they are not wanted: datasets from before there were any say nothing of them.
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


def absolute(settings: Settings) -> Settings:
    """The same, for workers that were started in another folder."""
    return dataclasses.replace(
        settings,
        input_dir=tuple(map(_absolute, settings.input_dir)),
        manifest=tuple(map(_absolute, settings.manifest)),
        output_dir=_absolute(settings.output_dir) if settings.output_dir else "",
    )


def _absolute(path: str) -> str:
    return path if storage.is_remote(path) else os.path.abspath(path)
