"""A made conversation of two synthetic speakers, separated: something to look at and listen to.

    python -m export.demo --output_dir=demo/conversation

writes conversation.wav (turns, an interruption, a pause, two at once), the two speakers alone as
reference1.wav and reference2.wav, and what `export.separate --plot --activity` makes of the
conversation: a file for each voice, a picture, and who speaks when (RTTM, JSON), which is printed.
eSpeak NG speaks (pip install 'voices-apart[demo]'). `make demo` in a checkout does all that comes
before, too: a corpus, a dataset, a network that learns.
"""

import pathlib
import sys

from absl import flags

from export import pretrained
from pipeline import cli


def _define_flags() -> None:
    flags.DEFINE_string(
        "output_dir", "voices-apart-demo", "folder to write to; it is made where there is none"
    )
    flags.DEFINE_string("model", "", "as of export.separate; by default the shipped one")
    flags.DEFINE_integer("seed", 0, "other seeds give other speakers", lower_bound=0)


def main(arguments: list[str]) -> None:
    """The command."""
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    options = flags.FLAGS
    model_path = pretrained.quickest(options.model)

    from export import separate
    from export.separation import jobs, loading

    model = loading.load(model_path)
    folder = pathlib.Path(options.output_dir)
    for path in write(folder, options.seed):
        print(path, flush=True)
    source = folder / "conversation.wav"
    job = jobs.Job(source, folder / source.stem)
    done = separate.separate_file(job, model, plot=True, activity=True)
    print(*done.files, sep="\n")
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"\n{job.rttm.read_text(encoding='utf-8')}", end="")


def write(folder: pathlib.Path, seed: int = 0) -> list[pathlib.Path]:
    """Writes the conversation and each speaker alone, as 16-bit WAV files.

    Args:
        folder: is created.
        seed: of the speakers.

    Returns:
        The paths, the conversation's first.

    Raises:
        espeak.EspeakError: eSpeak NG is not there.
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
