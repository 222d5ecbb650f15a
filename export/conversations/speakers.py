"""Tracks two persons over a whole recording, and finds where one speaks alone.

The model's two outputs are cut into segments in which one person speaks, or two, without a long
pause. An embedding of each segment identifies the voice (`models.speaker`). The segments of the
whole recording are clustered into two persons. The most likely sequence of states (Viterbi 1967)
takes into account both the similarity of the voices and that a model rarely exchanges its outputs
within continuous speech. The memory needed is one or two embeddings per segment.
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
# Outputs within this difference are level. If they are level for most of a short recording, parts
# that are level for most of 1.5 s are left as they are: the model may be unable to separate two
# voices.
LEVEL_DB, MOSTLY_LEVEL, LEVEL_SECONDS = 6.0, 0.7, 1.5
# Frames this far below the loudest so far are pauses.
PAUSE_DB = 38.0
# The shortest pause that ends a segment, and the longest segment.
PAUSE_SECONDS, SEGMENT_SECONDS = 0.3, 3.0
# The other output becomes the stronger one when it exceeds it by this much.
STRONGER_DB = 3.0

# Weight of a second of speech, relative to the 2 s for which points are scaled, and the maximum
# number of seconds; with two voices at once, each contains some of the other and counts less.
_PER_SECOND, _MOST_SECONDS, _OF_TWO = 0.7, 3.0, 0.4
# Maximum evidence of a segment, in nats.
_MOST_NATS = 8.0
# Cost of an exchange of outputs, in nats: while two speak; while one does; and after a pause of
# this many seconds.
_EXCHANGE_OF_TWO = 6.0
_EXCHANGE, _EXCHANGE_AFTER, _FORGOTTEN_SECONDS = 1.0, 0.3, 2.0
# Cost of a change of speaker, without a pause before it and with one.
_TURN, _TURN_AFTER = 0.7, 0.35
# There are two persons if that is more likely by this many nats, plus some for each segment of the
# person with fewer segments, because the best split of one person's segments gains that much. There
# are also two if both speak at once, or the outputs are level, for the given shares of the time.
TWO_PERSONS, TWO_PERSONS_BY_SEGMENT = 8.0, 0.8
FEW_TWO, FEW_LEVEL = 0.14, 0.5
_SEEDS = 8

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


def find(
    kept: spool.Spool, num_channels: int, rate: int, *, gate: bool, track: bool
) -> routing.Routing:
    """Finds which output goes to which person's file, over the whole recording.

    Args:
        kept: the model's outputs, `[sample, 2 · channel]`.
        num_channels: their number of channels.
        rate: the model's rate.
        gate: give the whole recording to a person who speaks alone.
        track: exchange outputs where the voices in them have changed.
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
    """Returns all segments of a recording; see `find` for the arguments."""
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
            # Margins serve only as context for the block's own frames.
            segment.start = max(segment.start, before) + offset
            segment.end = min(segment.end, before + count) + offset
            if segment.start < segment.end:
                segments.append(segment)
        silence = 0.0
    return segments


def _reference(channels: np.ndarray) -> np.ndarray:
    """Returns the mean of channels `[sample, channel]`, or the loudest if they cancel out."""
    mean = channels.mean(axis=1)
    powers = np.square(channels, dtype=np.float64).mean(axis=0)
    if np.square(mean, dtype=np.float64).mean() < 0.05 * powers.mean():
        return channels[:, int(np.argmax(powers))]
    return mean


def _segments(
    outputs: np.ndarray, mixture: np.ndarray, loudest: float, silence: float
) -> list[Segment]:
    """Returns the segments of a block.

    Args:
        outputs: features of the outputs, `[2, frame, feature]`.
        mixture: features of the mixture, `[frame, feature]`.
        loudest: level of the loudest frame so far, in dB.
        silence: seconds of silence before the block.
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
    # A state extends through the pause that follows it.
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
    """Adapts probabilities to how often two persons speak at once in this recording.

    The share of time is estimated from the probabilities themselves (Saerens et al. 2002).

    Returns:
        The adapted probabilities and the share of time in which two speak.
    """
    share, found = LEARNT_SHARE, chance
    for _ in range(20):
        two = chance * share / LEARNT_SHARE
        found = two / (two + (1 - chance) * (1 - share) / (1 - LEARNT_SHARE))
        heard = _FRAME * float(found[speech].sum()) + EXPECTED_SECONDS * EXPECTED_SHARE
        share = heard / (_FRAME * int(speech.sum()) + EXPECTED_SECONDS)
    return found, share


def _hysteresis(values: np.ndarray, high: float, low: float) -> np.ndarray:
    """Returns true from where values exceed `high` until they fall below `low`, bool `[frame]`."""
    marks = np.where(values > high, 1, np.where(values < low, -1, 0))
    place = np.maximum.accumulate(np.where(marks != 0, np.arange(len(marks)), 0))
    return marks[place] > 0


def _steady(values: np.ndarray, false_seconds: float, true_seconds: float) -> np.ndarray:
    """Removes runs that are shorter than the given durations."""
    from scipy import ndimage

    size = max(1, round(true_seconds / _FRAME))
    values = ndimage.binary_opening(np.pad(values, size, "edge"), np.ones(size))[size:-size]
    size = max(1, round(false_seconds / _FRAME))
    return ndimage.binary_closing(np.pad(values, size, "edge"), np.ones(size))[size:-size]


def _shortened(bounds: Sequence[int], level: np.ndarray) -> list[int]:
    """Adds bounds at the quietest frames, so that no segment exceeds `SEGMENT_SECONDS`."""
    most = round(SEGMENT_SECONDS / _FRAME)
    out = [bounds[0]]
    for bound in bounds[1:]:
        while bound - out[-1] > most:
            first = out[-1] + most // 2
            out.append(first + int(np.argmin(level[first : out[-1] + most])))
        out.append(bound)
    return out


def decode(segments: Sequence[Segment], track: bool) -> tuple[np.ndarray, bool]:
    """Finds the most likely persons of all segments.

    Args:
        segments: the segments in order.
        track: whether outputs may be exchanged at all.

    Returns:
        Whether the outputs are exchanged in each segment, bool `[segment]`, and whether only one
        person speaks in the whole recording.
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
    # The person who first speaks alone gets the first file.
    if track and len(persons) and persons[0] == 1:
        best = ~best
    return best, bool(one)


def _beginnings(segments: Sequence[Segment]) -> list[np.ndarray]:
    """Returns initial states: no exchange, and clusters around segments that are far apart."""
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
        # Points of both outputs, or twice that of the mixture.
        self._points = np.stack([s.vectors[[0, -1]] for s in segments])
        pauses = np.array([s.pause for s in segments])
        rest = np.clip(pauses / _FORGOTTEN_SECONDS, 0, 1)
        two = self._two | np.roll(self._two, 1)
        within = np.where(two, _EXCHANGE_OF_TWO, _EXCHANGE)
        self._exchange = within * (1 - rest) + _EXCHANGE_AFTER * rest
        self._turn = np.where(pauses > PAUSE_SECONDS, _TURN_AFTER, _TURN)

    def person(self, segment: int, states: np.ndarray) -> int:
        """Returns the person who speaks in a segment with one speaker."""
        return int(self._stronger[segment] ^ int(states[segment]))

    def centres(self, states: np.ndarray) -> np.ndarray:
        """Computes the persons' mean points, `[2, dimension]`."""
        return self._sums(states)[1]

    def _sums(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Computes each person's weight and mean point."""
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
        """Computes how much better each segment fits unexchanged, in nats, `[segment]`."""
        apart = np.square(self._points[:, :, np.newaxis] - centres).sum(axis=3) / 2
        difference = apart[:, :, 1] - apart[:, :, 0]  # For the first person, by output.
        both = (difference[:, 0] - difference[:, 1]) / 2
        alone = np.where(self._stronger == 0, difference[:, 0], -difference[:, 0])
        found = self._weights * np.where(self._two, both, alone)
        return np.clip(found, -_MOST_NATS, _MOST_NATS)

    def _costs(self, k: int) -> np.ndarray:
        """Returns the transition costs between segments k − 1 and k, `[before, after]`."""
        costs = self._exchange[k] * (1 - np.eye(2))
        if not (self._two[k] or self._two[k - 1]):
            persons = self._stronger[[k - 1, k], np.newaxis] ^ np.arange(2)
            costs = costs + self._turn[k] * (persons[0][:, np.newaxis] != persons[1])
        return costs

    def best(self, evidence: np.ndarray) -> np.ndarray:
        """Finds the best sequence of states, bool `[segment]`."""
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
        """Computes how much more likely these two persons are than one, in nats.

        The positions of the persons' points are not known in advance, but the distribution of their
        difference is: normal, with twice the variance of a person's point.
        """
        weights, centres = self._sums(states)
        noise = (1 / weights).sum()
        total = noise + 2 * networks().spread
        difference = np.square(centres[0] - centres[1])
        gain = (np.log(noise / total) + difference * (1 / noise - 1 / total)).sum() / 2
        path = states.astype(int)
        costs = sum(self._costs(k)[path[k - 1], path[k]] for k in range(1, len(path)))
        return float(gain - costs)
