"""Measures the share of a training step spent waiting for dynamic mixing, and mixing on its own.

    python -m benchmarks.mixing --data_dir=/data/mix --model=tcn --loss=sisdr --sparse=0.3

takes the trainer's flags and trains in the same way. For comparison it runs the same steps on one
batch in memory, without mixing. The share includes the processor time that mixing takes away from
the step. Mixing on its own runs on one thread, without training.
"""

import itertools
import time
from typing import Any

import keras
from absl import flags

from benchmarks import measure
from pipeline import cli
from pipeline.dataset import dataset
from trainer import config as config_lib
from trainer import training
from trainer.data import data_sources, dynamic_mixing, tfio

_STEPS = flags.DEFINE_integer("steps", 40, "Steps per round.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/mixing.json.")


class _Same(keras.utils.PyDataset):
    """Repeats one batch, with the interface of `dynamic_mixing.Batches`."""

    def __init__(self, batch: dict[str, Any], steps: int) -> None:
        super().__init__(workers=1)
        self.batch, self.steps = batch, steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.batch


def main(arguments: list[str]) -> None:
    config = config_lib.Config.from_flags(flags.FLAGS)
    if arguments or not config.data_dir:
        raise flags.Error("--data_dir is needed, and no other argument")
    tfio.connect(config.data_dir)
    info = dataset.read(config.data_dir)
    config = training.resolve(config, info)
    if config.mixing != "dynamic":
        raise flags.Error("give --mixing=dynamic: nothing is mixed otherwise")
    config.check(info)
    steps = _STEPS.value
    data = data_sources.open_dataset(config, info)
    mixed = data.batches(steps, 0)
    assert isinstance(mixed, dynamic_mixing.Batches)
    same = _Same(mixed.mixer.batch(0), steps)
    model = training.make_learner(config, info, replicas=1)
    training._compile(model, config, steps)
    numbers = itertools.count()

    def train(batches: keras.utils.PyDataset) -> float:
        mixed.epoch = next(numbers)
        start = time.perf_counter()
        model.fit(batches, epochs=1, shuffle=False, verbose=0)
        return 1e3 * (time.perf_counter() - start) / steps

    def mix() -> float:
        start = time.perf_counter()
        for number in range(steps):
            mixed.mixer.batch(number)
        return 1e3 * (time.perf_counter() - start) / steps

    train(same)
    jobs = {
        "step": lambda: train(mixed),
        "step, batch in memory": lambda: train(same),
        "mixing, one thread": mix,
    }
    figures = measure.interleave(jobs, _ROUNDS.value)
    measure.report(
        "mixing",
        "ms",
        figures,
        {
            "mixing, one thread / step, batch in memory": (
                "mixing, one thread",
                "step, batch in memory",
            ),
            "step / step, batch in memory": ("step", "step, batch in memory"),
        },
        {
            "backend": keras.backend.backend(),
            "network": config.model,
            "batch": f"{config.batch_size} windows of {config.frames} frames",
            "threads that mix": config.workers,
            "share of a step that waits": round(_share(figures), 3),
        },
        _SAVE.value,
    )


def _share(figures: dict[str, list[float]]) -> float:
    """Computes the share from the fastest run of each, as disturbances only slow runs down."""
    return max(0.0, 1 - min(figures["step, batch in memory"]) / min(figures["step"]))


if __name__ == "__main__":
    config_lib.define_flags()
    cli.run(main, __doc__)
