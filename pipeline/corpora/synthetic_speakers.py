"""Draws synthetic speakers at random and has them read sentences.

Speaker `index` of a split is a function of (seed, split, index) alone: it does not depend on the
number of speakers. The ranges are set so that pitch, share of voiced speech, harmonics-to-noise
ratio and long-term spectrum are like those of real speakers; robots and whispers are outside.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import soxr

from pipeline import features
from pipeline.corpora import espeak, harvard

# The last lists are only for the test split.
_TEST_SENTENCES = 12 * harvard.LIST_LENGTH

ACCENTS = (
    "en-us",
    "en-us-nyc",
    "en",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-scotland",
    "en-029",
)
RATE = 16000

# Two kinds of synthesis: 0 adds up harmonics below formant peaks; 3, 4 and 6 are Klatt's cascade
# (Klatt 1980) with different glottal pulses. 1 and 2 lack low frequencies, 5 is much like 4.
_SYNTHESES = (0, 0, 0, 3, 4, 6)
# At higher volumes, the library clips its loudest voices.
_VOLUME = 60
_SPLIT_CODES = {"train": 0, "test": 1}
_SHORTEST_SECONDS = 2.5
_EQUALIZER_HZ = (60.0, 150.0, 400.0, 1000.0, 2500.0, 5000.0, 8000.0)


def sentences(split: str) -> tuple[str, ...]:
    """Returns the Harvard sentences that speakers of `train` or `test` read."""
    if split == "test":
        return harvard.SENTENCES[-_TEST_SENTENCES:]
    return harvard.SENTENCES[:-_TEST_SENTENCES]


@dataclasses.dataclass(frozen=True)
class Speaker:
    """A synthetic speaker.

    Attributes:
        sex: `f` or `m`.
        accent: one of `ACCENTS`.
        pitch_hz: approximate median of the fundamental frequency.
        words_per_minute: speaking rate before `tract_ratio` is applied.
        tract_ratio: factor by which all resonances of the voice are raised, as in a shorter vocal
            tract; done by resampling the recording.
        voice: lines of an eSpeak NG voice.
        equalizer_db: gain at each of seven frequencies, the colour of microphone and room.
        level_db: active level of the recording; 0 dB is a mean square of 1.
        noise_db: level of the background relative to the speech, negative.
        seed: for everything random while reading.
    """

    sex: str
    accent: str
    pitch_hz: float
    words_per_minute: int
    tract_ratio: float
    voice: str
    equalizer_db: tuple[float, ...]
    level_db: float
    noise_db: float
    seed: int


def draw(seed: int, split: str, index: int) -> Speaker:
    """Draws speaker `index` of a split; sexes alternate, and each accent occurs once in eight.

    Args:
        seed: random seed of the corpus.
        split: `train` or `test`.
        index: from 0.
    """
    random = np.random.default_rng([seed, _SPLIT_CODES[split], index])
    female = index % 2 == 0
    accent = ACCENTS[index // 2 % len(ACCENTS)]
    if female:
        pitch = float(np.clip(random.normal(200, 24), 150, 265))
        formants, tract = random.normal(112, 4), random.normal(1.03, 0.04)
    else:
        pitch = float(np.clip(random.normal(115, 18), 78, 165))
        formants, tract = random.normal(98, 3), random.normal(0.99, 0.04)
    tract = float(np.clip(tract, 0.9, 1.12))
    return Speaker(
        sex="f" if female else "m",
        accent=accent,
        pitch_hz=round(pitch, 1),
        words_per_minute=int(random.integers(140, 196)),
        tract_ratio=round(tract, 4),
        voice=_draw_voice(random, pitch / tract, formants),
        equalizer_db=tuple(np.round(random.normal(0, 2.5, len(_EQUALIZER_HZ)), 2).tolist()),
        level_db=round(float(random.normal(-26, 2.5)), 2),
        noise_db=round(float(random.uniform(-58, -45)), 2),
        seed=int(random.integers(2**31)),
    )


def _draw_voice(random: np.random.Generator, pitch: float, formants: float) -> str:
    """Returns a voice file; its attributes are described in docs/voices.md of eSpeak NG."""
    synthesis = int(random.choice(_SYNTHESES))
    liveliness = random.uniform(0.6, 1.5)
    low, high = pitch * (1 - 0.2 * liveliness), pitch * (1 + 0.17 * liveliness)
    lines = [f"klatt {synthesis}"] if synthesis else []
    lines.append(f"pitch {low:.0f} {high:.0f}")
    for number in range(1, 9):
        frequency = formants * (1 + np.clip(random.normal(0, 0.035), -0.08, 0.08))
        strength = random.uniform(70, 125) if number > 1 else random.uniform(90, 110)
        lines.append(
            f"formant {number} {frequency:.0f} {strength:.0f} {random.uniform(80, 140):.0f}"
        )
    lines += [
        f"flutter {random.integers(1, 9)}",
        f"roughness {random.integers(0, 4)}",
        f"voicing {random.integers(80, 121)}",
        f"consonants {random.integers(60, 131)} {random.integers(60, 131)}",
        f"intonation {random.integers(1, 4)}",
        "stressAdd " + " ".join(str(value) for value in random.integers(-25, 26, 8)),
    ]
    if not synthesis:
        bass, middle, treble = (random.integers(*r) for r in ((140, 230), (100, 180), (70, 160)))
        lines.append(f"tone 600 {bass} 1200 {middle} 2000 {treble}")
    # `breath` is not used: with it, the library (1.52) reads uninitialised memory, and runs differ.
    return "\n".join(lines)


def read(
    speaker: Speaker, sentences: Sequence[str], count: int
) -> list[tuple[list[str], np.ndarray]]:
    """Has a speaker read sentences.

    Args:
        speaker: who reads.
        sentences: enough for `count` recordings; each is read at most once.
        count: number of recordings.

    Returns:
        For each recording its sentences (a second one if the first alone takes less than 2.5 s)
        and int16 `[sample]` at 16 kHz.

    Raises:
        espeak.EspeakError: eSpeak NG is not installed.
        ValueError: there are fewer than twice as many sentences as recordings.
    """
    if len(sentences) < 2 * count:
        raise ValueError(f"{count} recordings take up to {2 * count} sentences")
    random = np.random.default_rng(speaker.seed)
    order = iter(random.permutation(len(sentences)))
    recordings = []
    with espeak.Synthesizer({"speaker": speaker.voice}, speaker.seed) as synthesizer:
        for _ in range(count):
            said = [sentences[next(order)]]
            speech = _speak(synthesizer, speaker, said[0])
            if speech.size < _SHORTEST_SECONDS * RATE:
                said.append(sentences[next(order)])
                pause = _silence(random, 0.15, 0.4)
                speech = np.concatenate([speech, pause, _speak(synthesizer, speaker, said[1])])
            whole = [_silence(random, 0.1, 0.25), speech, _silence(random, 0.1, 0.25)]
            recordings.append((said, _record(np.concatenate(whole), speaker, random)))
    return recordings


def _silence(random: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    return np.zeros(int(random.uniform(shortest, longest) * RATE), np.float32)


def _speak(synthesizer: espeak.Synthesizer, speaker: Speaker, sentence: str) -> np.ndarray:
    """Returns one sentence without the silence around it, float32 `[sample]` at 16 kHz."""
    samples = synthesizer.say(
        sentence,
        f"{speaker.accent}+speaker",
        rate=round(speaker.words_per_minute / speaker.tract_ratio),
        volume=_VOLUME,
    )
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 30)
    speech = samples[loud[0] : loud[-1] + 1].astype(np.float32) / 32768
    return soxr.resample(speech, synthesizer.rate * speaker.tract_ratio, RATE, quality="HQ")


def _record(speech: np.ndarray, speaker: Speaker, random: np.random.Generator) -> np.ndarray:
    """Simulates a microphone: background, colour, level; returns int16 `[sample]`."""
    background = random.standard_normal(speech.size, np.float32)
    level = features.active_level_db(speech)
    samples = speech + background * np.float32(10 ** ((level + speaker.noise_db) / 20))
    samples = _equalize(samples, speaker.equalizer_db)
    wanted = speaker.level_db + random.normal(0, 1)
    samples = samples * 10 ** ((wanted - features.active_level_db(samples)) / 20)
    samples = samples * min(1, 0.95 / np.abs(samples).max())
    return np.round(samples * 32767).astype(np.int16)


def _equalize(samples: np.ndarray, gains_db: tuple[float, ...]) -> np.ndarray:
    """Applies a zero-delay filter with a gain in dB linear in log frequency between the points."""
    length = -(-(samples.size + 1024) // 4096) * 4096
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    curve = np.interp(np.log(np.maximum(hertz, 1)), np.log(_EQUALIZER_HZ), gains_db)
    return np.fft.irfft(np.fft.rfft(samples, length) * 10 ** (curve / 20), length)[: samples.size]
