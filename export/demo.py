"""Generates and separates a conversation of two synthetic speakers, as a demonstration.

    python -m export.demo --output_dir=demo/conversation

writes conversation.wav (turns, an interruption, a pause, two at once), the two speakers alone as
reference1.wav and reference2.wav, and the output of `export.separate --plot --activity`: a file for
each voice, a picture, and who speaks when (RTTM, JSON), which is also printed. The speech comes
from eSpeak NG (pip install 'voices-apart[demo]'). In a checkout, `make demo` also runs the steps
before: it creates a corpus and a dataset, and trains a network.
"""

import pathlib
import sys

from absl import flags

from export import pretrained
from export.conversations import file_separation
from pipeline import cli


def _define_flags() -> None:
    flags.DEFINE_string("output_dir", "voices-apart-demo", "folder to write to, created if missing")
    flags.DEFINE_string("model", "", "as for export.separate; by default the shipped one")
    flags.DEFINE_integer("seed", 0, "other seeds give other speakers", lower_bound=0)


def main(arguments: list[str]) -> None:
    """Runs the command."""
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    options = flags.FLAGS
    model_path = pretrained.quickest(options.model)

    from export.separation import jobs, loading

    model = loading.load(model_path)
    folder = pathlib.Path(options.output_dir)
    for path in write(folder, options.seed):
        print(path, flush=True)
    source = folder / "conversation.wav"
    job = jobs.Job(source, folder / source.stem)
    done = file_separation.separate_file(job, model, plot=True, activity=True)
    print(*done.files, sep="\n")
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"\n{job.rttm.read_text(encoding='utf-8')}", end="")


def write(folder: pathlib.Path, seed: int = 0) -> list[pathlib.Path]:
    """Writes the conversation and each speaker alone, as 16-bit WAV files.

    Args:
        folder: created if missing.
        seed: random seed for the speakers.

    Returns:
        The paths, the conversation's first.

    Raises:
        espeak.EspeakError: eSpeak NG is not installed.
        UserError: the folder cannot be written.
    """
    from pipeline.audio import decoding
    from pipeline.corpora import conversation

    made = conversation.make(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = ["conversation", *(f"reference{n}" for n in range(1, len(made.voices) + 1))]
    paths = [folder / f"{name}.wav" for name in names]
    for path, samples in zip(paths, [made.mixture, *made.voices], strict=True):
        decoding.write_wav(path, samples, made.rate)
    return paths


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
