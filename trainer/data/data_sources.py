"""Data sources of a run: windows of stored mixtures, or new mixtures in every step."""

import math
import os
from collections.abc import Iterable
from typing import Any

from absl import logging

from pipeline import errors, schema
from pipeline.dataset import dataset
from pipeline.io import storage
from trainer import config as config_lib
from trainer.data import (
    acoustics,
    clean_utterances,
    dynamic_mixing,
    recorded_utterances,
    splits,
    validation_batches,
)


class Stored:
    """Windows of the dataset's mixtures (`--mixing=static`), read by tf.data.

    Args:
        config: all settings, resolved.
        info: info of the dataset.
    """

    def __init__(self, config: config_lib.Config, info: dataset.DatasetInfo) -> None:
        try:
            from trainer.data import stored_windows  # noqa: F401
        except ImportError as error:
            raise errors.UserError(
                f"--mixing=static reads with TensorFlow ({error}); install it, or train with "
                "--mixing=dynamic"
            ) from error
        assert config.frames
        assert config.batch_size
        self._config = config
        self._split = splits.open_split(config.data_dir, "train", info, config.skip_corrupt)
        self.features = ("log_magnitude", config.target) if config.loss == "mask" else ("sources",)
        self._num_windows = self._split.num_windows(config.frames)
        self.steps = math.ceil(self._num_windows / config.batch_size)

    def batches(self, steps: int, epoch: int) -> Iterable[Any]:
        """Returns the run's batches from an epoch on, endlessly."""
        from trainer.data import stored_windows

        config = self._config
        assert config.frames
        assert config.batch_size
        return stored_windows.windows(
            self._split,
            self.features,
            frames=config.frames,
            batch_size=config.batch_size,
            first_batch=epoch * steps,
            seed=config.seed,
            shuffle_buffer=config.shuffle_buffer,
            cache=config.cache,
        )

    def describe(self) -> str:
        """Describes the training data for the headline."""
        mixtures = self._split.info.splits["train"].mixtures
        return (
            f"{self._num_windows:,} windows of {self._config.frames} frames from {mixtures:,} "
            "mixtures"
        )


class Mixed:
    """New mixtures of the dataset's clean utterances in every step (`--mixing=dynamic`).

    Args:
        config: all settings, resolved.
        info: info of the dataset.
    """

    def __init__(self, config: config_lib.Config, info: dataset.DatasetInfo) -> None:
        assert config.frames
        assert config.batch_size
        self._config = config
        if config.utterances_manifest:
            self._store = recorded_utterances.read(
                config.utterances_manifest, config.data_dir, info
            )
        else:
            self._store = clean_utterances.read(config.data_dir, info)
        settings = dynamic_mixing.Settings(
            num_sources=info.num_sources,
            num_samples=schema.HOP * config.frames,
            batch_size=config.batch_size,
            sample_rate=info.sample_rate,
            max_snr_db=config.max_snr_db,
            speed=config.speed,
            noise=config.noise,
            noise_snr_db=config.noise_snr_db,
            rooms=config.rooms,
            sparse=config.sparse,
            seed=config.seed,
        )
        surroundings = acoustics.Surroundings(
            info.sample_rate,
            config.noise_dir if config.noise else "",
            config.room_dir if config.rooms else "",
        )
        try:
            self._mixer = dynamic_mixing.Mixer(self._store, settings, surroundings)
        except ValueError as error:
            where = ", ".join(config.utterances_manifest) or config.data_dir
            raise errors.UserError(f"{where}: {error}") from error
        # An epoch has as many seconds of speech as the dataset.
        self.steps = math.ceil(
            self._store.num_samples
            / (settings.num_samples * settings.batch_size * settings.num_sources)
        )

    def batches(self, steps: int, epoch: int) -> Iterable[Any]:
        """Returns the run's batches; `callbacks.NextEpoch` sets the first epoch."""
        return dynamic_mixing.Batches(self._mixer, steps, self._config.workers)

    def describe(self) -> str:
        """Describes the training data for the headline."""
        settings = self._mixer.settings
        hours = self._store.num_samples / settings.sample_rate / 3600
        seconds = settings.num_samples / settings.sample_rate
        return (
            f"windows of {seconds:.1f} s mixed from {hours:.1f} h of "
            f"{len(self._store.by_speaker):,} speakers"
        )


def open_dataset(config: config_lib.Config, info: dataset.DatasetInfo) -> Stored | Mixed:
    """Opens the data source selected by `--mixing`.

    Raises:
        UserError: the dataset does not support it, or is damaged.
    """
    return (Mixed if config.mixing == "dynamic" else Stored)(config, info)


def validation(
    config: config_lib.Config, info: dataset.DatasetInfo
) -> validation_batches.Batches | None:
    """Returns whole mixtures of the split `valid`, or None if it has none.

    Raises:
        DamagedShardError: a shard is damaged.
    """
    if "valid" not in info.splits or not info.splits["valid"].mixtures:
        return None
    split = splits.Split(config.data_dir, "valid", info)
    if config.utterances_manifest and not any(map(_exists, split.paths)):
        logging.warning(
            "%s has no shard of the split valid: the training loss decides which model is best",
            config.data_dir,
        )
        return None
    return validation_batches.Batches(validation_batches.read(split, config.skip_corrupt))


def find_damage(config: config_lib.Config, info: dataset.DatasetInfo) -> None:
    """Reads all training records to find the damaged one after a failure.

    Raises:
        DamagedShardError: names the shard and the record.
    """
    if config.mixing == "dynamic":
        return
    from trainer.data import stored_windows

    features = ("log_magnitude", config.target) if config.loss == "mask" else ("sources",)
    stored_windows.find_damage(splits.Split(config.data_dir, "train", info), features)


def _exists(path: str) -> bool:
    return storage.is_remote(path) or os.path.exists(path)
