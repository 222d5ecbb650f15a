"""The child process of `benchmarks.input` for a PyTorch DataLoader.

It runs in the environment of the alternatives and reads windows from .npy files.
"""

import itertools
import pathlib
import sys
import time

import numpy as np
import torch

from benchmarks import children

Example = dict[str, torch.Tensor]


class Windows(torch.utils.data.Dataset[Example]):
    """Windows from a folder with one memory-mapped .npy file per feature."""

    def __init__(self, folder: str) -> None:
        self.paths = {path.stem: path for path in sorted(pathlib.Path(folder).glob("*.npy"))}
        self.arrays: dict[str, np.ndarray] = {}
        self.length = len(np.load(next(iter(self.paths.values())), mmap_mode="r"))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Example:
        if not self.arrays:  # In each worker.
            self.arrays = {k: np.load(path, mmap_mode="r") for k, path in self.paths.items()}
        return {k: torch.from_numpy(array[index].copy()) for k, array in self.arrays.items()}


def main(folder: str) -> None:
    """Serves jobs for the windows in `folder`."""
    windows = Windows(folder)

    def deliver(seconds: float, workers: int, batch_size: int) -> float:
        """Measures shuffled examples per second once the workers are running."""
        loader = torch.utils.data.DataLoader(
            windows, batch_size, shuffle=True, drop_last=True, num_workers=workers,
            persistent_workers=workers > 0,
        )  # fmt: skip
        batches = itertools.chain.from_iterable(iter(loader) for _ in itertools.repeat(None))
        next(batches)
        start = time.perf_counter()
        for count in itertools.count(1):
            next(batches)
            took = time.perf_counter() - start
            if took > seconds:
                return count * batch_size / took
        raise AssertionError

    children.serve({"deliver": deliver, "about": lambda: {"torch": torch.__version__}})


if __name__ == "__main__":
    main(sys.argv[1])
