"""Cuts the model's outputs into segments in which one person speaks, or two, without a long pause.

A small network (`models.speaker`) finds where two speak, and another gives an embedding of the
voices in each segment.
"""

import dataclasses
import functools
import importlib.resources
import io
import itertools
from collections.abc import Sequence

import numpy as np

from export.separation import spool
from models import speaker
from pipeline.audio import decoding

WEIGHTS_FILE = "speakers.npz"
FRAME_SECONDS = speaker.HOP / speaker.RATE

# Two voices begin above the first probability and end below the second. Then, the minimum duration
# of two voices and of one.
TWO_FROM, TWO_UNTIL = 0.2, 0.1
MIN_TWO_SECONDS, MIN_ONE_SECONDS = 0.24, 0.6
# The share of time with two voices in the network's training data; the prior estimate of this share
# in a recording, and the prior's weight in seconds.
LEARNT_SHARE, EXPECTED_SHARE, EXPECTED_SECONDS = 0.2, 0.5, 10.0
# If two speak for more than this share of the time, one speaks alone only where an output is this
# much stronger. The first share is for less than SHORT_SECONDS of speech, too little to be sure.
SHORT_OFTEN_TWO, OFTEN_TWO, SHORT_SECONDS, SURE_DB = 0.27, 0.5, 15.0, 10.0
# A weaker output this far below the stronger one, over 0.3 s, is never a second voice.
ALONE_DB = 20.0
# Outputs within this difference are level. If they are level for more than the first share of a
# short recording, parts that are level for the second share of 1.5 s are left as they are: the
# model may be unable to separate two voices.
LEVEL_DB, OFTEN_LEVEL, MOSTLY_LEVEL, LEVEL_SECONDS = 6.0, 0.5, 0.7, 1.5
# Frames this far below the loudest so far are pauses.
PAUSE_DB = 38.0
# The shortest pause that ends a segment, and the longest segment.
PAUSE_SECONDS, SEGMENT_SECONDS = 0.3, 3.0
# The other output becomes the stronger one when it exceeds it by this much.
STRONGER_DB = 3.0

_BLOCK_SECONDS, _MARGIN_SECONDS = 60, 2


@dataclasses.dataclass
class Segment:
    """A section of the recording.

    Attributes:
        start: in frames of 20 ms.
        end: in frames.
        two: whether two persons speak.
        stronger: the stronger output, if one person speaks.
        seconds: seconds of speech in it.
        pause: seconds without speech before it.
        level: seconds of its speech in which neither output is much stronger.
        vectors: embeddings of the mixture if one person speaks, and of both outputs if two do.
    """

    start: int
    end: int
    two: bool
    stronger: int
    seconds: float
    pause: float
    level: float
    vectors: np.ndarray


@functools.cache
def networks() -> speaker.Networks:
    """Loads the networks shipped with the package."""
    data = importlib.resources.files("export.conversations").joinpath(WEIGHTS_FILE).read_bytes()
    return speaker.Networks.load(io.BytesIO(data))


def cut(kept: spool.Spool, num_channels: int, rate: int) -> list[Segment]:
    """Returns all segments of a recording.

    Args:
        kept: the model's outputs, `[sample, 2 · channel]`.
        num_channels: their number of channels.
        rate: the model's rate.
    """
    segments: list[Segment] = []
    loudest, step = -np.inf, _BLOCK_SECONDS * rate
    for first in range(0, kept.num_samples, step):
        margin = _MARGIN_SECONDS * rate
        last = min(first + step, kept.num_samples)
        block = kept.read(first - margin, last + margin)
        outputs = np.stack([_reference(block.reshape(len(block), 2, -1)[:, i]) for i in (0, 1)])
        if rate != speaker.RATE:
            outputs = decoding.resample(np.ascontiguousarray(outputs.T), rate, speaker.RATE).T
        before = round(_MARGIN_SECONDS / FRAME_SECONDS)
        count = -(-(last - first) * speaker.RATE // (rate * speaker.HOP))
        mixture = speaker.features(outputs.sum(axis=0))
        both = speaker.levels(mixture)
        loudest = max(loudest, float(both.max()))
        if loudest < -60:
            continue
        voices = np.stack([speaker.features(output) for output in outputs])
        spoken = sum(segment.seconds for segment in segments)
        found = _segments(voices, mixture, loudest, spoken)
        offset = round(first / rate / FRAME_SECONDS) - before
        for segment in found:
            # Margins serve only as context for the block's own frames.
            segment.start = max(segment.start, before) + offset
            segment.end = min(segment.end, before + count) + offset
            if segment.start < segment.end:
                segments.append(segment)
    return segments


def _reference(channels: np.ndarray) -> np.ndarray:
    """Returns the mean of channels `[sample, channel]`, or the loudest if they cancel out."""
    mean = channels.mean(axis=1)
    powers = np.square(channels, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() < 0.05 * powers.mean():
        return channels[:, int(np.argmax(powers))]
    return mean


def _segments(
    outputs: np.ndarray, mixture: np.ndarray, loudest: float, before: float
) -> list[Segment]:
    """Returns the segments of a block.

    Args:
        outputs: features of the outputs, `[2, frame, feature]`.
        mixture: features of the mixture, `[frame, feature]`.
        loudest: level of the loudest frame so far, in dB.
        before: seconds of speech in earlier blocks.
    """
    from scipy import ndimage

    both = speaker.levels(mixture)
    speech = both >= loudest - PAUSE_DB
    if not speech.any():
        return []
    loud = both[both >= both.max() - speaker.SPEECH_RANGE_DB]
    level = max(float(loud.mean()), loudest - 20)
    powers = np.power(10, np.stack([speaker.levels(output) for output in outputs]) / 10)
    powers = ndimage.uniform_filter1d(powers, 15, axis=1) + 1e-12
    ratio = 10 * np.log10(powers[0] / powers[1])
    chance = networks().overlap(speaker.overlap_inputs(outputs[0], outputs[1], level))
    chance = ndimage.uniform_filter1d(chance, 7)
    chance[np.abs(ratio) > ALONE_DB] = 0
    chance, share = _adapted(chance, speech)
    short = before + FRAME_SECONDS * int(speech.sum()) < SHORT_SECONDS
    if share > (SHORT_OFTEN_TWO if short else OFTEN_TWO):
        chance[np.abs(ratio) < SURE_DB] = 1
    near = np.abs(ratio) < LEVEL_DB
    if short and near[speech].mean() > OFTEN_LEVEL:
        near = ndimage.uniform_filter1d(near.astype(float), round(LEVEL_SECONDS / FRAME_SECONDS))
        chance[near > MOSTLY_LEVEL] = 1
    two = _steady(_hysteresis(chance, TWO_FROM, TWO_UNTIL), MIN_ONE_SECONDS, MIN_TWO_SECONDS)
    stronger = ~_hysteresis(ratio, STRONGER_DB, -STRONGER_DB)
    stronger = _steady(stronger, MIN_ONE_SECONDS, MIN_ONE_SECONDS)
    # A state extends through the pause that follows it.
    state = np.where(two, 2, stronger.astype(int))
    heard = np.flatnonzero(speech)
    state = state[heard[np.maximum(np.searchsorted(heard, np.arange(len(state)), "right") - 1, 0)]]
    gaps = np.diff(heard)
    pauses = np.flatnonzero(gaps > PAUSE_SECONDS / FRAME_SECONDS)
    edges = {0, len(state), *(heard[pauses + 1] - 1), *(np.flatnonzero(np.diff(state)) + 1)}
    bounds = _shortened(sorted(edges), both)
    segments: list[Segment] = []
    end_of_speech = 0.0
    for start, end in itertools.pairwise(bounds):
        own = np.flatnonzero(speech[start:end])
        if not len(own):
            continue
        kind = int(np.median(state[start:end][own]))
        vectors = [outputs[0], outputs[1]] if kind == 2 else [mixture]
        near_level = np.abs(ratio[start:end][own]) < LEVEL_DB
        segments.append(
            Segment(
                start=int(start) if segments else 0,
                end=int(end),
                two=kind == 2,
                stronger=kind % 2,
                seconds=len(own) * FRAME_SECONDS,
                pause=max(0.0, float(start + own[0] - end_of_speech) * FRAME_SECONDS),
                level=float(near_level.sum()) * FRAME_SECONDS,
                vectors=np.stack([networks().embed(part[start:end]) for part in vectors]),
            )
        )
        end_of_speech = float(start + own[-1] + 1)
    return segments


def _adapted(chance: np.ndarray, speech: np.ndarray) -> tuple[np.ndarray, float]:
    """Adapts probabilities to how often two persons speak at once in this recording.

    The share of time is estimated from the probabilities themselves (Saerens et al. 2002).

    Returns:
        The adapted probabilities and the share of time in which two speak.
    """
    share, found = LEARNT_SHARE, chance
    for _ in range(20):
        two = chance * share / LEARNT_SHARE
        found = two / (two + (1 - chance) * (1 - share) / (1 - LEARNT_SHARE))
        heard = FRAME_SECONDS * float(found[speech].sum()) + EXPECTED_SECONDS * EXPECTED_SHARE
        share = heard / (FRAME_SECONDS * int(speech.sum()) + EXPECTED_SECONDS)
    return found, share


def _hysteresis(values: np.ndarray, high: float, low: float) -> np.ndarray:
    """Returns true from where values exceed `high` until they fall below `low`, bool `[frame]`."""
    marks = np.where(values > high, 1, np.where(values < low, -1, 0))
    place = np.maximum.accumulate(np.where(marks != 0, np.arange(len(marks)), 0))
    return marks[place] > 0


def _steady(values: np.ndarray, false_seconds: float, true_seconds: float) -> np.ndarray:
    """Removes runs that are shorter than the given durations."""
    from scipy import ndimage

    size = max(1, round(true_seconds / FRAME_SECONDS))
    values = ndimage.binary_opening(np.pad(values, size, "edge"), np.ones(size))[size:-size]
    size = max(1, round(false_seconds / FRAME_SECONDS))
    return ndimage.binary_closing(np.pad(values, size, "edge"), np.ones(size))[size:-size]


def _shortened(bounds: Sequence[int], level: np.ndarray) -> list[int]:
    """Adds bounds at the quietest frames, so that no segment exceeds `SEGMENT_SECONDS`."""
    most = round(SEGMENT_SECONDS / FRAME_SECONDS)
    out = [bounds[0]]
    for bound in bounds[1:]:
        while bound - out[-1] > most:
            first = out[-1] + most // 2
            out.append(first + int(np.argmin(level[first : out[-1] + most])))
        out.append(bound)
    return out
