"""The child process of `benchmarks.input` for this project's input pipeline and training."""

import itertools
import json
import pathlib
import sys
import time
from typing import Any

import numpy as np

from benchmarks import children
from pipeline.dataset import dataset
from trainer import config as config_lib
from trainer import training
from trainer.data import splits
from trainer.data import stored_windows as input_lib


def main(data_dir: str, network: str) -> None:
    """Serves jobs with the trainer's defaults: windows of 100 frames in batches of 64."""
    info = dataset.read(data_dir)
    config = training.resolve(
        config_lib.Config(data_dir=data_dir, model=network, loss="mask"), info
    )
    config.check(info)
    split = splits.Split(data_dir, "train", info)
    features = ("log_magnitude", config.target)

    def batches(shuffle_buffer: int, cache: bool = False) -> Any:
        return input_lib.windows(
            split,
            features,
            frames=config.frames,
            batch_size=config.batch_size,
            shuffle_buffer=shuffle_buffer,
            cache=cache,
        )

    def deliver(seconds: float) -> float:
        """Measures examples per second once the shuffle buffer is full and the reader is warm."""
        return _rate(iter(batches(config.shuffle_buffer)), seconds)

    cached: list[Any] = []

    def deliver_cached(seconds: float) -> float:
        """Measures the same from memory, after the first pass."""
        if not cached:
            cached.append(iter(batches(config.shuffle_buffer, cache=True)))
            for _ in range(split.num_windows(config.frames) // config.batch_size + 1):
                next(cached[0])
        return _rate(cached[0], seconds)

    def _rate(iterator: Any, seconds: float) -> float:
        next(iterator)
        start = time.perf_counter()
        for count in itertools.count(1):
            next(iterator)
            took = time.perf_counter() - start
            if took > seconds:
                return count * config.batch_size / took
        raise AssertionError

    def write_npy(folder: str, limit: int) -> int:
        """Writes the same windows as one .npy file per feature; returns their number."""
        total = min(limit, split.num_windows(config.frames))
        arrays: dict[str, Any] = {}
        for number, batch in enumerate(batches(1)):
            begin = number * config.batch_size
            if begin >= total:
                break
            for name, values in batch.items():
                values = np.asarray(values)[: total - begin]
                if name not in arrays:
                    arrays[name] = np.lib.format.open_memmap(
                        pathlib.Path(folder) / f"{name}.npy", "w+", values.dtype,
                        (total, *values.shape[1:]),
                    )  # fmt: skip
                arrays[name][begin : begin + len(values)] = values
        return total

    learning: list[Any] = []

    def train(steps: int) -> float:
        """Measures examples per second on one batch in memory, without waiting for input."""
        import tensorflow as tf

        if not learning:
            model = training.make_learner(config, info, replicas=1)
            training._compile(model, config, steps=1000)
            learning[:] = [model, next(iter(batches(1)))]
            train(1)
        model, batch = learning
        same = tf.data.Dataset.from_tensors(batch).repeat(steps)
        start = time.perf_counter()
        model.fit(same, epochs=1, verbose=0)
        return steps * config.batch_size / (time.perf_counter() - start)

    def about() -> dict[str, Any]:
        example = next(iter(batches(1)))
        return {
            "windows": split.num_windows(config.frames),
            "bytes of a window": sum(np.asarray(v)[0].nbytes for v in example.values()),
            "shards": list(split.paths),
        }

    children.serve(
        {
            "deliver": deliver,
            "deliver cached": deliver_cached,
            "write npy": write_npy,
            "train": train,
            "about": about,
        }
    )


if __name__ == "__main__":
    main(*json.loads(sys.argv[1]))
