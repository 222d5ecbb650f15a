"""Trains a network to separate voices.

    python -m trainer.task --data_dir=/data/timit-2mix --model=lstm --model_dir=runs/lstm

The same command goes on with a run that was stopped, from its last whole epoch; with more --epochs,
also with one that is finished. Two at a time in one folder are refused. The folder then has
best.keras (the separator that was best in validation), config.json, log.csv, curves.png, and
TensorBoard's events. The backend is what the environment variable KERAS_BACKEND says: tensorflow
(default) or jax.
"""

from absl import flags

from pipeline import cli
from pipeline.dataset import dataset
from trainer import config
from trainer.data import tfio
from trainer.run import run_folder

_MODEL_DIR = flags.DEFINE_string("model_dir", "", "Folder that the run is kept in.")
config.define_flags()


def main(arguments: list[str]) -> None:
    """The command, after its flags are parsed."""
    if arguments:
        raise flags.Error(f"what does {' '.join(arguments)} mean? Only flags are taken")
    settings = config.Config.from_flags(flags.FLAGS)
    if not settings.data_dir:
        raise flags.Error("--data_dir: name the folder of a dataset")
    if not _MODEL_DIR.value:
        raise flags.Error("--model_dir: name a folder to keep the run in")
    try:
        _train(settings, _MODEL_DIR.value)
    except config.SettingsError as error:
        raise flags.Error(str(error)) from error


def _train(settings: config.Config, model_dir: str) -> None:
    # What is wrong with the dataset shows at once, before seconds of imports.
    tfio.connect(settings.data_dir)
    info = dataset.read(settings.data_dir)
    settings.check(info, run_folder.RunFolder(model_dir).read_settings())

    from trainer import training

    training.train(settings, model_dir)


if __name__ == "__main__":
    cli.run(main, __doc__)
