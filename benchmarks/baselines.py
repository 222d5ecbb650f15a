"""Baselines for the Beam job: the same work in a bare loop, and the original's generator.

Both take pairs of recordings and return `Output`; neither uses Beam or a plan.
"""

import dataclasses
import hashlib
import multiprocessing
import pathlib
import pickle
import random
import time
from collections.abc import Sequence

import numpy as np

from pipeline import features, schema
from pipeline.audio import decoding
from pipeline.corpora import corpus

Pair = tuple[corpus.Utterance, corpus.Utterance]


@dataclasses.dataclass(frozen=True)
class Output:
    """The result of a run: seconds of mixture read and kept, bytes written, and seconds taken."""

    read: float
    kept: float
    bytes: int
    took: float

    @property
    def speed(self) -> float:
        """Speed as a multiple of real time."""
        return self.read / self.took


def pair(utterances: Sequence[corpus.Utterance]) -> list[Pair]:
    """Pairs each utterance with one of another speaker, chosen with a fixed seed."""
    draw = random.Random(0)
    pairs = []
    for first in utterances:
        second = draw.choice(utterances)
        while second.speaker == first.speaker:
            second = draw.choice(utterances)
        pairs.append((first, second))
    return pairs


def bare_loop(pairs: Sequence[Pair], folder: pathlib.Path, processes: int) -> Output:
    """Writes one shard per process of a pool; `took` includes their start and imports."""
    start = time.perf_counter()
    parts = [(pairs[n::processes], folder / f"{n}.tfrecord") for n in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        outputs = pool.starmap(bare_shard, parts)
    return Output(
        sum(o.read for o in outputs),
        sum(o.kept for o in outputs),
        sum(o.bytes for o in outputs),
        time.perf_counter() - start,
    )


def bare_shard(pairs: Sequence[Pair], path: pathlib.Path) -> Output:
    """Writes a shard of our records: two decodes, levels, spectrograms, masks, checksums, framing.

    The Beam job does more in two respects: it first decodes each recording once to inspect it
    (`bare_shard_inspected`), and it counts the histogram for the mean and the deviation. It does
    less in one: its workers cache decoded recordings. A recording is in two mixtures on average;
    if these are close together, the job decodes it only once. Here it is decoded twice.
    """
    # A heavy import: the spawned processes pay for it, as Beam's workers do.
    from pipeline.dataset import mixture_shards, tfrecord

    start = time.perf_counter()
    rate = schema.DEFAULT_SAMPLE_RATE
    stored = schema.mixture_features(schema.MASKS)
    seconds = 0.0
    with open(path, "wb") as file:
        writer = tfrecord.Writer(file)
        for number, (first, second) in enumerate(pairs):
            signals, gains = [], []
            for utterance in (first, second):
                data = pathlib.Path(utterance.path).read_bytes()
                hashlib.sha256(data).hexdigest()
                samples, own_rate = decoding.decode(data)
                samples = decoding.resample(samples, own_rate, rate)
                signals.append(samples)
                gains.append(-26 - features.active_level_db(samples))
            length = min(map(len, signals))
            sources = np.stack(
                [
                    np.rint(signal[:length] * np.float32(32768 * 10 ** (gain / 20)))
                    for signal, gain in zip(signals, gains, strict=True)
                ]
            ).clip(-32768, 32767).astype(np.int16)  # fmt: skip
            values = mixture_shards.compute(sources, schema.MASKS) | {
                "mixture_id": str(number),
                "utterance_ids": [first.id, second.id],
                "speaker_ids": [first.speaker, second.speaker],
                "sexes": [first.sex, second.sex],
                "gains_db": gains,
                "sample_rate": rate,
                "num_samples": length,
                "num_frames": schema.num_frames(length),
                "num_bins": schema.NUM_BINS,
                "num_sources": 2,
            }
            lists = schema.encode(stored, values)
            writer.write(tfrecord.example_bytes({f.name: (f.kind, lists[f.name]) for f in stored}))
            seconds += length / rate
    return Output(seconds, seconds, writer.bytes, time.perf_counter() - start)


def bare_shard_inspected(pairs: Sequence[Pair], path: pathlib.Path) -> Output:
    """Does the same as `bare_shard` after inspecting each recording once, as the Beam job does.

    It inspects the first recordings of the pairs, since every recording is the first of a pair.
    """
    from pipeline import inspection

    start = time.perf_counter()
    for utterance in {first.id: first for first, _ in pairs}.values():
        inspection.inspect(utterance, schema.DEFAULT_SAMPLE_RATE)
    inspected = time.perf_counter() - start
    output = bare_shard(pairs, path)
    return dataclasses.replace(output, took=output.took + inspected)


def original(pairs: Sequence[Pair], path: pathlib.Path) -> Output:
    """Runs the generator that this project replaces, with its own settings, on one core.

    It reads and resamples with librosa and computes spectrograms with SciPy. Chunks of 100 frames
    hold the mixture's log spectrum twice (raw and normalised), voice activity, both binary and both
    ratio masks, and no waveform. The remainder after the last whole chunk is discarded. The list is
    pickled.
    """
    import librosa
    import scipy.signal

    rate, chunk = 8000, 100
    librosa.load(pairs[0][0].path, sr=rate)  # Triggers librosa's lazy imports and compilation.
    start = time.perf_counter()
    chunks, read = [], 0.0
    for utterances in pairs:
        signals = [librosa.load(utterance.path, sr=rate)[0] for utterance in utterances]
        length = min(map(len, signals))
        signals = [signal[:length] for signal in signals]
        read += length / rate
        one, two, mixed = (
            np.abs(scipy.signal.stft(s, rate, "hann", nperseg=256, noverlap=192)[2].T)
            for s in (*signals, signals[0] + signals[1])
        )
        spectrum = np.log10(np.maximum(mixed, 1e-7))
        normalised = (spectrum - spectrum.mean()) / spectrum.std()
        active = spectrum.max(axis=1) > spectrum.max() - 2
        louder = one > two
        ratio = one / (one + two + 1e-12)
        for begin in range(0, len(spectrum) - chunk + 1, chunk):
            part = slice(begin, begin + chunk)
            chunks.append(
                {
                    "spectrum": spectrum[part].astype(np.float16),
                    "normalised": normalised[part].astype(np.float16),
                    "vad": active[part],
                    "ibm_1": louder[part],
                    "ibm_2": ~louder[part],
                    "irm_1": ratio[part].astype(np.float16),
                    "irm_2": (1 - ratio[part]).astype(np.float16),
                }
            )
    with open(path, "wb") as file:
        pickle.dump(chunks, file)
    kept = len(chunks) * chunk * 64 / rate
    return Output(read, kept, path.stat().st_size, time.perf_counter() - start)
