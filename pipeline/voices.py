"""Writes the embedded corpus: synthetic speakers who read real sentences, in TIMIT's layout.

  python -m pipeline.voices --output_dir=voices --num_speakers=120

It uses eSpeak NG (pip install 'voices-apart[demo]'). Train and test have different speakers and
sentences. The same flags give the same files, with any number of processes.
"""

import dataclasses
import os
import pathlib

from absl import flags, logging

from pipeline import cli, errors, version
from pipeline.audio import sphere
from pipeline.io import atomic, cores, stored_json

SETTINGS_FILE = "voices.json"
# The files and folders of a corpus.
_OURS = frozenset({"TRAIN", "TEST", "DOC", SETTINGS_FILE})
_DATABASE = "VOICES"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines the corpus, byte for byte; stored in `voices.json`.

    Attributes:
        num_speakers: number of speakers in the train split.
        num_test_speakers: number of speakers in the test split.
        utterances_per_speaker: recordings of each speaker.
        seed: for everything that is drawn.
        espeak_version: version of eSpeak NG.
        version: version of this package.
    """

    num_speakers: int
    num_test_speakers: int
    utterances_per_speaker: int
    seed: int
    espeak_version: str
    version: str = version.VERSION


def speaker_name(split: str, index: int) -> str:
    """Returns a name like TIMIT's: sex, three letters, a digit; `FAAA0` for the first.

    Names of train count up from `AAA`, names of test down from `ZZZ`.
    """
    number = index if split == "train" else 26**3 - 1 - index
    letters = "".join(chr(ord("A") + number // 26**place % 26) for place in (2, 1, 0))
    return f"{'FM'[index % 2]}{letters}0"


def write(
    output_dir: str | os.PathLike[str],
    settings: Settings,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> bool:
    """Writes the corpus: `TRAIN|TEST/DR?/SPEAKER/SX*.WAV` with `.TXT`, `DOC/SPKRINFO.TXT`.

    It is written beside `output_dir` under a temporary name and renamed when it is complete.

    Args:
        output_dir: the folder; its parent is created, too.
        settings: what to write.
        num_workers: processes, by default one for each core.
        overwrite: replace a corpus of other settings.

    Returns:
        Whether anything was written: False if the same corpus already exists.

    Raises:
        errors.UserError: the folder holds something else, or eSpeak NG is missing or failed.
    """
    output = pathlib.Path(output_dir).resolve()
    if _is_there(output, settings, overwrite):
        return False
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(output) as corpus:
        corpus.mkdir()
        _write_speakers(corpus, settings, num_workers)
        (corpus / SETTINGS_FILE).write_text(_text(settings), encoding="utf-8")
    return True


def _text(settings: Settings) -> str:
    return stored_json.dumps(settings, indent=2)


def _is_there(output: pathlib.Path, settings: Settings, overwrite: bool) -> bool:
    """Returns whether the corpus already exists; raises if the folder holds something else."""
    if not os.path.lexists(output):
        return False
    if not output.is_dir():
        raise errors.UserError(f"{output} is not a folder; choose another --output_dir")
    if not any(output.iterdir()):
        return False
    marker = output / SETTINGS_FILE
    if not marker.is_file():
        raise errors.UserError(
            f"{output} holds something else than a corpus of this command; "
            "choose another --output_dir"
        )
    if marker.read_text(encoding="utf-8") == _text(settings):
        return True
    if not overwrite:
        raise errors.UserError(
            f"{output} holds a corpus of other settings ({marker.name} has them); "
            "--overwrite replaces it"
        )
    others = sorted(path.name for path in output.iterdir() if path.name not in _OURS)
    if others:
        raise errors.UserError(
            f"{output} holds {others[0]} too, which --overwrite would remove; move it "
            "away, or choose another --output_dir"
        )
    return False


def _write_speakers(folder: pathlib.Path, settings: Settings, num_workers: int | None) -> None:
    import tqdm

    jobs = [("train", i) for i in range(settings.num_speakers)]
    jobs += [("test", i) for i in range(settings.num_test_speakers)]
    lines = []
    with cores.processes(min(num_workers or cores.available_cores(), len(jobs))) as executor:
        futures = [executor.submit(_write_speaker, folder, settings, *job) for job in jobs]
        for future in tqdm.tqdm(futures, "speakers", unit="speaker", disable=None):
            lines.append(future.result())
    _write_speaker_table(folder / "DOC" / "SPKRINFO.TXT", lines)


def _write_speaker(folder: pathlib.Path, settings: Settings, split: str, index: int) -> str:
    """Writes one speaker's recordings; returns the speaker's line for SPKRINFO.TXT."""
    from pipeline.corpora import harvard, synthetic_speakers

    speaker = synthetic_speakers.draw(settings.seed, split, index)
    name = speaker_name(split, index)
    region = 1 + synthetic_speakers.ACCENTS.index(speaker.accent)
    home = folder / split.upper() / f"DR{region}" / name
    home.mkdir(parents=True)
    recordings = synthetic_speakers.read(
        speaker, synthetic_speakers.sentences(split), settings.utterances_per_speaker
    )
    for said, samples in recordings:
        utterance = f"SX{1 + harvard.SENTENCES.index(said[0])}"
        identity = f"{name[1:]}_{utterance}".lower()
        data = sphere.encode(samples, synthetic_speakers.RATE, identity, _DATABASE)
        (home / f"{utterance}.WAV").write_bytes(data)
        text = f"0 {samples.size} {' '.join(said)}\n"
        (home / f"{utterance}.TXT").write_text(text, encoding="ascii")
    use = {"train": "TRN", "test": "TST"}[split]
    about = f"{speaker.accent}, {speaker.pitch_hz:.0f} Hz, {speaker.words_per_minute} words/min"
    return f"{name[1:]}  {name[0]}  {region}  {use}  {about}"


def _write_speaker_table(path: pathlib.Path, lines: list[str]) -> None:
    head = (
        "; Synthetic speakers: eSpeak NG reads Harvard sentences.\n"
        "; ID and Sex together are the name of the speaker's folder; DR is the accent.\n"
        ";ID  Sex DR Use  Comments\n"
        ";--- --- -- ---  --------\n"
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + "".join(f"{line}\n" for line in sorted(lines)), encoding="ascii")


def _define_flags() -> None:
    # Not on import: two commands in one program would both define --output_dir.
    flags.DEFINE_string("output_dir", None, "Folder of the corpus; it is created.")
    flags.DEFINE_integer(
        "num_speakers", 120, "Speakers of the train split.", lower_bound=0, upper_bound=10000
    )
    flags.DEFINE_integer(
        "num_test_speakers", 20, "Speakers of the test split.", lower_bound=0, upper_bound=5000
    )
    flags.DEFINE_integer(
        "utterances_per_speaker", 10, "Recordings of each speaker, 2.5 to 6 seconds long.",
        lower_bound=1, upper_bound=60,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "Different seeds give different speakers.", lower_bound=0)
    flags.DEFINE_integer(
        "num_workers", None, "Processes, by default one for each core.", lower_bound=1
    )
    flags.DEFINE_bool("overwrite", False, "Replace a corpus that was made with other settings.")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    cli.no_arguments(arguments)
    if not flags.FLAGS.output_dir:
        raise flags.Error("--output_dir is needed, the folder of the corpus")
    num_speakers = flags.FLAGS.num_speakers + flags.FLAGS.num_test_speakers
    if not num_speakers:
        raise flags.Error("--num_speakers and --num_test_speakers are both 0")
    # This import is slow, and --help should not wait for it.
    from pipeline.corpora import espeak

    settings = Settings(
        num_speakers=flags.FLAGS.num_speakers,
        num_test_speakers=flags.FLAGS.num_test_speakers,
        utterances_per_speaker=flags.FLAGS.utterances_per_speaker,
        seed=flags.FLAGS.seed,
        espeak_version=espeak.version(),
    )
    if write(flags.FLAGS.output_dir, settings, flags.FLAGS.num_workers, flags.FLAGS.overwrite):
        logging.info(
            "%s: %d speakers, %d recordings of each",
            flags.FLAGS.output_dir,
            num_speakers,
            settings.utterances_per_speaker,
        )
    else:
        logging.info("%s is complete, nothing to do", flags.FLAGS.output_dir)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
