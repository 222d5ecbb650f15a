"""What tf.data delivers against what the LSTM trains on: examples (windows) a second.

    python -m benchmarks.input --data_dir=/data/mix --save

Both with the trainer's defaults: windows of 100 frames, batches of 64, the network `lstm`. The
training figure is for one batch that lies in memory, so that no input is waited for.
"""

import itertools
import os
import time
from typing import Any

from absl import flags

from benchmarks import measure
from pipeline import command, dataset

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the dataset.")
_MODEL = flags.DEFINE_string("model", "lstm", "The network.")
_STEPS = flags.DEFINE_integer("steps", 30, "Steps of training in a round.", lower_bound=2)
_SECONDS = flags.DEFINE_float("seconds", 10, "Time that the input is read for.", lower_bound=0.1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/input.json.")


def main(arguments: list[str]) -> None:
    if arguments or not _DATA_DIR.value:
        raise flags.Error("--data_dir is needed, and no other argument")
    info = dataset.read(_DATA_DIR.value)
    from trainer import config as config_lib
    from trainer import input as input_lib
    from trainer import splits, training

    config = training.resolve(
        config_lib.Config(data_dir=_DATA_DIR.value, model=_MODEL.value, loss="mask"), info
    )
    config.check(info)
    split = splits.Split(config.data_dir, "train", info)

    def batches() -> Any:
        return input_lib.windows(
            split,
            ("log_magnitude", config.target),
            frames=config.frames,
            batch_size=config.batch_size,
            shuffle_buffer=config.shuffle_buffer,
        )

    model = _compiled(config, info)
    batch = next(iter(batches()))
    jobs = {
        "tf.data": lambda: _delivered(batches(), config.batch_size),
        "training": lambda: _trained(model, batch, config.batch_size),
    }
    _trained(model, batch, config.batch_size)  # Compiles the step.
    measure.report(
        "input",
        "examples/s",
        measure.interleave(jobs, _REPEATS.value),
        {"tf.data / training": ("tf.data", "training")},
        {"network": config.model, "windows": split.num_windows(config.frames)},
        _SAVE.value,
    )


def _compiled(config: Any, info: dataset.DatasetInfo) -> Any:
    """The trainer's model around the network, with fresh weights."""
    import keras

    from trainer import training

    model = training.make_learner(config, info, replicas=1)
    model.compile(keras.optimizers.Adam(config.learning_rate, global_clipnorm=config.clip_norm))
    return model


def _delivered(batches: Any, batch_size: int) -> float:
    """Examples a second once the shuffle buffer is full and the reader warm."""
    iterator = iter(batches)
    next(iterator)
    start = time.perf_counter()
    for count in itertools.count(1):
        next(iterator)
        took = time.perf_counter() - start
        if took > _SECONDS.value:
            return count * batch_size / took
    raise AssertionError


def _trained(model: Any, batch: Any, batch_size: int) -> float:
    import tensorflow as tf

    same = tf.data.Dataset.from_tensors(batch).repeat(_STEPS.value)
    start = time.perf_counter()
    model.fit(same, epochs=1, verbose=0)
    return _STEPS.value * batch_size / (time.perf_counter() - start)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command.run(main, __doc__)
