"""A training run from Python: the implementation of `python -m trainer.task`."""

import dataclasses
import importlib.util
import math
import sys

import keras
from absl import logging

from models import registry, separator
from models.layers import fused_convolution, fused_lstm
from pipeline import errors
from pipeline.dataset import dataset
from trainer import config as config_lib
from trainer import objectives, optimizer, training_models
from trainer.data import data_sources, dynamic_mixing, tfio, validation_batches
from trainer.run import callbacks, devices, initial_weights, run_folder


def train(config: config_lib.Config, model_dir: str) -> run_folder.State:
    """Trains a network, or resumes the run in the folder.

    Args:
        config: all settings.
        model_dir: folder of the run.

    Returns:
        The final state; `history` has the metrics of every epoch.

    Raises:
        UserError: a problem that the user can fix, such as a damaged shard.
    """
    tfio.connect(config.data_dir)
    info = dataset.read(config.data_dir)
    config = resolve(config, info)
    folder = run_folder.RunFolder(model_dir)
    assert config.loss
    learns_masks = objectives.learns_masks(config.loss, registry.NETWORKS[config.model])
    config.check(info, folder.read_settings(), learns_masks)
    with folder.lock():
        return _train(config, info, folder)


def _train(
    config: config_lib.Config, info: dataset.DatasetInfo, folder: run_folder.RunFolder
) -> run_folder.State:
    """Runs the training in a locked folder; see `train`."""
    assert config.batch_size
    scope, replicas = devices.use_all(config.batch_size)
    keras.utils.set_random_seed(config.seed)
    with scope():
        model = make_learner(config, info, replicas)
    data = data_sources.open_dataset(config, info)
    if config.init_from and not folder.has_state():
        initial_weights.load(config.init_from, model.separator)
    before = folder.read_settings()
    state = folder.claim(config, info)
    late = bool(config.max_minutes) and state.minutes >= config.max_minutes
    waited = state.callbacks.get("EarlyStopping", {}).get("wait", config.patience)
    stopped = state.stopped and 0 < config.patience <= waited
    if state.epoch >= config.epochs or stopped or late:
        print(_summary(folder, state, "had already finished"))
        return state

    valid = data_sources.validation(config, info)
    if state.history and (valid is None) == ("val_loss" in state.history[-1]):
        has, began = ("no shard of the", "with") if valid is None else ("the", "without")
        raise errors.UserError(
            f"{config.data_dir} has {has} split valid, but the run in {folder.path} began {began} "
            "validation; name the dataset it began with"
        )
    steps = config.steps_per_epoch or data.steps
    with scope():
        _compile(model, config, steps)
    if state.weights:
        folder.load_weights(state, model.load_weights)
    print(_headline(config, info, model, data, valid is not None), flush=True)
    if config.mixed_precision and devices.emulates_bfloat16():
        logging.warning("--mixed_precision: this processor emulates bfloat16, which is no faster")
    if state.epoch:
        print(f"resuming after epoch {state.epoch}", flush=True)
        if before is not None:
            _tell_new_rate(before, config, steps * state.epoch, steps)
    batches = data.batches(steps, state.epoch)
    chosen = _callbacks(config, model, folder, state, valid)
    if isinstance(batches, dynamic_mixing.Batches):
        chosen.insert(0, callbacks.NextEpoch(batches))
    try:
        model.fit(
            batches,
            initial_epoch=state.epoch,
            epochs=config.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # The batches are shuffled already.
            callbacks=chosen,
            # A progress bar on a terminal, one line per epoch in a file.
            verbose=1 if sys.stdout.isatty() else 2,
        )
    except Exception as error:
        if type(error).__name__ in ("DataLossError", "InvalidArgumentError"):
            data_sources.find_damage(config, info)
        raise
    print(_summary(folder, state, "finished"))
    return state


def resolve(config: config_lib.Config, info: dataset.DatasetInfo) -> config_lib.Config:
    """Fills in the settings that are left open, by network and dataset.

    Raises:
        UserError: there is no such network.
        SettingsError: the network does not support the loss.
    """
    registry.settings(config.model)
    network = registry.NETWORKS[config.model]
    waveform = network.takes == "waveform"
    loss = config.loss or objectives.default_loss(network)
    if (loss == "mask" and waveform) or (
        loss == "clustering" and not hasattr(network, "embeddings")
    ):
        raise config_lib.SettingsError(
            f"the network {config.model} cannot learn --loss={loss}; "
            f"leave it out for {objectives.default_loss(network)}"
        )
    on_waveforms = loss in ("sisdr", "snr")
    has_utterances = info.utterances is not None or bool(config.utterances_manifest)
    return dataclasses.replace(
        config,
        loss=loss,
        mixing=config.mixing or ("dynamic" if waveform and has_utterances else "static"),
        frames=config.frames or (500 if on_waveforms else 100),
        batch_size=config.batch_size or (8 if on_waveforms else 64),
    )


def make_learner(
    config: config_lib.Config, info: dataset.DatasetInfo, replicas: int
) -> training_models.MaskLearner | training_models.MixtureLearner:
    """Returns the separator with random weights, wrapped for training.

    Args:
        config: all settings, resolved.
        info: info of the dataset.
        replicas: see `training_models.MaskLearner`.
    """
    settings = config.network_settings()
    settings["num_outputs"] = config.num_outputs(info.num_sources)
    if config.mixed_precision:
        settings["dtype"] = "mixed_bfloat16"
    mean, deviation, level = info.mean, info.deviation, info.active_level_db
    assert mean is not None
    assert deviation is not None
    assert level is not None
    whole = separator.wrap(
        registry.create(config.model, **settings),
        mean=mean,
        deviation=deviation,
        active_level_db=level,
        sample_rate=info.sample_rate,
        num_sources=info.num_sources,
    )
    model: training_models.MaskLearner | training_models.MixtureLearner
    if config.loss == "mask" and config.mixing == "static":
        model = training_models.MaskLearner(whole, config.target, config.assignment, replicas)
    else:
        model = training_models.MixtureLearner(whole, _objective(config), replicas)
    model.build()
    return model


def _objective(config: config_lib.Config) -> objectives.Objective:
    assert config.loss
    return objectives.Objective(config.loss, config.target, config.assignment == "fixed")


def _compile(model: keras.Model, config: config_lib.Config, steps: int) -> None:
    if config.jit_compile and keras.backend.backend() == "torch":
        raise config_lib.SettingsError(
            "--jit_compile is for TensorFlow: PyTorch would recompile in almost every step"
        )
    jit = "auto" if keras.backend.backend() == "jax" else config.jit_compile
    for layers in (fused_lstm, fused_convolution):
        layers.set_fused(model, not (jit or devices.has_gpu()))
    model.compile(optimizer.make(config, steps, model.trainable_variables), jit_compile=jit)


def _tell_new_rate(
    before: config_lib.Config, config: config_lib.Config, step: int, steps: int
) -> None:
    """Reports the jump of the learning rate if the length of the cosine schedule has changed."""
    if config.schedule == "cosine" and config.epochs != before.epochs:
        was, now = (
            float(keras.ops.convert_to_numpy(optimizer.cosine(c, steps)(step)))
            for c in (before, config)
        )
        print(
            f"--epochs {before.epochs} → {config.epochs}: the cosine schedule now ends there; the "
            f"learning rate continues at {now:.2g} (it was {was:.2g})",
            flush=True,
        )


def _callbacks(
    config: config_lib.Config,
    model: keras.Model,
    folder: run_folder.RunFolder,
    state: run_folder.State,
    valid: validation_batches.Batches | None,
) -> list[keras.callbacks.Callback]:
    """Returns the callbacks; each depends on those before it."""
    chosen: list[keras.callbacks.Callback] = [
        callbacks.SetSeeds(),
        callbacks.StopAtNaN(folder.best),
    ]
    if not sys.stdout.isatty():
        chosen.append(callbacks.PrintProgress())
    if config.ema:
        chosen.append(callbacks.SwapAverages())
    monitor, mode = "loss", "min"
    if valid is not None:
        whole = training_models.WholeMixtures(model.separator, _objective(config))
        whole.build()
        chosen.append(callbacks.Validate(whole, valid))
        monitor, mode = "val_si_sdr_improvement", "max"
    chosen.append(callbacks.Pace())
    best = callbacks.KeepBest(folder.best, monitor, mode)
    chosen.append(best)
    if config.ema:
        # Training goes on with the weights themselves, and resuming needs them.
        chosen.append(callbacks.SwapAverages())
    kept: list[keras.callbacks.Callback] = [best]
    if config.schedule == "plateau":
        kept.append(
            callbacks.ReduceLROnPlateau(
                monitor, factor=0.5, patience=3, mode=mode, min_lr=config.learning_rate / 1000
            )
        )
    if config.patience:
        kept.append(keras.callbacks.EarlyStopping(monitor, patience=config.patience, mode=mode))
    chosen += kept[1:]
    if config.tensorboard and _can_write_events():
        chosen.append(keras.callbacks.TensorBoard(str(folder.tensorboard), write_graph=False))
    chosen += [callbacks.KeepLast(folder, state, kept), callbacks.Draw(folder.curves, state)]
    if config.max_minutes:
        chosen.append(callbacks.StopInTime(state, config.max_minutes))
    return chosen


def _can_write_events() -> bool:
    # Keras writes events through TensorFlow, which does not include TensorBoard since 2.20.
    return keras.backend.backend() == "tensorflow" and bool(importlib.util.find_spec("tensorboard"))


def _headline(
    config: config_lib.Config,
    info: dataset.DatasetInfo,
    model: keras.Model,
    data: data_sources.Stored | data_sources.Mixed,
    validates: bool,
) -> str:
    parameters = sum(math.prod(v.shape) for v in model.trainable_variables)
    valid = info.splits["valid"].mixtures if validates else 0
    return (
        f"{devices.describe()}, {keras.backend.backend()}; {config.model} with {parameters:,} "
        f"parameters; {data.describe()}, {valid:,} for validation"
    )


def _summary(folder: run_folder.RunFolder, state: run_folder.State, what: str) -> str:
    best = state.callbacks.get("KeepBest", {}).get("best")
    monitored = any("val_si_sdr_improvement" in row for row in state.history)
    figure = f"{best:.2f} dB SI-SDR improvement in validation" if monitored else f"loss {best:.4g}"
    reason = " by early stopping" if state.stopped else ""
    return f"{what} after {state.epoch} epochs{reason}; best: {figure}, in {folder.best}"
