r"""Trains the two small speaker networks: a speaker embedding and an overlap detector.

    python -m pipeline.virtual_speakers --manifest=speech/manifest.csv --output_dir=virtual
    python -m trainer.speaker_embedding \\
        --manifest=speech/manifest.csv --manifest=virtual/manifest.csv \\
        --separator=export/pretrained/two-voices-8khz --output=export/conversations/speakers.npz

takes some minutes on one or two CPU cores and writes less than 1 MB. Training uses the speakers of
the split train. The first network gives an embedding: segments of one speaker lie close together.
In each step it has to find, for a segment of each of 96 speakers, the other segment of the same
speaker (contrastive learning: the symmetric form of Chung et al., "In defence of metric learning
for speaker recognition", Interspeech 2020). Another voice, noise and a different spectral tilt are
mixed in. Virtual copies of a speaker are other speakers recorded in the same way, so that the
network learns to tell voices apart and not recordings; they are optional. The second network
detects, every 20 ms, whether two people speak, from the output of --separator for artificial
conversations. Retrain it for another separator.
"""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags, logging

from models import speaker
from pipeline import cli, features, inspection, virtual_speakers
from pipeline.corpora import corpus

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV file of recordings: path, speaker, …")
_SEPARATOR = flags.DEFINE_string("separator", "", "SavedModel of a separator of two voices")
_OUTPUT = flags.DEFINE_string("output", "", "the .npz file to write")
_STEPS = flags.DEFINE_integer("steps", 1500, "training steps of each network", lower_bound=1)
_MINUTES = flags.DEFINE_float("minutes", 60.0, "minutes of conversations for the second network")
_SEED = flags.DEFINE_integer("seed", 0, "random seed")

_WIDTHS = {"embedding": (128, 128, 128), "overlap": (64, 64, 64)}
_KERNELS = {"embedding": (5, 3, 3), "overlap": (5, 5, 5)}
_DIMENSION = 64
_DISCRIMINANTS = 32
_SEGMENTS_PER_SPEAKER = 10
# In a step of the first network, at most so many speakers, and so many copies of one of them.
_SPEAKERS, _COPIES = 96, 3
_LEARNING_RATE = {"embedding": 3e-3, "overlap": 2e-3}
# Of the cosines of the first network, at the start; learnt.
_SCALE = 10.0
# Examples in a step of the second network.
_BATCH = 24
# The quieter voice counts if it is at most this far below the louder one, over 0.2 s.
_SECOND_DB = 18.0
_CONVERSATION_SECONDS = 40.0
_LEVEL_DB = -26.0

Recordings = dict[str, list[np.ndarray]]
Separate = Callable[[np.ndarray], np.ndarray]


def main(arguments: list[str]) -> None:
    """Runs the command after its flags are parsed."""
    cli.no_arguments(arguments)
    for flag in (_MANIFESTS, _SEPARATOR, _OUTPUT):
        if not flag.value:
            raise flags.Error(f"--{flag.name} is needed")
    folder = pathlib.Path(_OUTPUT.value).parent
    cli.require(folder.is_dir(), f"--output: there is no folder {folder}; make it first")
    rng = np.random.default_rng(_SEED.value)
    people = read(_MANIFESTS.value, "train")
    strangers = read(_MANIFESTS.value, "valid")
    weights = train_embedding(people, _STEPS.value, rng)
    real = {name: own for name, own in people.items() if virtual_speakers.original(name) == name}
    weights |= whitening(speaker.Networks(weights), real, rng)
    networks = speaker.Networks(weights)
    logging.info(
        "equal error rate on valid, segments of 2 s: %.3f", error_rate(networks, strangers)
    )
    separate = load_separator(_SEPARATOR.value)
    train = conversations(people, separate, 60 * _MINUTES.value, rng)
    valid = conversations(strangers, separate, 6 * _MINUTES.value, rng)
    weights |= train_overlap(train, valid, _STEPS.value, rng)
    write(_OUTPUT.value, weights)


def read(manifests: list[str], split: str) -> Recordings:
    """Reads the recordings of a split by speaker, float32 `[sample]` at 8 kHz and −26 dB."""
    table = corpus.read(manifests=manifests)
    split_of = corpus.assign_splits(table.utterances, valid_fraction=0)
    people: Recordings = {}
    for utterance in table.utterances:
        if split_of[utterance.speaker] == split:
            samples = inspection.read_speech(utterance.path, speaker.RATE)
            if len(samples) >= speaker.RATE // 2 and samples.any():
                gain = 10 ** ((_LEVEL_DB - features.active_level_db(samples)) / 20)
                people.setdefault(utterance.speaker, []).append((gain * samples).astype(np.float32))
    cli.require(len(people) > 1, f"the manifests name fewer than two speakers of the split {split}")
    return people


def network(name: str, num_inputs: int, *, normalized: bool = False) -> tuple[Any, Any]:
    """Builds the convolutions in Keras.

    Args:
        name: `embedding` or `overlap`.
        num_inputs: inputs of a frame.
        normalized: normalise over the batch before each activation; training is faster.

    Returns:
        The input `[batch, frame, input]` and the output `[batch, frame, channel]`.
    """
    import keras

    inputs = keras.Input((None, num_inputs))
    hidden = inputs
    plan = zip(_WIDTHS[name], _KERNELS[name], speaker.DILATIONS[name], strict=True)
    for layer, (width, kernel, rate) in enumerate(plan):
        hidden = keras.layers.Conv1D(
            width, kernel, padding="same", dilation_rate=rate, name=f"{name}_{layer}"
        )(hidden)
        if normalized:
            hidden = keras.layers.BatchNormalization(
                momentum=0.95, name=f"{name}_{layer}_normalized"
            )(hidden)
        hidden = keras.layers.ReLU()(hidden)
    return inputs, hidden


def convolution_weights(model: Any, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of `speaker.Networks` for the layers made by `network`.

    The normalisation of a layer becomes part of its kernel and bias.
    """
    weights = {}
    layers = {layer.name: layer for layer in model.layers}
    for layer in range(len(_WIDTHS[name])):
        kernel, bias = layers[f"{name}_{layer}"].get_weights()
        normalized = layers.get(f"{name}_{layer}_normalized")
        if normalized is not None:
            gain, offset = affine(normalized)
            kernel, bias = kernel * gain, bias * gain + offset
        weights[f"{name}/{layer}/kernel"], weights[f"{name}/{layer}/bias"] = kernel, bias
    return weights


def affine(normalization: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gain and offset, `[channel]`, that a trained BatchNormalization applies."""
    gain, offset, mean, variance = normalization.get_weights()
    gain = gain / np.sqrt(variance + normalization.epsilon)
    return gain, offset - gain * mean


def embedding_network() -> Any:
    """Builds the first network.

    Its inputs are features `[batch, frame, feature]` and weights `[batch, frame]`, its output is
    `[batch, dimension]`.
    """
    import keras

    inputs, hidden = network("embedding", speaker.NUM_FEATURES, normalized=True)
    weight = keras.Input((None,))
    share = (weight / keras.ops.maximum(keras.ops.sum(weight, axis=1, keepdims=True), 1))[..., None]
    mean = keras.ops.sum(share * hidden, axis=1)
    variance = keras.ops.sum(share * hidden**2, axis=1) - mean**2
    pooled = keras.ops.concatenate(
        [mean, keras.ops.sqrt(keras.ops.maximum(variance, 1e-4))], axis=1
    )
    pooled = keras.layers.BatchNormalization(momentum=0.95, name="pooled")(pooled)
    pooled = keras.layers.Dropout(0.2)(pooled)
    vector = keras.layers.Dense(_DIMENSION, use_bias=False, name="dense")(pooled)
    return keras.Model([inputs, weight], vector)


def embedding_weights(model: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of `speaker.Networks` for `embedding_network`."""
    (dense,) = model.get_layer("dense").get_weights()
    gain, offset = affine(model.get_layer("pooled"))
    return convolution_weights(model, "embedding") | {
        "embedding/dense": gain[:, np.newaxis] * dense,
        "embedding/bias": offset @ dense,
    }


def train_embedding(
    people: Recordings, steps: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Trains the first network on recordings by speaker and returns its arrays by name."""
    import keras
    import tensorflow as tf

    names = sorted(people)
    table = [[speaker.features(x).astype(np.float16) for x in people[name]] for name in names]
    model = embedding_network()
    log_scale = tf.Variable(np.float32(np.log(_SCALE)))
    optimizer = keras.optimizers.AdamW(
        keras.optimizers.schedules.CosineDecay(_LEARNING_RATE["embedding"], steps),
        weight_decay=1e-2,
    )

    @tf.function(reduce_retracing=True)
    def step(values: Any, weights: Any) -> Any:
        """Takes one segment of each speaker, then another of each in the same order."""
        with tf.GradientTape() as tape:
            unit = tf.math.l2_normalize(model([values, weights], training=True), axis=1)
            first, second = tf.split(unit, 2)
            logits = tf.exp(log_scale) * tf.matmul(first, second, transpose_b=True)
            labels = tf.range(tf.shape(first)[0])
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
                + tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=tf.transpose(logits)
                )
            )
        variables = [*model.trainable_variables, log_scale]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss / 2

    begin, losses = time.monotonic(), []
    for count in range(steps):
        length = int(rng.choice([40, 70, 100]))
        labels = draw_speakers(names, rng)
        parts = [embedding_example(table, label, length, rng) for label in labels + labels]
        values, weights = (np.stack(part) for part in zip(*parts, strict=True))
        losses.append(float(step(values, weights)))
        if (count + 1) % 250 == 0:
            logging.info(
                "embedding: step %d, loss %.2f, %.0f s",
                count + 1, np.mean(losses[-250:]), time.monotonic() - begin,
            )  # fmt: skip
    return embedding_weights(model)


def draw_speakers(names: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Draws different speakers by index; some of them are copies of the same person."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        groups.setdefault(virtual_speakers.original(name), []).append(index)
    people = list(groups.values())
    drawn: list[int] = []
    for person in rng.permutation(len(people))[:_SPEAKERS]:
        drawn += rng.permutation(people[person])[:_COPIES].tolist()
    return drawn[:_SPEAKERS]


def segment(recordings: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a segment of a speaker's features, float32 `[frame, feature]`, padded by silence."""
    own = recordings[rng.integers(len(recordings))]
    first = int(rng.integers(max(1, len(own) - length + 1)))
    part = own[first : first + length].astype(np.float32)
    return np.pad(part, ((0, length - len(part)), (0, 0)), constant_values=-100)


def embedding_example(
    table: list[list[np.ndarray]], label: int, length: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a segment of a speaker with another voice and noise mixed in, as network inputs."""
    power = np.power(10, segment(table[label], length, rng) / 10)
    if rng.uniform() < 0.6:
        other = segment(table[rng.integers(len(table))], length, rng)
        power += np.power(10, (other - rng.uniform(3, 25)) / 10)
    level = power.mean()
    power += level * 10 ** (rng.uniform(-50, -15) / 10) * rng.exponential(size=power.shape)
    # Simulate another microphone: the spectral shape also depends on the recording.
    place = np.linspace(0, 1, speaker.NUM_FEATURES)
    curve = sum(
        rng.normal(0, 3) * np.cos(np.pi * k * place + rng.uniform(0, 6)) for k in (1, 2, 3, 4)
    )
    return speaker.embedding_inputs((10 * np.log10(power + 1e-12) + curve).astype(np.float32))


def whitening(
    networks: speaker.Networks, people: Recordings, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Computes linear discriminants of the embeddings; the within-speaker covariance becomes one.

    Segments are 2 s long and, unlike in training, left as they are: within a conversation the
    microphone and the noise stay the same.
    """
    from scipy import linalg

    within = np.zeros((_DIMENSION, _DIMENSION))
    means = []
    for recordings in people.values():
        table = [speaker.features(x) for x in recordings]
        drawn = [segment(table, 100, rng) for _ in range(_SEGMENTS_PER_SPEAKER)]
        vectors = np.stack([networks.vector(*speaker.embedding_inputs(x)) for x in drawn])
        means.append(vectors.mean(axis=0))
        within += np.cov(vectors.T) / len(people)
    between = np.cov(np.stack(means).T) - within / _SEGMENTS_PER_SPEAKER
    spread, directions = linalg.eigh(between, within + 1e-6 * np.eye(_DIMENSION))
    best = np.argsort(-spread)[:_DISCRIMINANTS]
    return {"embedding/whiten": directions[:, best], "embedding/spread": spread[best]}


def error_rate(networks: speaker.Networks, people: Recordings, seconds: float = 2.0) -> float:
    """Returns the equal error rate of verifying whether two segments are of one speaker."""
    vectors, owners = [], []
    length = round(seconds * speaker.RATE)
    for name, recordings in people.items():
        samples = np.concatenate(recordings)[: 12 * length]
        for first in range(0, len(samples) - length, length):
            vectors.append(networks.embed(speaker.features(samples[first : first + length])))
            owners.append(name)
    scores = -np.square(np.array(vectors)[:, np.newaxis] - np.array(vectors)).sum(axis=2)
    pairs = np.triu_indices(len(owners), 1)
    same = (np.array(owners)[:, None] == np.array(owners))[pairs]
    scores = scores[pairs]
    thresholds = np.quantile(scores, np.linspace(0, 1, 500))
    missed = np.array([(scores[same] < t).mean() for t in thresholds])
    false = np.array([(scores[~same] >= t).mean() for t in thresholds])
    best = int(np.argmin(np.abs(missed - false)))
    return float((missed[best] + false[best]) / 2)


def load_separator(path: str) -> Separate:
    """Returns a function from float32 `[batch, sample]` to voices `[batch, source, sample]`."""
    import tensorflow as tf

    module = tf.saved_model.load(path)
    run = module.signatures["serving_default"]

    # The default argument keeps the module alive as long as its signature.
    def separate(waveform: np.ndarray, _: Any = module) -> np.ndarray:
        return run(waveform=tf.constant(waveform))["sources"].numpy()

    return separate


def conversation(people: Recordings, rng: np.random.Generator) -> np.ndarray:
    """Makes a conversation of two with turns, overlaps and pauses; float32 `[2, sample]`."""
    length = round(_CONVERSATION_SECONDS * speaker.RATE)
    voices = np.zeros((2, length), np.float32)
    names = sorted(people)
    for voice, index in zip(voices, rng.choice(len(names), 2, replace=False), strict=True):
        # Each speaks half of the time, in stretches of 1 to 12 s.
        own, place = people[names[index]], int(rng.uniform(0, 6) * speaker.RATE)
        gain = 10 ** (rng.uniform(-2.5, 2.5) / 20)
        while place < length:
            part = own[rng.integers(len(own))][: int(rng.uniform(1, 12) * speaker.RATE)]
            part = part[: length - place]
            voice[place : place + len(part)] += gain * part
            place += len(part) + int(rng.uniform(0.1, 8) * speaker.RATE)
    return voices


def conversations(
    people: Recordings,
    separate: Separate,
    seconds: float,
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Makes training examples for the second network: inputs `[frame, input]`, truth `[frame]`."""
    examples: list[tuple[np.ndarray, np.ndarray]] = []
    while len(examples) * _CONVERSATION_SECONDS < seconds:
        voices = conversation(people, rng)
        noise = rng.standard_normal(voices.shape[1]) * 10 ** (rng.uniform(-80, -50) / 20)
        mixture = voices.sum(axis=0) + noise.astype(np.float32)
        estimates = separate(mixture[np.newaxis])[0]
        first, second = (speaker.features(estimate) for estimate in estimates)
        both = speaker.levels(speaker.features(mixture))
        level = float(both[both >= both.max() - speaker.SPEECH_RANGE_DB].mean())
        examples.append((speaker.overlap_inputs(first, second, level), truth(voices)))
    return examples


def truth(voices: np.ndarray) -> np.ndarray:
    """Whether two voices speak, float32 `[frame]`: both loud and of similar level over 0.2 s."""
    reach = 5 * speaker.HOP
    frames = -(-voices.shape[1] // speaker.HOP)
    padded = np.pad(np.square(voices, dtype=np.float64), ((0, 0), (reach, 2 * reach)))
    total = np.pad(np.cumsum(padded, axis=1), ((0, 0), (1, 0)))
    centre = speaker.HOP * np.arange(frames) + speaker.HOP // 2 + reach
    power = (total[:, centre + reach] - total[:, centre - reach]) / (2 * reach)
    quiet = power.min(axis=0)
    near = quiet >= power.max(axis=0) * 10 ** (-_SECOND_DB / 10)
    return (near & (quiet >= 10 ** ((_LEVEL_DB - 25) / 10))).astype(np.float32)


def train_overlap(
    train: list[tuple[np.ndarray, np.ndarray]],
    valid: list[tuple[np.ndarray, np.ndarray]],
    steps: int,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Trains the second network and returns its arrays by name."""
    import keras

    inputs, hidden = network("overlap", 2 * speaker.NUM_FEATURES, normalized=True)
    hidden = keras.layers.Dropout(0.2)(hidden)
    logits = keras.layers.Dense(1, name="dense")(hidden)
    model = keras.Model(inputs, logits)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(_LEARNING_RATE["overlap"], steps),
            weight_decay=1e-2,
        ),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    begin, losses, length = time.monotonic(), [], 250
    for count in range(steps):
        picks = rng.integers(len(train), size=_BATCH)
        values, labels = [], []
        for pick in picks:
            first = int(rng.integers(len(train[pick][1]) - length + 1))
            part = train[pick][0][first : first + length]
            # Vary the level.
            values.append(part + np.float32(0))
            values[-1][:, : speaker.NUM_FEATURES] += rng.normal(0, 0.2)
            labels.append(train[pick][1][first : first + length, np.newaxis])
        losses.append(float(model.train_on_batch(np.stack(values), np.stack(labels))))
        if (count + 1) % 250 == 0:
            logging.info(
                "overlap: step %d, loss %.3f, %.0f s",
                count + 1, losses[-1], time.monotonic() - begin,
            )  # fmt: skip
    weights = convolution_weights(model, "overlap")
    kernel, bias = model.get_layer("dense").get_weights()
    weights |= {"overlap/dense": kernel, "overlap/bias": bias}
    networks = speaker.Networks(weights)
    found = np.concatenate([networks.overlap(values) for values, _ in valid]) > 0.5
    real = np.concatenate([labels for _, labels in valid]) > 0.5
    logging.info(
        "overlap on valid: %.1f %% of frames; %.1f %% of them detected, %.1f %% false alarms",
        100 * real.mean(), 100 * found[real].mean(), 100 * found[~real].mean(),
    )  # fmt: skip
    return weights


def write(path: str, weights: dict[str, np.ndarray]) -> None:
    """Writes the arrays as float16, under a temporary name first."""
    target = pathlib.Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **{k: v.astype(np.float16) for k, v in weights.items()})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(main, __doc__)
