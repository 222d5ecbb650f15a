"""Callbacks after each epoch: validation, the best model, the state for resuming, curves."""

import math
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from absl import logging

from pipeline import errors
from pipeline.io import atomic
from trainer import training_models
from trainer.data import dynamic_mixing, validation_batches
from trainer.run import run_folder

# State of Keras callbacks that must survive an interruption; Keras does not save it.
_KEPT = {
    "EarlyStopping": ("wait", "best", "best_epoch"),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
}

# Above this share of busy time, mixing limits the speed. Short epochs are not conclusive.
_NO_REST = 0.9
_LONG_EPOCH_SECONDS = 20.0


class StopAtNaN(keras.callbacks.Callback):
    """Stops the run with a clear error when the loss is no longer finite.

    Args:
        best: path of the best model, which a new run can start from.
    """

    def __init__(self, best: pathlib.Path) -> None:
        super().__init__()
        self.best = best

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # The loss is the running mean of the epoch, so it stays non-finite. Checking only every 20
        # steps avoids waiting for the device.
        if batch % 20 == 0:
            self._check(f"by step {batch + 1}", logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check("by its end", logs)

    def _check(self, when: str, logs: dict[str, Any] | None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            advice = "try a lower --learning_rate or --clip_norm"
            if self.epoch:  # This folder takes no other settings any more.
                advice = (
                    "start a new run with a lower --learning_rate or --clip_norm and "
                    f"--init_from={self.best}"
                )
            raise errors.UserError(
                f"the loss became {loss} in epoch {self.epoch + 1}, {when}; {advice}"
            )


class PrintProgress(keras.callbacks.Callback):
    """Prints the progress of a long epoch once a minute, where there is no progress bar."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        self.last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if time.monotonic() - self.last > 60:
            self.last = time.monotonic()
            loss = float((logs or {}).get("loss", math.nan))
            steps = (self.params or {}).get("steps")
            print(f"epoch {self.epoch + 1}: step {batch + 1}/{steps}, loss {loss:.4g}", flush=True)


class NextEpoch(keras.callbacks.Callback):
    """Sets the epoch of dynamically mixed batches before they are read.

    It warns once, after the first long epoch in which the mixing threads were always busy: batches
    are mixed ahead, so busy threads mean that the training steps wait for them.

    Args:
        batches: batches of the run.
    """

    def __init__(self, batches: dynamic_mixing.Batches) -> None:
        super().__init__()
        self.batches = batches
        self.warned = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.batches.epoch = epoch
        self.batches.busy_seconds()
        self.start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seconds = time.monotonic() - self.start
        share = self.batches.busy_seconds() / max(seconds, 1e-9)
        if share > _NO_REST and seconds > _LONG_EPOCH_SECONDS and not self.warned:
            self.warned = True
            logging.warning(
                "training waits for mixtures: threads mix for %.0f %% of the time; give more "
                "--workers", 100 * share,
            )  # fmt: skip


class SetSeeds(keras.callbacks.Callback):
    """Makes random layers, such as dropout, depend only on the seed and the epoch.

    The weights file does not contain the state of their generators. Without this, a resumed run
    would draw other numbers than an uninterrupted one.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for variable in self.model.variables:
            if variable.name == "seed_generator_state":
                state = keras.ops.convert_to_numpy(variable)
                # Seeds of epochs are 1,000,003 apart, more than the draws of a layer per epoch.
                variable.assign(np.array([state[0], epoch * 1_000_003 % 2**32], state.dtype))


class SwapAverages(keras.callbacks.Callback):
    """Swaps the weights and their exponential moving averages at the end of each epoch.

    Place one before and one after the callbacks that should see the averages.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        optimizer = self.model.optimizer
        # Keras' SwapEMAWeights uses the same list, but leaves the weights swapped for all later
        # callbacks, so a run would resume from the averages.
        for variable, average in zip(
            self.model.trainable_variables,
            optimizer._model_variables_moving_average,
            strict=True,
        ):
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)


class Validate(keras.callbacks.Callback):
    """Adds the metrics over the whole mixtures of the validation split to the epoch's logs.

    Args:
        model: computes the metrics of a batch of mixtures.
        batches: batches from `trainer.data.validation_batches`.
    """

    def __init__(
        self, model: training_models.WholeMixtures, batches: Sequence[validation_batches.Batch]
    ) -> None:
        super().__init__()
        self.whole_mixtures = model
        self.batches = batches

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs |= {f"val_{k}": v for k, v in validate(self.whole_mixtures, self.batches).items()}


def validate(
    model: training_models.WholeMixtures, batches: Sequence[validation_batches.Batch]
) -> dict[str, float]:
    """Computes `loss`, `mask_accuracy` and `si_sdr_improvement` (dB) over whole mixtures."""
    # Not `predict`: on TensorFlow it assumes that the third batch is as long as the first two, and
    # on JAX that the batch size is a multiple of the number of devices.
    found = [model.predict_on_batch(batch) for batch in batches]
    figures = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    real = figures["real"] > 0
    error, weight, agreed, counted, improvement = (
        np.asarray(figures[name], np.float64)[real]
        for name in ("error", "weight", "agreed", "counted", "si_sdr_improvement")
    )
    return {
        "loss": float(error.sum() / weight.sum()),
        "mask_accuracy": float(agreed.sum() / counted.sum()),
        "si_sdr_improvement": float(improvement.mean()),
    }


class Pace(keras.callbacks.Callback):
    """Adds the last learning rate and the seconds (with validation) to the epoch's logs."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.start = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.last_rate()
            logs["seconds"] = time.monotonic() - self.start


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """Keras's callback, which would replace the logged learning rate by that without warm-up."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, dict(logs or {}))


class KeepBest(keras.callbacks.Callback):
    """Saves the whole separator whenever it is better than before.

    Args:
        path: path of the `.keras` file.
        monitor: name of the metric.
        mode: `max` or `min`.
    """

    def __init__(self, path: pathlib.Path, monitor: str, mode: str) -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self.sign = 1 if mode == "max" else -1
        self.best: float | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {})[self.monitor]
        if math.isnan(value):
            return
        if self.best is None or self.sign * value > self.sign * self.best:
            self.best = float(value)
            with atomic.replacing(self.path, durable=True) as temporary:
                self.model.separator.save(temporary)


class KeepLast(keras.callbacks.Callback):
    """Saves everything needed to resume after each epoch, and restores it at the start.

    It must come after `others`, so that it saves their changes of this epoch and restores what they
    reset at the start.

    Args:
        folder: folder of the run.
        state: state to start from.
        others: callbacks whose state is saved.
    """

    def __init__(
        self,
        folder: run_folder.RunFolder,
        state: run_folder.State,
        others: list[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self.folder = folder
        self.state = state
        self.others = {type(other).__name__: other for other in others}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for name, other in self.others.items():
            for attribute, value in self.state.callbacks.get(name, {}).items():
                setattr(other, attribute, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {name: float(value) for name, value in (logs or {}).items()}
        self.state.epoch = epoch + 1
        self.state.stopped = bool(self.model.stop_training)
        self.state.history.append({"epoch": epoch + 1, **row})
        self.state.callbacks = {
            name: {a: _plain(getattr(other, a)) for a in _KEPT.get(name, ("best",))}
            for name, other in self.others.items()
        }
        self.folder.write_state(self.state, self.model.save_weights)


class StopInTime(keras.callbacks.Callback):
    """Stops a run when its time is used up; after `KeepLast`, so that it can be resumed.

    Args:
        state: state whose history has the seconds of all epochs.
        minutes: time limit of the run, in minutes.
    """

    def __init__(self, state: run_folder.State, minutes: float) -> None:
        super().__init__()
        self.state = state
        self.minutes = minutes

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.state.minutes >= self.minutes:
            self.model.stop_training = True


class Draw(keras.callbacks.Callback):
    """Draws the curves, at most every twenty seconds and at the end.

    Args:
        path: path of the PNG file.
        state: state whose history is drawn.
    """

    def __init__(self, path: pathlib.Path, state: run_folder.State) -> None:
        super().__init__()
        self.path = path
        self.state = state
        self.last = -math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if time.monotonic() - self.last > 20:
            self._draw()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._draw()

    def _draw(self) -> None:
        from trainer.run import curves

        curves.draw(self.state.history, self.path)
        self.last = time.monotonic()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
