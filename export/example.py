"""Writes one mixture of a dataset and its voices as WAV files.

  python -m export.example --data_dir=data --split=test --output_dir=example

writes example/mixture.wav, example/reference1.wav and example/reference2.wav, to listen to and to
try a model on.
"""

import itertools
import os

from absl import flags, logging

from pipeline import cli, errors, schema


def _define_flags() -> None:
    # Not on import: otherwise two commands used from one program would both define --output_dir.
    flags.DEFINE_string("data_dir", None, "Folder of the dataset.", required=True)
    flags.DEFINE_enum("split", "test", schema.SPLITS, "Split of the mixture.")
    flags.DEFINE_integer(
        "index", 0, "Index of the mixture within the split, in shard order.", lower_bound=0
    )
    flags.DEFINE_string("output_dir", None, "Folder to write to.", required=True)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    cli.require(not arguments, f"unexpected argument {' '.join(arguments)}")
    for path in write(
        flags.FLAGS.data_dir, flags.FLAGS.split, flags.FLAGS.index, flags.FLAGS.output_dir
    ):
        logging.info("%s", path)


def write(data_dir: str, split: str, index: int, output_dir: str) -> list[str]:
    """Writes a mixture and its voices as 16-bit WAV files.

    Args:
        data_dir: folder of the dataset.
        split: one of the dataset's splits.
        index: index of the mixture, in shard order.
        output_dir: created if missing.

    Returns:
        The paths, the mixture's first.

    Raises:
        UserError: there is no such dataset, split or mixture.
    """
    from export.evaluation import dataset_mixtures
    from pipeline.audio import decoding
    from pipeline.dataset import dataset
    from trainer.data import tfio

    tfio.connect(data_dir)
    info = dataset.read(data_dir)
    if split not in info.splits or index >= info.splits[split].mixtures:
        held = ", ".join(f"{name} {held.mixtures}" for name, held in info.splits.items())
        raise errors.UserError(f"{data_dir} has no mixture {index} in {split}; it has {held}")
    mixture = next(
        itertools.islice(dataset_mixtures.read(data_dir, info, split, index + 1), index, None)
    )
    os.makedirs(output_dir, exist_ok=True)
    names = ["mixture", *(f"reference{n}" for n in range(1, len(mixture.voices) + 1))]
    paths = [os.path.join(output_dir, f"{name}.wav") for name in names]
    for path, samples in zip(paths, [mixture.waveform, *mixture.voices], strict=True):
        decoding.write_wav(path, samples, mixture.rate, "PCM_16")
    return paths


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
