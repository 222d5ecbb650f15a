"""Clean utterances read from the recordings into memory.

For machines that have the recordings, a dataset's info and its list of mixtures, but no
`utterances/`.
"""

import concurrent.futures
import functools
import sys
from collections.abc import Sequence

import numpy as np
from absl import logging

from pipeline import errors, inspection, virtual_speakers
from pipeline.corpora import corpus
from pipeline.dataset import dataset, utterance_shards
from pipeline.io import cores
from trainer.data import clean_utterances, splits


def read(
    manifests: Sequence[str], folder: str, info: dataset.DatasetInfo
) -> clean_utterances.Utterances:
    """Reads the recordings of training speakers from manifests, at the dataset's sample rate.

    Speakers in the validation or test mixtures of the dataset are excluded by name, with their
    virtual copies, using the dataset's own list of mixtures, whatever the manifests say. Speakers
    that a manifest assigns to a split other than train are excluded, too. Recordings too short for
    the dataset are skipped, as are, with a warning, unreadable ones.

    Args:
        manifests: paths of CSV files.
        folder: folder of the dataset.
        info: info of the dataset.

    Raises:
        UserError: a manifest is invalid, none of its recordings is usable, or the validation and
            test speakers are not known.
    """
    import tqdm

    where = ", ".join(manifests)
    table = corpus.read(manifests=manifests)
    kept_apart = _kept_apart(folder, info)
    split_of = corpus.assign_splits(table.utterances, valid_fraction=0)
    of_train = [u for u in table.utterances if split_of[u.speaker] == utterance_shards.SPLIT]
    # Nor is anything learnt from virtual copies of those speakers.
    wanted = [u for u in of_train if virtual_speakers.original(u.speaker) not in kept_apart]
    _warn_of_contradictions(where, of_train, kept_apart)
    if not wanted:
        raise errors.UserError(f"{where}: no recording is of the split train")
    least = info.config.get("min_seconds", 0.0) * info.sample_rate
    load = functools.partial(_load, rate=info.sample_rate)
    samples, levels, speakers = [], [], []
    rejections = list(table.rejections)
    # Decoding and resampling release the GIL.
    with concurrent.futures.ThreadPoolExecutor(cores.available_cores()) as threads:
        found = threads.map(load, wanted)
        bar = tqdm.tqdm(
            found, f"reading {where}", len(wanted), unit=" recordings", leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for utterance, one in zip(wanted, bar, strict=True):
            if isinstance(one, corpus.Rejection):
                rejections.append(one)
            elif len(one[0]) >= least:
                samples.append(one[0])
                levels.append(one[1])
                speakers.append(utterance.speaker)
    if rejections:
        logging.warning(
            "%d recordings of %s are left out, such as %s: %s",
            len(rejections), where, rejections[0].path, rejections[0].reason,
        )  # fmt: skip
    if not samples:
        raise errors.UserError(f"{where}: no recording of the split train can be used")
    return clean_utterances.Utterances.of(samples, levels, speakers)


def _kept_apart(folder: str, info: dataset.DatasetInfo) -> set[str]:
    """Returns the speakers in the dataset's mixtures of other splits than train."""
    speakers: set[str] = set()
    for name, split in info.splits.items():
        if name != utterance_shards.SPLIT and split.mixtures:
            try:
                speakers |= splits.Split(folder, name, info).speakers()
            except errors.UserError as error:
                raise errors.UserError(
                    f"--utterances_manifest needs the dataset's list of mixtures, to exclude "
                    f"its validation and test speakers: {error}"
                ) from error
    return speakers


def _warn_of_contradictions(
    where: str, of_train: Sequence[corpus.Utterance], kept_apart: set[str]
) -> None:
    declared = {u.speaker for u in of_train if u.split} & kept_apart
    if declared:
        logging.warning(
            "%s: the dataset validates or tests with speakers that are declared train there, such "
            "as %s; %d of them are left out",
            where, min(declared), len(declared),
        )  # fmt: skip


def _load(utterance: corpus.Utterance, rate: int) -> tuple[np.ndarray, float] | corpus.Rejection:
    """Returns samples, int16 `[sample]`, and their active level, or the reason for rejection."""
    found = inspection.read(utterance.path, rate)
    if isinstance(found, corpus.Rejection):
        return found
    values = utterance_shards.compute(found.samples, rate)
    if not values["samples"].any():
        return corpus.Rejection(utterance.path, "silent")
    return values["samples"], values["active_level_db"]
