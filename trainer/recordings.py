"""Clean utterances from the recordings themselves, read once into memory.

For a machine that has the audio and a dataset's info, but not its `utterances/`.
"""

import concurrent.futures
import functools
import os
import sys
from collections.abc import Sequence

import numpy as np
from absl import logging

from pipeline import audio, corpus, dataset, errors, inspection, storage, utterance_shards
from trainer import utterances


def read(manifests: Sequence[str], info: dataset.DatasetInfo) -> utterances.Utterances:
    """The recordings of train that manifests list, at the dataset's rate.

    Which speakers are of train is decided as the dataset's own job does, so that nobody is learnt
    from who is validated with. What is too short for the dataset is left out; what cannot be read,
    too, with a warning.

    Args:
        manifests: CSV files.
        info: of the dataset.

    Raises:
        UserError: a manifest is wrong, or none of its recordings of train can be used.
    """
    import tqdm

    where = ", ".join(manifests)
    table = corpus.read(manifests=manifests)
    fraction = info.config.get("valid_fraction", 0.0) if "valid" in info.splits else 0.0
    split_of = corpus.assign_splits(table.utterances, fraction)
    wanted = [u for u in table.utterances if split_of[u.speaker] == utterance_shards.SPLIT]
    if not wanted:
        raise errors.UserError(f"{where}: no recording is of the split train")
    least = info.config.get("min_seconds", 0.0) * info.sample_rate
    load = functools.partial(_load, rate=info.sample_rate)
    samples, levels, speakers = [], [], []
    rejections = list(table.rejections)
    # Decoding and resampling let go of the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
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
    return utterances.Utterances.of(samples, levels, speakers)


def _load(utterance: corpus.Utterance, rate: int) -> tuple[np.ndarray, float] | corpus.Rejection:
    """Samples, int16 `[sample]`, and their active level; or why they are rejected."""
    try:
        samples, _, _ = inspection.decode(storage.read_bytes(utterance.path), rate)
    except storage.ReadError as error:
        return corpus.Rejection(utterance.path, error.reason)
    except audio.AudioError as error:
        return corpus.Rejection(utterance.path, str(error))
    values = utterance_shards.compute(samples, rate)
    if not values["samples"].any():
        return corpus.Rejection(utterance.path, "silent")
    return values["samples"], values["active_level_db"]
