"""Makes virtual speakers: copies of recordings with other pitch and formants.

    python -m pipeline.virtual_speakers --manifest=manifest.csv --output_dir=virtual --copies=4

The trainer mixes them with --utterances_manifest=manifest.csv
--utterances_manifest=virtual/manifest.csv.

A separator that has heard few speakers does worse on others. Each copy of a speaker gets a formant
ratio and a pitch of its own, so it sounds like another person. Only recordings of the split train
are copied. Praat makes the change with its command "Change gender" (overlap-add of pitch periods):
pip install 'voices-apart[virtual]'. Praat's library is GPL-3.0.

The folder gets FLAC files and manifest.csv; a copy of ANN is the speaker ANN~1 there. The same
flags give the same voices, with any number of cores.
"""

import csv
import functools
import importlib.util
import io
import pathlib
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
from absl import flags, logging

from pipeline import cli, errors, inspection
from pipeline.corpora import corpus
from pipeline.dataset import utterance_shards
from pipeline.io import atomic, cores, stored_json

MANIFEST = "manifest.csv"
# Marks a folder as one that this command wrote.
SETTINGS_FILE = "virtual_speakers.json"
# The range in which Praat looks for the pitch, in Hz.
_PITCH_HZ = (75.0, 500.0)
# Largest changes: factors of formants, and semitones of the median pitch.
_FORMANTS = 1.15
_SEMITONES = 5.0
# Copies of a voice vary in pitch a little more or less.
_VARIATION = (0.8, 1.25)
_PEAK = 0.98
# Between the name of a speaker and the number of the copy.
_MARK = "~"


def change(
    samples: np.ndarray, rate: int, formants: float, pitch: float, variation: float = 1.0
) -> np.ndarray:
    """Changes formants and pitch of a voice, but neither its duration nor its level.

    Args:
        samples: float32 `[sample]`.
        rate: in Hz.
        formants: factor of all formant frequencies; more than 1 is a shorter vocal tract.
        pitch: factor of the median pitch.
        variation: factor of the pitch's distance from its median.

    Returns:
        float32 `[sample]`, of the same length.
    """
    import parselmouth
    from parselmouth.praat import call, run

    # Pieces without pitch are put together at random. The same numbers for the same recording.
    run("random_initializeWithSeedUnsafelyButPredictably (1)")
    floor, ceiling = _PITCH_HZ
    sound = parselmouth.Sound(samples.astype(np.float64), rate)
    found = sound.to_pitch_ac(pitch_floor=floor, pitch_ceiling=ceiling)
    median = call(found, "Get quantile", 0, 0, 0.5, "Hertz")
    # 0 keeps the median of a recording without any voiced frame.
    wanted = 0.0 if np.isnan(median) else median * pitch
    with warnings.catch_warnings():
        # Praat warns of recordings without any voiced frame.
        warnings.simplefilter("ignore", parselmouth.PraatWarning)
        made = call([sound, found], "Change gender", formants, wanted, variation, 1.0).values[0]
    out = np.zeros(len(samples), np.float32)
    count = min(len(out), len(made))
    out[:count] = made[:count]
    power, own = (float(np.mean(np.square(x, dtype=np.float64))) for x in (samples, out))
    if own:
        out *= np.float32(min((power / own) ** 0.5, _PEAK / np.abs(out).max()))
    return out


def write(
    table: corpus.Corpus,
    output_dir: str,
    *,
    copies: int,
    sample_rate: int,
    seed: int,
    overwrite: bool = False,
) -> int:
    """Writes the copies; the folder gets its name when it is complete.

    Args:
        table: the recordings.
        output_dir: the folder; its parent is created, too.
        copies: number of copies of each speaker.
        sample_rate: sample rate of the copies, in Hz.
        seed: seed of the changes.
        overwrite: replace a folder that this command wrote.

    Returns:
        The number of copied recordings.

    Raises:
        UserError: there is nothing to copy, the folder holds something else, or Praat is missing.
    """
    import tqdm

    if importlib.util.find_spec("parselmouth") is None:
        raise errors.UserError("Praat is not installed: pip install 'voices-apart[virtual]'")
    split_of = corpus.assign_splits(table.utterances, valid_fraction=0)
    wanted = [u for u in table.utterances if split_of[u.speaker] == utterance_shards.SPLIT]
    if not wanted:
        raise errors.UserError("no recording is of the split train")
    output = pathlib.Path(output_dir).resolve()
    _check(output, overwrite)
    output.parent.mkdir(parents=True, exist_ok=True)
    rejections = list(table.rejections)
    rows: list[Sequence[str]] = []
    with atomic.replacing(output) as folder:
        for number in range(copies):
            (folder / f"{number + 1}").mkdir(parents=True)
        copy = functools.partial(_copy, folder=folder, copies=copies, rate=sample_rate, seed=seed)
        # Processes, since each has Praat's random numbers for itself.
        with cores.processes(min(cores.available_cores(), len(wanted))) as executor:
            found = executor.map(copy, range(len(wanted)), wanted, chunksize=8)
            for one in tqdm.tqdm(found, "recordings", len(wanted), disable=None):
                if isinstance(one, corpus.Rejection):
                    rejections.append(one)
                else:
                    rows.extend(one)
        if rejections:
            logging.warning(
                "%d recordings are left out, such as %s: %s",
                len(rejections), rejections[0].path, rejections[0].reason,
            )  # fmt: skip
        if not rows:
            raise errors.UserError("no recording can be used")
        with open(folder / MANIFEST, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("path", "speaker", "split"), *rows])
        settings = {"copies": copies, "sample_rate": sample_rate, "seed": seed}
        (folder / SETTINGS_FILE).write_text(stored_json.dumps(settings, indent=2), "utf-8")
    return len(rows)


def _check(output: pathlib.Path, overwrite: bool) -> None:
    """Raises UserError if the folder holds anything that must not be replaced."""
    if output.is_file():
        raise errors.UserError(f"{output} is not a folder; choose another --output_dir")
    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if not names:
        return
    others = [n for n in names - {MANIFEST, SETTINGS_FILE} if not n.isdecimal()]
    if others or SETTINGS_FILE not in names:
        raise errors.UserError(f"{output} holds something else; choose another --output_dir")
    if not overwrite:
        raise errors.UserError(f"{output} exists; --overwrite replaces it")


def draw(speaker: str, copy: int, seed: int) -> dict[str, float]:
    """Draws how a copy of a speaker differs: the last three arguments of `change`."""
    random = np.random.default_rng([seed, copy, zlib.crc32(speaker.encode())])
    semitones = random.uniform(-_SEMITONES, _SEMITONES)
    # Longer vocal tracts go with lower voices, loosely.
    formants = random.uniform(-1, 1) / 2 + semitones / _SEMITONES / 2
    return {
        "formants": float(_FORMANTS**formants),
        "pitch": float(2 ** (semitones / 12)),
        "variation": float(random.uniform(*_VARIATION)),
    }


def original(speaker: str) -> str:
    """Returns the speaker of whom a virtual one is a copy; anybody else is returned as given."""
    name, mark, number = speaker.rpartition(_MARK)
    return name if mark and number.isdecimal() else speaker


def _copy(
    number: int,
    utterance: corpus.Utterance,
    folder: pathlib.Path,
    copies: int,
    rate: int,
    seed: int,
) -> list[Sequence[str]] | corpus.Rejection:
    """Writes the copies of one recording; returns their rows of the manifest."""
    found = inspection.read(utterance.path, rate)
    if isinstance(found, corpus.Rejection):
        return found
    # Praat needs a few periods of the lowest pitch.
    if len(found.samples) < 0.1 * rate:
        return corpus.Rejection(utterance.path, "shorter than 0.1 s")
    rows: list[Sequence[str]] = []
    for copy in range(1, copies + 1):
        made = change(found.samples, rate, **draw(utterance.speaker, copy, seed))
        name = f"{copy}/{number:07d}.flac"
        # In memory first, since libsndfile's errors do not tell a full disk from others.
        encoded = io.BytesIO()
        soundfile.write(encoded, made, rate, format="FLAC", subtype="PCM_16")
        (folder / name).write_bytes(encoded.getvalue())
        rows.append((name, f"{utterance.speaker}{_MARK}{copy}", utterance_shards.SPLIT))
    return rows


def _define_flags() -> None:
    # Not on import: two commands in one program would both define --output_dir.
    flags.DEFINE_multi_string(
        "input_dir", [], "Folder of a corpus, as for pipeline.preprocess; may be repeated."
    )
    flags.DEFINE_multi_string("manifest", [], "CSV file (path,speaker,split); may be repeated.")
    flags.DEFINE_string("output_dir", None, "Folder of the copies; it is created.")
    flags.DEFINE_integer("copies", 2, "Copies of each speaker.", lower_bound=1, upper_bound=1000)
    flags.DEFINE_integer("sample_rate", 8000, "Sample rate, in Hz.", lower_bound=4000)
    flags.DEFINE_integer("seed", 0, "Different seeds give different copies.", lower_bound=0)
    flags.DEFINE_bool("overwrite", False, "Replace a folder that this command wrote.")


def main(arguments: list[str]) -> None:
    """Runs the command."""
    given: Any = flags.FLAGS
    cli.no_arguments(arguments)
    if not given.output_dir:
        raise flags.Error("--output_dir is needed, the folder of the copies")
    if not given.input_dir and not given.manifest:
        raise flags.Error("--input_dir or --manifest is needed")
    count = write(
        corpus.read(folders=given.input_dir, manifests=given.manifest), given.output_dir,
        copies=given.copies, sample_rate=given.sample_rate, seed=given.seed,
        overwrite=given.overwrite,
    )  # fmt: skip
    logging.info("%s: %d recordings", given.output_dir, count)


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
