"""The child process of `benchmarks.separation` for an exported model."""

import os
import sys
import time

import numpy as np

from benchmarks import children


def main(folder: str) -> None:
    """Serves jobs for the SavedModel in `folder`."""
    # As in the command, so that TensorFlow does not import Keras.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    start = time.perf_counter()
    from export import separate
    from export.separation import loading

    model = loading.load(folder)
    loaded = time.perf_counter() - start

    def seconds(length: float) -> float:
        samples = children.babble(length)
        start = time.perf_counter()
        model.separate(samples[np.newaxis])
        return time.perf_counter() - start

    def seconds_as_command(length: float) -> float:
        samples = children.babble(length)
        start = time.perf_counter()
        separate.separate(samples, model.sample_rate, model)
        return time.perf_counter() - start

    children.serve(
        {
            "seconds": seconds,
            "seconds as command": seconds_as_command,
            "about": lambda: {
                "network": model.name,
                "seconds to load": round(loaded, 2),
                "peak MB": children.peak_megabytes(),
            },
        }
    )


if __name__ == "__main__":
    main(sys.argv[1])
