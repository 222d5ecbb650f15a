"""A synthetic conversation with known truth: turns, an interruption, a pause, two at once."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.corpora import synthetic_speakers

# The speaker, and the seconds between the end of the previous utterance and the start of this one
# (negative: they overlap).
SCRIPT = ((0, 0.5), (1, 0.6), (0, -1.2), (1, 2.0), (0, -1.8))
_PEAK = 0.9


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Voices of two people, and when each of them speaks.

    Attributes:
        voices: float32 `[source, sample]`, full scale 1; their sum is the conversation.
        rate: sample rate in Hz.
        utterances: speaker (from 0), start and end in seconds of each, in order. The first and
            last 0.1 to 0.25 s of an utterance are silent.
    """

    voices: np.ndarray
    rate: int
    utterances: tuple[tuple[int, float, float], ...]

    @property
    def mixture(self) -> np.ndarray:
        """The sum of the voices, float32 `[sample]`."""
        return self.voices.sum(axis=0)


def make(seed: int = 0, first_speaker: int = 0) -> Conversation:
    """Returns a conversation of a woman and a man of the synthetic test split, at 16 kHz.

    Args:
        seed: random seed of the speakers.
        first_speaker: index of the first in the split; the second is the next.

    Raises:
        espeak.EspeakError: eSpeak NG is not installed.
    """
    spoken = []
    for index in (first_speaker, first_speaker + 1):
        speaker = synthetic_speakers.draw(seed, "test", index)
        count = sum(who == index - first_speaker for who, _ in SCRIPT)
        said = synthetic_speakers.read(speaker, synthetic_speakers.sentences("test"), count)
        spoken.append([samples / np.float32(32768) for _, samples in said])
    return arrange(spoken, synthetic_speakers.RATE)


def arrange(spoken: Sequence[Sequence[np.ndarray]], rate: int) -> Conversation:
    """Places utterances as `SCRIPT` says.

    Args:
        spoken: float32 `[sample]`, for each speaker as many utterances as in the script.
        rate: sample rate in Hz.
    """
    left = [iter(utterances) for utterances in spoken]
    places: list[tuple[int, int, np.ndarray]] = []
    end = 0
    for speaker, after in SCRIPT:
        samples = next(left[speaker])
        start = max(0, end + round(after * rate))
        end = start + len(samples)
        places.append((speaker, start, samples))
    length = max(start + len(samples) for _, start, samples in places) + rate // 2
    tracks = np.zeros((len(spoken), length), np.float32)
    for speaker, start, samples in places:
        tracks[speaker, start : start + len(samples)] += samples
    peak = float(np.abs(tracks.sum(axis=0)).max())
    return Conversation(
        tracks * np.float32(min(1.0, _PEAK / max(peak, 1e-9))),
        rate,
        tuple((who, start / rate, (start + len(part)) / rate) for who, start, part in places),
    )
