"""Measures the voices above the model's band: energy kept, SI-SDR, wide-band PESQ and STOI.

    python -m benchmarks.full_band --input_dir=timit --save

mixes pairs of speakers, within ±2.5 dB of each other and with two recordings of each, from
recordings at 16 kHz or more. It separates them as `export.separate` does, in the model's band alone
and in full.
"""

import numpy as np
from absl import flags

from benchmarks import measure
from export import pretrained, separate
from export.evaluation import metrics
from export.separation import loading
from models import upper_band
from pipeline import cli, features, inspection, plan
from pipeline.corpora import corpus

RATE = 16000
_RECORDINGS = 2
WAYS: dict[str, dict[str, str | bool]] = {
    "`--band=model --nogate`": {"band": "model", "gate": False, "track": False},
    "`--band=full --nogate --notrack`": {"band": "full", "gate": False, "track": False},
    "default": {},
}


def _define_flags() -> None:
    flags.DEFINE_multi_string("manifest", [], "CSV file of recordings.")
    flags.DEFINE_multi_string("input_dir", [], "Folder of TIMIT, or one with a folder per speaker.")
    flags.DEFINE_string("model", "", "As for export.separate; by default the shipped one.")
    flags.DEFINE_integer("pairs", 24, "Number of mixtures.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Random seed.")
    flags.DEFINE_bool("save", False, "Write benchmarks/results/full_band.json.")


def main(arguments: list[str]) -> None:
    if arguments or not (flags.FLAGS.manifest or flags.FLAGS.input_dir):
        raise flags.Error("--manifest or --input_dir is needed, and no other argument")
    model = loading.load(pretrained.quickest(flags.FLAGS.model))
    rng = np.random.default_rng(flags.FLAGS.seed)
    people = _people()
    rows: dict[str, list[dict[str, float]]] = {way: [] for way in ("mixture", *WAYS)}
    for number in range(flags.FLAGS.pairs):
        voices = _mix(people, rng)
        mixture = voices.sum(axis=0)
        rows["mixture"].append(score(voices, np.stack([mixture, mixture]) / 2))
        for way, options in WAYS.items():
            found = separate.separate(mixture, RATE, model, **options)  # type: ignore[arg-type]
            rows[way].append(score(voices, found))
        print(f"pair {number + 1} of {flags.FLAGS.pairs}", flush=True)
    titles = ["SI-SDR, dB", "above 4 kHz, dB", "energy above 4 kHz, dB", "PESQ", "STOI"]
    print(f"\n| | {' | '.join(titles)} |", f"|:--|{'--:|' * len(titles)}", sep="\n")
    means = {
        way: {title: float(np.mean([row[title] for row in own])) for title in titles}
        for way, own in rows.items()
    }
    for way, row in means.items():
        print(f"| {way} |", " | ".join(f"{row[title]:.3g}" for title in titles), "|")
    if flags.FLAGS.save:
        about = {"model": flags.FLAGS.model or pretrained.DEFAULT, "seed": flags.FLAGS.seed}
        measure.write("full_band", {"facts": about, "means": means, "runs": rows})


def score(voices: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Scores estimates against the true voices, as means over the voices.

    Args:
        voices: true voices at 16 kHz, float32 `[source, sample]`.
        found: estimates, `[source, sample]`, in any order.

    Returns:
        SI-SDR of the whole band and of the part above 4 kHz, energy of that part in the estimates
        relative to the true voices, PESQ and STOI.
    """
    matrix = metrics.si_sdr_matrix(voices, found)
    found = found[metrics.best_permutation(matrix)]
    pairs = list(zip(voices, found, strict=True))
    true, high = upper_band.above(voices), upper_band.above(found)
    energy = [float(np.square(part.sum(axis=0), dtype=np.float64).sum()) for part in (high, true)]
    return {
        "SI-SDR, dB": float(np.diag(metrics.si_sdr_matrix(voices, found)).mean()),
        "above 4 kHz, dB": float(np.diag(metrics.si_sdr_matrix(true, high)).mean()),
        "energy above 4 kHz, dB": 10 * float(np.log10(energy[0] / energy[1])),
        "PESQ": float(np.mean([metrics.pesq(*pair, RATE) for pair in pairs])),
        "STOI": float(np.mean([metrics.stoi(*pair, RATE) for pair in pairs])),
    }


def _people() -> dict[str, list[np.ndarray]]:
    people: dict[str, list[np.ndarray]] = {}
    for utterance in corpus.read(flags.FLAGS.input_dir, flags.FLAGS.manifest).utterances:
        samples = inspection.read_speech(utterance.path, RATE, least=RATE)
        people.setdefault(utterance.speaker, []).append(samples)
    cli.require(len(people) > 1, "two speakers are needed")
    return people


def _mix(people: dict[str, list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Returns two voices, float32 `[source, sample]`."""
    names, voices = sorted(people), []
    half = rng.uniform(-1.25, 1.25)
    for index, move in zip(rng.choice(len(names), 2, replace=False), (half, -half), strict=True):
        own = people[names[index]]
        samples = np.concatenate([own[k] for k in rng.integers(len(own), size=_RECORDINGS)])
        level_db = plan.TARGET_LEVEL_DB + move - features.active_level_db(samples)
        voices.append(samples * np.float32(10 ** (level_db / 20)))
    length = min(map(len, voices))
    return np.stack([voice[:length] for voice in voices])


if __name__ == "__main__":
    _define_flags()
    cli.run(main, __doc__)
