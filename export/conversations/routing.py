"""Routes a model's two outputs to the two files over time.

At any time each output goes entirely to one of the files, so the files have the same sum as the
outputs. States are joined by a short cross-fade.
"""

import dataclasses

import numpy as np

FADE_SECONDS = 0.02

# The first file's weights of the two outputs; the second file gets the rest.
STRAIGHT = (1.0, 0.0)
SWAPPED = (0.0, 1.0)
ALL_TO_FIRST = (1.0, 1.0)
ALL_TO_SECOND = (0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Routing:
    """States over time.

    Attributes:
        starts: start of each state in seconds, ascending; the first is 0.
        states: float `[state, output]`; each row is one of the states above.
    """

    starts: np.ndarray
    states: np.ndarray

    @classmethod
    def constant(cls, state: tuple[float, float] = STRAIGHT) -> "Routing":
        """Creates a routing with a single state."""
        return cls(np.zeros(1), np.array([state]))

    def weights(self, first: int, last: int, rate: float) -> np.ndarray:
        """Computes the first file's weights, float32 `[output, sample]`, or `[output, 1]`.

        Args:
            first: the first sample.
            last: the sample after the last.
            rate: the samples' rate in Hz.
        """
        half = FADE_SECONDS / 2
        low = max(0, int(np.searchsorted(self.starts, first / rate - half, "right")) - 1)
        high = int(np.searchsorted(self.starts, last / rate + half, "right"))
        starts, states = self.starts[low:high], self.states[low:high]
        if (states == states[0]).all():
            return states[0].astype(np.float32)[:, np.newaxis]
        changes = np.flatnonzero((states[1:] != states[:-1]).any(axis=1)) + 1
        # Fades of states in quick succession must not overlap.
        edge = np.concatenate([[-np.inf], starts[changes], [np.inf]])
        reach = np.minimum(half, np.minimum(np.diff(edge)[:-1], np.diff(edge)[1:]) / 2)
        knots = np.stack([starts[changes] - reach, starts[changes] + reach], axis=1).ravel()
        values = np.stack([states[changes - 1], states[changes]], axis=1).reshape(-1, 2)
        times = np.arange(first, last) / rate
        return np.stack([np.interp(times, knots, column) for column in values.T]).astype(np.float32)

    def route(self, voices: np.ndarray, first: int, rate: float) -> np.ndarray:
        """Computes the files' voices from the model's outputs.

        Args:
            voices: `[2, sample, channel]`.
            first: index of their first sample in the recording.
            rate: in Hz.
        """
        weights = self.weights(first, first + voices.shape[1], rate)[..., np.newaxis]
        if weights.shape[1] == 1 and (weights[:, 0, 0] == STRAIGHT).all():
            return voices
        ahead = (weights * voices).sum(axis=0)
        behind = ((1 - weights) * voices).sum(axis=0)
        return np.stack([ahead, behind])
