"""Tracks two persons over a whole recording.

The segments of the recording (`segmentation`) are clustered into two persons by the embeddings of
their voices. The most likely sequence of states (Viterbi 1967) takes into account both the
similarity of the voices and that a model rarely exchanges its outputs within continuous speech. The
memory needed is one or two embeddings per segment.
"""

from collections.abc import Sequence

import numpy as np

from export.conversations import routing, segmentation
from export.separation import spool

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
# are also two if both speak at once for this share of the time, or if the outputs are often level.
TWO_PERSONS, TWO_PERSONS_BY_SEGMENT = 8.0, 0.8
FEW_TWO = 0.14
_SEEDS = 8


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
    segments = segmentation.cut(kept, num_channels, rate)
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
        starts.append(segment.start * segmentation.FRAME_SECONDS)
        rows.append(row)
    starts[0] = 0.0
    return routing.Routing(np.array(starts), np.array(rows))


def decode(segments: Sequence[segmentation.Segment], track: bool) -> tuple[np.ndarray, bool]:
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
    few &= sum(s.level for s in segments) < segmentation.OFTEN_LEVEL * seconds.sum()
    one = few and best_gain < needed
    # The person who first speaks alone gets the first file.
    if track and len(persons) and persons[0] == 1:
        best = ~best
    return best, bool(one)


def _beginnings(segments: Sequence[segmentation.Segment]) -> list[np.ndarray]:
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

    def __init__(self, segments: Sequence[segmentation.Segment]) -> None:
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
        self._turn = np.where(pauses > segmentation.PAUSE_SECONDS, _TURN_AFTER, _TURN)

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
        total = noise + 2 * segmentation.networks().spread
        difference = np.square(centres[0] - centres[1])
        gain = (np.log(noise / total) + difference * (1 / noise - 1 / total)).sum() / 2
        path = states.astype(int)
        costs = sum(self._costs(k)[path[k - 1], path[k]] for k in range(1, len(path)))
        return float(gain - costs)
