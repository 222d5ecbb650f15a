"""Which of a model's two outputs goes to which file, and when.

At each time all of an output goes to one file or to the other, so that the files add up to what the
outputs add up to. Between two states is a short cross-fade.
"""

import dataclasses

import numpy as np

FADE_SECONDS = 0.02

# What the first file gets of the two outputs; the second gets the rest.
STRAIGHT = (1.0, 0.0)
SWAPPED = (0.0, 1.0)
ALL_TO_FIRST = (1.0, 1.0)
ALL_TO_SECOND = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Routing:
    """States over time.

    Attributes:
        starts: seconds from which each state holds, ascending; the first is 0.
        states: float `[state, output]`, rows as above.
    """

    starts: np.ndarray
    states: np.ndarray

    @classmethod
    def constant(cls, state: tuple[float, float] = STRAIGHT) -> "Routing":
        """One state from beginning to end."""
        return cls(np.zeros(1), np.array([state]))

    def weights(self, first: int, last: int, rate: float) -> np.ndarray:
        """What the first file gets of each output, float32 `[output, sample]`, or `[output, 1]`.

        Args:
            first: sample from which on.
            last: sample before which it ends.
            rate: of the samples, in Hz.
        """
        half = FADE_SECONDS / 2
        low = max(0, int(np.searchsorted(self.starts, first / rate - half, "right")) - 1)
        high = int(np.searchsorted(self.starts, last / rate + half, "right"))
        starts, states = self.starts[low:high], self.states[low:high]
        if (states == states[0]).all():
            return states[0].astype(np.float32)[:, np.newaxis]
        changes = np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1
        # Fades of states that follow each other closely must not cross.
        edge = np.concatenate([[-np.inf], starts[changes], [np.inf]])
        reach = np.minimum(half, np.minimum(np.diff(edge)[:-1], np.diff(edge)[1:]) / 2)
        knots = np.stack([starts[changes] - reach, starts[changes] + reach], axis=1).ravel()
        values = np.stack([states[changes - 1], states[changes]], axis=1).reshape(-1, 2)
        times = np.arange(first, last) / rate
        return np.stack([np.interp(times, knots, column) for column in values.T]).astype(np.float32)

    def route(self, voices: np.ndarray, first: int, rate: float) -> np.ndarray:
        """The files' voices from the model's outputs.

        Args:
            voices: `[2, sample, channel]`; its first sample is number `first`.
            first: see above.
            rate: in Hz.
        """
        weights = self.weights(first, first + voices.shape[1], rate)[..., np.newaxis]
        if weights.shape[1] == 1 and (weights[:, 0, 0] == STRAIGHT).all():
            return voices
        ahead = (weights * voices).sum(axis=0)
        behind = ((1 - weights) * voices).sum(axis=0)
        return np.stack([ahead, behind])
