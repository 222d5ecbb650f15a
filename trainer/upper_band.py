"""Fits the weights of `models.upper_band` and prints them, to be pasted there.

    python -m trainer.upper_band --recordings=voices --separator=export/pretrained/two-voices-8khz

The recordings must be of real people, at 16 kHz or more: fitted on synthetic voices, the weights
improve the part above the model's band half as much. Pairs of speakers are mixed. The fit relates
each voice's true share above the model's band to the levels of the voices below it, both of the
separator's estimates and of the true voices. It takes a few minutes.
"""

import numpy as np
from absl import flags, logging

from models import upper_band
from pipeline import cli, features, inspection, schema
from pipeline.audio import decoding
from pipeline.corpora import corpus

_RECORDINGS = flags.DEFINE_string("recordings", "", "folder of recordings, one folder per speaker")
_SEPARATOR = flags.DEFINE_string("separator", "", "SavedModel of a separator at 8 kHz")
_PAIRS = flags.DEFINE_integer("pairs", 60, "number of mixtures to learn from", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "random seed")

_RATE = 16000
_LEVEL_DB = -26.0
# Upper limit of a frame's weight, so that a few loud frames do not dominate.
_MOST = 30.0
_DECAY = 1e-3
# Delay of the shares in a stream, in frames.
_LATE = 3


def main(arguments: list[str]) -> None:
    """Runs the command after its flags are parsed."""
    cli.no_arguments(arguments)
    for flag in (_RECORDINGS, _SEPARATOR):
        if not flag.value:
            raise flags.Error(f"--{flag.name} is needed")
    people = _people(_RECORDINGS.value)
    import tensorflow as tf

    module = tf.saved_model.load(_SEPARATOR.value)
    run = module.signatures["serving_default"]
    rng = np.random.default_rng(_SEED.value)
    # The voices, and below the separator's band as they are and as it finds them.
    cases = []
    for _ in range(_PAIRS.value):
        voices = pair(people, rng)
        low = decoding.resample(voices.T, _RATE, schema.DEFAULT_SAMPLE_RATE).T
        mixture = tf.constant(low.sum(axis=0)[np.newaxis])
        found = run(waveform=mixture)["sources"].numpy()[0]
        if np.trace(found @ low.T) < np.trace(found[::-1] @ low.T):
            found = found[::-1]
        cases += [(low, voices), (found, voices)]
    for causal in (False, True):
        examples = [example(below, voices, causal) for below, voices in cases]
        weights = fit(*(np.concatenate(part) for part in zip(*examples, strict=True)))
        print("CAUSAL_WEIGHTS" if causal else "WEIGHTS")
        print(np.array2string(weights.reshape(upper_band.WEIGHTS.shape), precision=2))


def _people(folder: str) -> dict[str, list[np.ndarray]]:
    people: dict[str, list[np.ndarray]] = {}
    for utterance in corpus.read([folder]).utterances:
        samples = inspection.read_speech(utterance.path, _RATE, least=_RATE)
        people.setdefault(utterance.speaker, []).append(samples)
    cli.require(len(people) > 1, f"{folder} has fewer than two speakers")
    logging.info("%d speakers", len(people))
    return people


def pair(people: dict[str, list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Returns two utterances each of two speakers, within ±5 dB; float32 `[2, sample]`, 16 kHz."""
    names = sorted(people)
    voices = []
    for index in rng.choice(len(names), 2, replace=False):
        own = people[names[index]]
        samples = np.concatenate([own[i] for i in rng.integers(len(own), size=2)])
        voices.append(samples * 10 ** ((_LEVEL_DB - features.active_level_db(samples)) / 20))
    length, half = min(map(len, voices)), rng.uniform(-2.5, 2.5)
    gains = 10 ** (np.array([[half], [-half]]) / 20)
    return (gains * np.stack([voice[:length] for voice in voices])).astype(np.float32)


def example(
    below: np.ndarray, voices: np.ndarray, causal: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns inputs `[frame, weight]`, true share of the first voice and weight, both `[frame]`.

    Args:
        below: the voices at 8 kHz, `[2, sample]`, as estimated by a separator.
        voices: the true voices at 16 kHz, `[2, sample]`.
        causal: see `upper_band.inputs`.
    """
    levels = upper_band.inputs(upper_band.band_powers(below), causal)
    if causal:
        # A stream only knows complete frames: half a frame and the ramp of one hop earlier.
        levels = np.pad(levels, ((0, 0), (_LATE, 0), (0, 0)), "edge")[:, :-_LATE]
    # At the doubled rate, every second frame is centred on the same time.
    power = np.square(np.abs(features.stft(upper_band.above(voices)))).sum(axis=2)[:, ::2]
    frames = min(power.shape[1], levels.shape[1])
    power, levels = power[:, :frames], levels[:, :frames]
    total = power.sum(axis=0)
    return (
        levels[0] - levels[1],
        power[0] / (total + 1e-12),
        np.minimum(total / total.mean(), _MOST),
    )


def fit(differences: np.ndarray, share: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Finds the weights whose shares assign the least energy to the wrong voice."""
    from scipy import optimize

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        guess = 1 / (1 + np.exp(-differences @ weights))
        error = guess - share
        slope = 2 * counts * error * guess * (1 - guess)
        value = (counts * error**2).mean() + _DECAY * weights @ weights
        return value, differences.T @ slope / len(share) + 2 * _DECAY * weights

    return optimize.minimize(loss, np.zeros(differences.shape[1]), jac=True, method="L-BFGS-B").x


if __name__ == "__main__":
    cli.run(main, __doc__)
