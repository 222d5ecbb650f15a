"""Compares FLAC decoding in tf.data's graph with soundfile in a plain loop, in files per second.

    python -m benchmarks.flac --input_dir=/data/LibriSpeech/dev-clean --save

The graph decodes files on all cores without running Python; soundfile is what each worker of the
Beam job uses. The samples are first checked to be bit-identical.
"""

import itertools
import os
import time

from absl import flags

from benchmarks import measure
from pipeline import cli, errors
from pipeline.io import storage

_INPUT_DIR = flags.DEFINE_string("input_dir", None, "Folder with 16-bit FLAC files.")
_FILES = flags.DEFINE_integer("files", 400, "Number of files to read.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/flac.json.")


def main(arguments: list[str]) -> None:
    if arguments or not _INPUT_DIR.value:
        raise flags.Error("--input_dir is needed, and no other argument")
    found = storage.list_files(_INPUT_DIR.value).files
    flac = (storage.join(_INPUT_DIR.value, name) for name in found if name.endswith(".flac"))
    paths = list(itertools.islice(flac, _FILES.value))
    if not paths:
        raise errors.UserError(f"{_INPUT_DIR.value}: no *.flac in it")
    import numpy as np
    import soundfile
    import tensorflow as tf

    decoded = (
        tf.data.Dataset.from_tensor_slices(paths)
        .map(tf.io.read_file, num_parallel_calls=tf.data.AUTOTUNE)
        .map(flac.decode, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    for path, samples in zip(paths, decoded.as_numpy_iterator(), strict=True):
        expected, _ = soundfile.read(path, dtype="int16", always_2d=True)
        cli.require(np.array_equal(samples, expected), f"{path}: the samples differ")

    def in_graph() -> float:
        start = time.perf_counter()
        count = sum(1 for _ in decoded)
        return count / (time.perf_counter() - start)

    def in_a_loop() -> float:
        start = time.perf_counter()
        for path in paths:
            soundfile.read(path, dtype="int16", always_2d=True)
        return len(paths) / (time.perf_counter() - start)

    measure.report(
        "flac",
        "files/s",
        measure.interleave({"tf.data": in_graph, "soundfile": in_a_loop}, _REPEATS.value),
        {"tf.data / soundfile": ("tf.data", "soundfile")},
        {"files": len(paths)},
        _SAVE.value,
    )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    cli.run(main, __doc__)
