"""Measures who is who in conversations: speech in the other person's file, and diarisation.

    python -m benchmarks.conversations --manifest=speech/manifest.csv --input_dir=timit

makes conversations between the speakers of one split and separates them as `export.separate` does.
The kinds are turns, turns with a long pause after every sixth, and monologues; each is made for two
women, two men, and a woman and a man. Speakers without a known sex are left out. The figures are
those of the condition `turns` of `export.evaluate`: of the moments with one speaker, the share in
which the other person's voice is louder, and the diarisation error rate, both in percent.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import flags

from benchmarks import measure
from export import pretrained, separate
from export.evaluation import dataset_mixtures, scoring, turn_taking
from export.separation import loading
from pipeline import cli, features, inspection, plan, schema
from pipeline.corpora import corpus

RATE = schema.DEFAULT_SAMPLE_RATE
_PAIRS = {"two women": "ff", "two men": "mm", "woman and man": "fm"}
_TURN_SECONDS, _MAX_TURNS = (1.2, 4.5), 8
# Probability of an overlap, and of a change of speaker after a turn.
_OVERLAP, _CHANGE, _CHANGE_IN_MONOLOGUE = 0.3, 0.8, 0.15


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of conversation.

    Attributes:
        pause: seconds of silence after every sixth turn, or 0.
        change: probability that the other person speaks next.
    """

    pause: float = 0.0
    change: float = _CHANGE


KINDS = {
    "turns": Kind(),
    "pauses of 5 s": Kind(pause=5),
    "pauses of 60 s": Kind(pause=60),
    "pauses of 10 min": Kind(pause=600),
    "monologues": Kind(change=_CHANGE_IN_MONOLOGUE),
}


def _define_flags() -> None:
    flags.DEFINE_multi_string("manifest", [], "CSV file of recordings, with sexes.")
    flags.DEFINE_multi_string("input_dir", [], "Folder of TIMIT.")
    flags.DEFINE_list("kinds", list(KINDS), "Kinds of conversations.")
    flags.DEFINE_string("split", "test", "Split of the manifest's speakers.")
    flags.DEFINE_string("model", "", "As for export.separate; by default the shipped one.")
    flags.DEFINE_integer("conversations", 4, "Of each kind and pair.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed.")
    flags.DEFINE_bool("save", False, "Write benchmarks/results/conversations.json.")


def main(arguments: list[str]) -> None:
    if arguments or not (flags.FLAGS.manifest or flags.FLAGS.input_dir):
        raise flags.Error("--manifest or --input_dir is needed, and no other argument")
    unknown = set(flags.FLAGS.kinds) - set(KINDS)
    cli.require(not unknown, f"--kinds: {', '.join(sorted(unknown))} is none of {', '.join(KINDS)}")
    model = loading.load(pretrained.quickest(flags.FLAGS.model))
    figures: dict[str, list[float]] = {}
    for name, people in _people().items():
        for mixture, title in _conversations(people):
            voices = separate.separate(mixture.waveform, RATE, model)
            row = turn_taking.score_turns(
                mixture, [scoring.Separation("found", voices)], turn_taking.TURN_METRICS
            )[-1]
            for metric in ("wrong_output", "diarization_error"):
                figures.setdefault(f"{name}, {title}: {metric}", []).append(row[metric])
            print(f"{name}, {title}: {row['wrong_output']:.1f} %", flush=True)
    print()
    print("| | two women | two men | woman and man |", "|:--|--:|--:|--:|", sep="\n")
    for name, kind in itertools.product(_people_names(figures), flags.FLAGS.kinds):
        cells = [
            " / ".join(
                f"{np.mean(figures[f'{name}, {kind}, {pair}: {metric}']):.1f}"
                for metric in ("wrong_output", "diarization_error")
            )
            for pair in _PAIRS
        ]
        print(f"| {name}, {kind} |", " | ".join(cells), "|")
    if flags.FLAGS.save:
        means = {name: float(np.mean(values)) for name, values in figures.items()}
        about = {
            "model": flags.FLAGS.model or pretrained.DEFAULT,
            "unit": "%",
            "seed": flags.FLAGS.seed,
        }
        measure.write("conversations", {"facts": about, "means": means, "runs": figures})


def _people_names(figures: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(title.split(", ")[0] for title in figures))


def _people() -> dict[str, dict[str, list[list[np.ndarray]]]]:
    """Returns the speakers' recordings by corpus and sex."""
    found = {}
    corpora = [
        (path, corpus.read_manifest(path), flags.FLAGS.split) for path in flags.FLAGS.manifest
    ]
    corpora += [(path, corpus.read_folder(path), "") for path in flags.FLAGS.input_dir]
    for path, read, split in corpora:
        place = pathlib.Path(path)
        speakers: dict[str, dict[str, list[np.ndarray]]] = {"f": {}, "m": {}}
        for utterance in read.utterances:
            if utterance.sex and (not split or utterance.split == split):
                samples = inspection.read_speech(utterance.path, RATE)
                gain_db = plan.TARGET_LEVEL_DB - features.active_level_db(samples)
                own = speakers[utterance.sex].setdefault(utterance.speaker, [])
                own.append(samples * np.float32(10 ** (gain_db / 20)))
        name = (place.parent if place.suffix else place).name
        found[name] = {sex: list(own.values()) for sex, own in speakers.items()}
        for sex, known in found[name].items():
            cli.require(len(known) > 1, f"{path} has fewer than two speakers of sex {sex}")
    return found


def _conversations(
    people: dict[str, list[list[np.ndarray]]],
) -> Iterator[tuple[dataset_mixtures.Mixture, str]]:
    for (pair, sexes), title in itertools.product(_PAIRS.items(), flags.FLAGS.kinds):
        for number in range(flags.FLAGS.conversations):
            # A conversation does not depend on which others are made.
            name = f"{title}-{number}, {pair}"
            rng = np.random.default_rng([flags.FLAGS.seed, *name.encode()])
            first, second = (int(rng.integers(len(people[sex]))) for sex in sexes)
            if sexes[0] == sexes[1] and first == second:
                second = (second + 1) % len(people[sexes[1]])
            spoken = [people[sexes[0]][first], people[sexes[1]][second]]
            voices = talk([_turns(own, rng) for own in spoken], KINDS[title], rng)
            sources = np.round(voices * schema.FULL_SCALE).astype(np.int16)
            spectrum = features.log_magnitude(features.stft(voices.sum(axis=0)))
            yield (
                dataset_mixtures.Mixture(
                    f"{title}-{number}", ("1", "2"), tuple(sexes), RATE, sources, spectrum
                ),
                f"{title}, {pair}",
            )


def _turns(recordings: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Cuts recordings into turns where they are quiet, float32 `[sample]`."""
    turns: list[np.ndarray] = []
    for samples in recordings:
        first = 0
        while len(samples) - first > 0.8 * RATE and len(turns) < _MAX_TURNS:
            last = min(first + int(rng.uniform(*_TURN_SECONDS) * RATE), len(samples))
            if len(samples) - last > RATE:
                around = samples[last - RATE // 4 : last + RATE // 4].reshape(-1, RATE // 50)
                last += RATE // 50 * int(np.square(around).sum(axis=1).argmin()) - RATE // 4
            else:
                last = len(samples)
            turns.append(samples[first:last])
            first = last
    return turns


def talk(turns: list[list[np.ndarray]], kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """Places the turns of two people; returns float32 `[source, sample]`."""
    left = [list(own) for own in turns]
    gains = 10 ** (rng.uniform(-2.5, 2.5, 2) / 20)
    who, end = int(rng.integers(2)), RATE // 2
    free = [0, 0]  # The end of each person's last turn.
    places: list[tuple[int, int, np.ndarray]] = []
    while any(left):
        who = who if left[who] else 1 - who
        samples = left[who].pop(0)
        gap = rng.uniform(0.1, 1.2)
        if kind.pause and len(places) % 6 == 5:
            gap = kind.pause
        elif rng.uniform() < _OVERLAP:
            gap = -gap
        start = max(end + int(gap * RATE), free[who] + RATE // 10, 0)
        places.append((who, start, samples))
        free[who] = start + len(samples)
        end = max(end, free[who])
        if rng.uniform() < kind.change:
            who = 1 - who
    voices = np.zeros((2, end + RATE // 2), np.float32)
    for person, start, samples in places:
        voices[person, start : start + len(samples)] += gains[person] * samples
    return voices * min(1.0, plan.MAX_PEAK / float(np.abs(voices.sum(axis=0)).max()))


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
