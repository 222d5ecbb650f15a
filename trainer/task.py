"""Trains a network to separate voices.

    python -m trainer.task --data_dir=/data/timit-2mix --model=lstm --model_dir=runs/lstm

The same command resumes an interrupted run after its last complete epoch; with more --epochs, or
more --patience if it was stopped early, it also continues a finished run. Only one run at a time
may use a folder. The folder contains best.keras (the separator with the best validation result),
config.json, log.csv, curves.png and TensorBoard events. The environment variable KERAS_BACKEND
selects the backend: tensorflow (default), jax or torch.
"""

from absl import flags

from pipeline import cli
from pipeline.dataset import dataset
from trainer import config
from trainer.data import tfio
from trainer.run import run_folder

_MODEL_DIR = flags.DEFINE_string("model_dir", "", "Folder of the run.")
config.define_flags()


def main(arguments: list[str]) -> None:
    """Runs the command after its flags are parsed."""
    cli.no_arguments(arguments)
    settings = config.Config.from_flags(flags.FLAGS)
    if not settings.data_dir:
        raise flags.Error("--data_dir: name the folder of a dataset")
    if not _MODEL_DIR.value:
        raise flags.Error("--model_dir: name a folder for the run")
    try:
        _train(settings, _MODEL_DIR.value)
    except config.SettingsError as error:
        raise flags.Error(str(error)) from error


def _train(settings: config.Config, model_dir: str) -> None:
    # Report problems with the dataset at once, before seconds of imports.
    tfio.connect(settings.data_dir)
    info = dataset.read(settings.data_dir)
    settings.check(info, run_folder.RunFolder(model_dir).read_settings())

    from trainer import training

    training.train(settings, model_dir)


if __name__ == "__main__":
    cli.run(main, __doc__)
