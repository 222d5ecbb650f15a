"""Trains a network to separate voices.

    python -m trainer.task --data_dir=/data/timit-2mix --model=lstm --model_dir=runs/lstm

The same command goes on with a run that was stopped, from its last whole epoch; with more --epochs,
also with one that is finished. The folder then has best.keras (the separator that was best in
validation), config.json, log.csv, curves.png, and TensorBoard's events. The backend is what the
environment variable KERAS_BACKEND says: tensorflow (default) or jax.
"""

from absl import flags

from pipeline import command, dataset
from trainer import config, tfio

_MODEL_DIR = flags.DEFINE_string("model_dir", "", "Folder that the run is kept in.")
config.define_flags()


def main(arguments: list[str]) -> None:
    """The command, after its flags are parsed."""
    command.require(not arguments, f"what does {' '.join(arguments)} mean? Only flags are taken")
    settings = config.Config.from_flags(flags.FLAGS)
    command.require(settings.data_dir, "--data_dir: name the folder of a dataset")
    command.require(_MODEL_DIR.value, "--model_dir: name a folder to keep the run in")
    # What is wrong with the dataset shows at once, before seconds of imports.
    tfio.connect(settings.data_dir)
    settings.check(dataset.read(settings.data_dir))

    from trainer import training

    training.train(settings, _MODEL_DIR.value)


if __name__ == "__main__":
    command.run(main, __doc__)
