"""Who is who over a whole recording, and where one person speaks alone.

The model's two outputs are cut into segments: stretches in which one person speaks, or two, without
a long pause. Of each segment an embedding says whose voice it is (`models.speaker`). The segments
of the whole recording are clustered into two persons, and the most likely sequence of states is
found, in which both counts: how alike voices are, and that a model seldom exchanges its outputs
within a stretch of speech (Viterbi 1967). What is kept of a recording is 12 bytes for each 20 ms,
and an embedding or two for each segment.
"""

import dataclasses
import functools
import importlib.resources
import io
import itertools
from collections.abc import Sequence

import numpy as np

from export.conversations import routing
from export.separation import spool
from models import speaker
from pipeline.audio import decoding

WEIGHTS_FILE = "speakers.npz"

_FRAME = speaker.HOP / speaker.RATE
# Two voices, from this probability on, and down to that; and how long one or two last at least.
TWO_FROM, TWO_UNTIL = 0.2, 0.1
MIN_TWO_SECONDS, MIN_ONE_SECONDS = 0.24, 0.6
# The share of time in which two spoke where the network learnt; and what it is thought to be where
# it judges before anything is heard, as if from so many seconds.
LEARNT_SHARE, EXPECTED_SHARE, EXPECTED_SECONDS = 0.2, 0.5, 10.0
# Where two speak for more of the time than that, one speaks only if an output is so much stronger.
# The first share is for less than so many seconds of speech, which are too few to know.
SHORT_OFTEN_TWO, OFTEN_TWO, SHORT_SECONDS, SURE_DB = 0.27, 0.5, 15.0, 10.0
# The weaker output so far below the stronger, over 0.3 s, is no second voice, whatever else.
ALONE_DB = 20.0
# Outputs that are closer than that are level. Where they are for most of a short recording, what is
# so for most of 1.5 s is left as it is: two may speak whom the model cannot tell apart.
LEVEL_DB, MOSTLY_LEVEL, LEVEL_SECONDS = 6.0, 0.7, 1.5
# What is so far below the loudest frames so far is a pause.
PAUSE_DB = 38.0
# A pause that ends a segment; and the longest segment.
PAUSE_SECONDS, SEGMENT_SECONDS = 0.3, 3.0
# Which output is the stronger changes when the other is so much above it.
STRONGER_DB = 3.0

# What a second of speech counts, against the 2 s that points are scaled for, and up to how many
# seconds; of two voices at once each has something of the other and counts less.
_PER_SECOND, _MOST_SECONDS, _OF_TWO = 0.7, 3.0, 0.4
# A segment says no more than that, in nats.
_MOST_NATS = 8.0
# Against an exchange of outputs, in nats: where two speak; where one does; and after a pause of so
# many seconds.
_EXCHANGE_OF_TWO = 6.0
_EXCHANGE, _EXCHANGE_AFTER, _FORGOTTEN_SECONDS = 1.0, 0.3, 2.0
# Against another person's turn, without a pause before it and with one.
_TURN, _TURN_AFTER = 0.7, 0.35
# There are two persons where that is more likely by so many nats, and so many more for each segment
# of the one who speaks less: a cut through one person's segments, made to fit, finds that much. Or
# where both speak at once for so much of the time, or the outputs are level for so much of it.
TWO_PERSONS, TWO_PERSONS_BY_SEGMENT = 8.0, 0.8
FEW_TWO, FEW_LEVEL = 0.14, 0.5
_SEEDS = 8

_BLOCK_SECONDS, _MARGIN_SECONDS = 60, 2


@dataclasses.dataclass
class Segment:
    """A stretch of the recording.

    Attributes:
        start: in frames of 20 ms.
        end: in frames.
        two: two persons speak.
        stronger: the output that is, where one speaks.
        seconds: of speech in it.
        pause: seconds of none before it.
        level: seconds of that in which neither output is much stronger.
        vectors: embeddings: of the mixture where one speaks, of both outputs where two do.
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
    """The networks that come with the package."""
    data = importlib.resources.files("export.conversations").joinpath(WEIGHTS_FILE).read_bytes()
    return speaker.Networks.load(io.BytesIO(data))


def find(
    kept: spool.Spool, num_channels: int, rate: int, *, gate: bool, track: bool
) -> routing.Routing:
    """Which output goes to which person's file, over the whole recording.

    Args:
        kept: the model's outputs, `[sample, 2 · channel]`.
        num_channels: of them.
        rate: the model's.
        gate: give a person who speaks alone all of the recording.
        track: exchange outputs where another voice than before is in them.
    """
    segments = cut(kept, num_channels, rate)
    if not segments:
        return routing.Routing.constant()
    states, one = decode(segments, track)
    if one and gate:
        return routing.Routing.constant(routing.ALL_TO_FIRST)
    starts, rows = [], []
    for segment, exchanged in zip(segments, states, strict=True):
        if segment.two or not gate:
            row = routing.SWAPPED if exchanged else routing.STRAIGHT
        else:
            first = (segment.stronger == 0) != bool(exchanged)
            row = routing.ALL_TO_FIRST if first else routing.ALL_TO_SECOND
        starts.append(segment.start * _FRAME)
        rows.append(row)
    starts[0] = 0.0
    return routing.Routing(np.array(starts), np.array(rows))


def cut(kept: spool.Spool, num_channels: int, rate: int) -> list[Segment]:
    """All segments of a recording; see `find` for the arguments."""
    segments: list[Segment] = []
    loudest, step = -np.inf, _BLOCK_SECONDS * rate
    silence = 0.0
    for first in range(0, kept.num_samples, step):
        margin = _MARGIN_SECONDS * rate
        last = min(first + step, kept.num_samples)
        block = kept.read(first - margin, last + margin)
        outputs = np.stack([_reference(block.reshape(len(block), 2, -1)[:, i]) for i in (0, 1)])
        if rate != speaker.RATE:
            outputs = decoding.resample(np.ascontiguousarray(outputs.T), rate, speaker.RATE).T
        before = round(_MARGIN_SECONDS / _FRAME)
        count = -(-(last - first) * speaker.RATE // (rate * speaker.HOP))
        mixture = speaker.features(outputs.sum(axis=0))
        both = speaker.levels(mixture)
        loudest = max(loudest, float(both.max()))
        if loudest < -60:
            silence += count * _FRAME
            continue
        found = _segments(
            np.stack([speaker.features(output) for output in outputs]), mixture, loudest, silence
        )
        offset = round(first / rate / _FRAME) - before
        for segment in found:
            # Of the margins nothing counts but what they tell of the block's own frames.
            segment.start = max(segment.start, before) + offset
            segment.end = min(segment.end, before + count) + offset
            if segment.start < segment.end:
                segments.append(segment)
        silence = 0.0
    return segments


def _reference(channels: np.ndarray) -> np.ndarray:
    """The mean of channels `[sample, channel]`, or the loudest where they cancel out in it."""
    mean = channels.mean(axis=1)
    powers = np.square(channels, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() < 0.05 * powers.mean():
        return channels[:, int(np.argmax(powers))]
    return mean


def _segments(
    outputs: np.ndarray, mixture: np.ndarray, loudest: float, silence: float
) -> list[Segment]:
    """The segments of a block.

    Args:
        outputs: features of each, `[2, frame, feature]`.
        mixture: features, `[frame, feature]`.
        loudest: frame's level so far, in dB.
        silence: seconds before the block in which nothing was heard.
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
    short = _FRAME * int(speech.sum()) < SHORT_SECONDS
    if share > (SHORT_OFTEN_TWO if short else OFTEN_TWO):
        chance[np.abs(ratio) < SURE_DB] = 1
    near = np.abs(ratio) < LEVEL_DB
    if short and near[speech].mean() > FEW_LEVEL:
        near = ndimage.uniform_filter1d(near.astype(float), round(LEVEL_SECONDS / _FRAME))
        chance[near > MOSTLY_LEVEL] = 1
    two = _steady(_hysteresis(chance, TWO_FROM, TWO_UNTIL), MIN_ONE_SECONDS, MIN_TWO_SECONDS)
    stronger = ~_hysteresis(ratio, STRONGER_DB, -STRONGER_DB)
    stronger = _steady(stronger, MIN_ONE_SECONDS, MIN_ONE_SECONDS)
    # A state holds through the pause that follows it.
    state = np.where(two, 2, stronger.astype(int))
    heard = np.flatnonzero(speech)
    state = state[heard[np.maximum(np.searchsorted(heard, np.arange(len(state)), "right") - 1, 0)]]
    gaps = np.diff(heard)
    pauses = np.flatnonzero(gaps > PAUSE_SECONDS / _FRAME)
    edges = {0, len(state), *(heard[pauses + 1] - 1), *(np.flatnonzero(np.diff(state)) + 1)}
    bounds = _shortened(sorted(edges), both)
    segments: list[Segment] = []
    end_of_speech = -silence / _FRAME
    for start, end in itertools.pairwise(bounds):
        own = np.flatnonzero(speech[start:end])
        if not len(own):
            continue
        kind = int(np.median(state[start:end][own]))
        vectors = [outputs[0], outputs[1]] if kind == 2 else [mixture]
        segments.append(
            Segment(
                int(start) if segments else 0, int(end), kind == 2, kind % 2, len(own) * _FRAME,
                max(0.0, float(start + own[0] - end_of_speech) * _FRAME),
                float((np.abs(ratio[start:end][own]) < LEVEL_DB).sum()) * _FRAME,
                np.stack([networks().embed(part[start:end]) for part in vectors]),
            )
        )  # fmt: skip
        end_of_speech = float(start + own[-1] + 1)
    return segments


def _adapted(chance: np.ndarray, speech: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities for a recording in which two speak more or less often than in training.

    And the share of time in which they do.

    How often they do is estimated from the probabilities themselves (Saerens et al. 2002).
    """
    share, found = LEARNT_SHARE, chance
    for _ in range(20):
        two = chance * share / LEARNT_SHARE
        found = two / (two + (1 - chance) * (1 - share) / (1 - LEARNT_SHARE))
        heard = _FRAME * float(found[speech].sum()) + EXPECTED_SECONDS * EXPECTED_SHARE
        share = heard / (_FRAME * int(speech.sum()) + EXPECTED_SECONDS)
    return found, share


def _hysteresis(values: np.ndarray, high: float, low: float) -> np.ndarray:
    """True from where `high` is passed until `low` is, bool `[frame]`."""
    marks = np.where(values > high, 1, np.where(values < low, -1, 0))
    place = np.maximum.accumulate(np.where(marks != 0, np.arange(len(marks)), 0))
    return marks[place] > 0


def _steady(values: np.ndarray, false_seconds: float, true_seconds: float) -> np.ndarray:
    """Without runs that are shorter than that."""
    from scipy import ndimage

    size = max(1, round(true_seconds / _FRAME))
    values = ndimage.binary_opening(np.pad(values, size, "edge"), np.ones(size))[size:-size]
    size = max(1, round(false_seconds / _FRAME))
    return ndimage.binary_closing(np.pad(values, size, "edge"), np.ones(size))[size:-size]


def _shortened(bounds: Sequence[int], level: np.ndarray) -> list[int]:
    """Bounds between which there are at most `SEGMENT_SECONDS`; cut where it is quietest."""
    most = round(SEGMENT_SECONDS / _FRAME)
    out = [bounds[0]]
    for bound in bounds[1:]:
        while bound - out[-1] > most:
            first = out[-1] + most // 2
            out.append(first + int(np.argmin(level[first : out[-1] + most])))
        out.append(bound)
    return out


def decode(segments: Sequence[Segment], track: bool) -> tuple[np.ndarray, bool]:
    """The most likely persons of all segments.

    Args:
        segments: in order.
        track: whether outputs may be exchanged at all.

    Returns:
        Whether the outputs are exchanged in each segment, bool `[segment]`, and whether one person
        speaks in all of the recording.
    """
    paths = _Paths(segments)
    straight = np.zeros(len(segments), bool)
    best, best_gain = straight, paths.gain(straight)
    for beginning in _beginnings(segments) if track else ():
        states = beginning
        for _ in range(10):
            moved = paths.best(paths.evidence(paths.centres(states)))
            if (moved == states).all():
                break
            states = moved
        gain = paths.gain(states)
        if gain > best_gain:
            best, best_gain = states, gain
    seconds = np.array([s.seconds for s in segments])
    two = np.array([s.two for s in segments])
    alone = np.flatnonzero(~two)
    persons = np.array([paths.person(k, best) for k in alone], int)
    fewer = int(np.bincount(persons, minlength=2).min())
    needed = TWO_PERSONS + TWO_PERSONS_BY_SEGMENT * fewer
    few = seconds[two].sum() < FEW_TWO * seconds.sum()
    few &= sum(s.level for s in segments) < FEW_LEVEL * seconds.sum()
    one = few and best_gain < needed
    # Who speaks first alone has the first file.
    if track and len(persons) and persons[0] == 1:
        best = ~best
    return best, bool(one)


def _beginnings(segments: Sequence[Segment]) -> list[np.ndarray]:
    """States to begin with: as the outputs are, and clusters about segments that are far apart."""
    beginnings = [np.zeros(len(segments), bool)]
    alone = [k for k, s in enumerate(segments) if not s.two]
    longest = sorted(alone, key=lambda k: -segments[k].seconds)[:_SEEDS]
    for one in longest:
        points = np.stack([segments[k].vectors[0] for k in longest])
        far = longest[int(np.square(points - segments[one].vectors[0]).sum(axis=1).argmax())]
        states = np.zeros(len(segments), bool)
        for k in alone:
            apart = [
                np.square(segments[k].vectors[0] - segments[seed].vectors[0]).sum()
                for seed in (one, far)
            ]
            states[k] = (apart[1] < apart[0]) != (segments[k].stronger == 1)
        beginnings.append(states)
    return beginnings


class _Paths:
    """Sequences of states of one recording's segments, and how likely they are."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self._two = np.array([s.two for s in segments])
        self._stronger = np.array([s.stronger for s in segments])
        seconds = np.array([min(s.seconds, _MOST_SECONDS) for s in segments])
        self._weights = np.where(self._two, _OF_TWO, 1.0) * _PER_SECOND * seconds
        # Of both outputs, or twice the mixture.
        self._points = np.stack([s.vectors[[0, -1]] for s in segments])
        pauses = np.array([s.pause for s in segments])
        rest = np.clip(pauses / _FORGOTTEN_SECONDS, 0, 1)
        two = self._two | np.roll(self._two, 1)
        within = np.where(two, _EXCHANGE_OF_TWO, _EXCHANGE)
        self._exchange = within * (1 - rest) + _EXCHANGE_AFTER * rest
        self._turn = np.where(pauses > PAUSE_SECONDS, _TURN_AFTER, _TURN)

    def person(self, segment: int, states: np.ndarray) -> int:
        """Who speaks where one does."""
        return int(self._stronger[segment] ^ int(states[segment]))

    def centres(self, states: np.ndarray) -> np.ndarray:
        """The persons' mean points, `[2, dimension]`."""
        return self._sums(states)[1]

    def _sums(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The weight of each person, and the mean points."""
        weights, totals = np.full(2, 1e-9), np.zeros((2, self._points.shape[2]))
        persons = self._stronger ^ states
        for person in (0, 1):
            alone = ~self._two & (persons == person)
            weights[person] += self._weights[alone].sum()
            totals[person] += self._weights[alone] @ self._points[alone, 0]
            for output in (0, 1):
                own = self._two & ((output ^ states) == person)
                weights[person] += self._weights[own].sum()
                totals[person] += self._weights[own] @ self._points[own, output]
        return weights, totals / weights[:, np.newaxis]

    def evidence(self, centres: np.ndarray) -> np.ndarray:
        """How much better each segment fits as it is than exchanged, in nats, `[segment]`."""
        apart = np.square(self._points[:, :, np.newaxis] - centres).sum(axis=3) / 2
        difference = apart[:, :, 1] - apart[:, :, 0]  # For the first person, by output.
        both = (difference[:, 0] - difference[:, 1]) / 2
        alone = np.where(self._stronger == 0, difference[:, 0], -difference[:, 0])
        found = self._weights * np.where(self._two, both, alone)
        return np.clip(found, -_MOST_NATS, _MOST_NATS)

    def _costs(self, k: int) -> np.ndarray:
        """Of going from one state to another between segments k − 1 and k, `[before, after]`."""
        costs = self._exchange[k] * (1 - np.eye(2))
        if not (self._two[k] or self._two[k - 1]):
            persons = self._stronger[[k - 1, k], np.newaxis] ^ np.arange(2)
            costs = costs + self._turn[k] * (persons[0][:, np.newaxis] != persons[1])
        return costs

    def best(self, evidence: np.ndarray) -> np.ndarray:
        """The best sequence of states, bool `[segment]`."""
        score = np.array([evidence[0], -evidence[0]]) / 2
        back = np.zeros((len(evidence), 2), int)
        for k in range(1, len(evidence)):
            options = score[:, np.newaxis] - self._costs(k)
            back[k] = options.argmax(axis=0)
            score = options.max(axis=0) + np.array([evidence[k], -evidence[k]]) / 2
        states = np.zeros(len(evidence), bool)
        states[-1] = score[1] > score[0]
        for k in range(len(evidence) - 1, 0, -1):
            states[k - 1] = back[k, int(states[k])]
        return states

    def gain(self, states: np.ndarray) -> float:
        """How much more likely these two persons are than one, in nats.

        Where the persons' points lie is not known beforehand, but how far two persons' do: their
        difference is normally distributed, with twice the variance of a person's point.
        """
        weights, centres = self._sums(states)
        noise = (1 / weights).sum()
        total = noise + 2 * networks().spread
        difference = np.square(centres[0] - centres[1])
        gain = (np.log(noise / total) + difference * (1 / noise - 1 / total)).sum() / 2
        path = states.astype(int)
        costs = sum(self._costs(k)[path[k - 1], path[k]] for k in range(1, len(path)))
        return float(gain - costs)
