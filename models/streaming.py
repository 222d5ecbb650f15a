"""Separators that hear a stream: block by block, with what they have to remember as a state.

A network can do so if it hears the past alone and says how to go on. Its class then has

- `causal`: whether it does, as it was made;
- `initial_state(batch)`: tensors of zeros by name: all that it has to remember;
- `step`: what a call does, for what comes next. A network of masks is handed
  `(inputs, state, valid)` with a multiple of `frames_per_step` (1 where the class has none) frames
  `[batch, frame, bin]`, of which those where `valid` (`[frame]`) is 0 are none of the signal's and
  leave no trace in the state; it gives `(masks, state)`. A network of waveforms is handed
  `(waveform, state)` with a multiple of its `hop` samples, and gives `(voices, state)`, as many
  samples, `delay` behind what it was handed. The state that is handed in may hold more.

`wrap` makes a separator of it that gives the same samples as the whole separator's call does, at a
gain that is fixed: the level of what is still to come cannot be known.
"""

from typing import Any

from keras import ops

from models import masks as masks_lib
from models import separator, spectral
from pipeline import schema

Tensor = Any
State = dict[str, Any]


class NotCausalError(ValueError):
    """The network hears what comes later, or does not say how to go on."""


def wrap(whole: Any) -> "StreamingSeparator":
    """The streaming separator that fits one of `models.separator`.

    Raises:
        NotCausalError: its network cannot follow a stream.
    """
    network = whole.network
    if not getattr(network, "causal", False) or not hasattr(network, "step"):
        raise NotCausalError(f"{type(network).__name__} does not hear the past alone")
    if isinstance(whole, separator.Separator):
        return SpectralStream(whole)
    return WaveformStream(whole)


class StreamingSeparator:
    """What is alike for all networks: steps of a stream, of whole hops of samples.

    Attributes:
        separator: whose samples this gives.
        hop: in samples: `step` takes multiples of it.
        delay: in samples, by which what comes out lags behind what goes in.
    """

    def __init__(self, whole: Any, hop: int, delay: int) -> None:
        """Subclasses know hop and delay."""
        self.separator = whole
        self.hop = hop
        self.delay = delay

    def initial_state(self, batch: int = 1) -> State:
        """The state before the first sample: zeros, by name."""
        return {
            **self.separator.network.initial_state(batch),
            # Samples that came, and those of them that are the signal's.
            "fed": ops.zeros((), "int64"),
            "heard": ops.zeros((), "int64"),
            "recent": ops.zeros((batch, self.delay)),
        }

    def step(
        self, waveform: Tensor, length: Tensor, gain_db: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """The next samples.

        Args:
            waveform: float32 `[batch, k · hop]`, full scale 1.
            length: int32, how many of its samples are the signal's. Only where that ends are they
                fewer: then zeros follow, until all `delay` samples that are owed have come out.
            gain_db: float32, what the mixture is changed by before the network sees it; the same
                in all steps of a stream.
            state: of the step before, or `initial_state`.

        Returns:
            Float32 `[batch, source, k · hop]`: the voices, `delay` samples behind the waveform, so
            that the first of all are zeros; and the new state.
        """
        gain = 10 ** (gain_db / 20)
        heard = ops.concatenate([state["recent"], waveform], axis=1)
        samples = ops.shape(waveform)[1]
        estimates, new = self._estimate(heard, ops.cast(length, "int64"), gain, state)
        new["fed"] = state["fed"] + ops.cast(samples, "int64")
        new["heard"] = state["heard"] + ops.cast(length, "int64")
        new["recent"] = heard[:, -self.delay :]
        voices = masks_lib.make_consistent(estimates / gain, heard[:, :samples])
        begun = state["fed"] + ops.arange(samples, dtype="int64") >= self.delay
        return ops.where(begun, voices, 0.0), new

    def _estimate(
        self, heard: Tensor, length: Tensor, gain: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """The voices at the network's level, and the part of the state that is not `step`'s own.

        `heard` holds `delay` samples more than those that came, before them.
        """
        raise NotImplementedError


class SpectralStream(StreamingSeparator):
    """For networks that give masks.

    Frame t of the spectrogram spans the samples from hop · t − 128 on, 256 of them, so that the
    frames of one step are known a hop and a half frame after the step's first sample.
    """

    def __init__(self, whole: separator.Separator) -> None:
        """Hop and delay follow from the network's `frames_per_step`."""
        self.frames_per_step = getattr(whole.network, "frames_per_step", 1)
        hop = self.frames_per_step * schema.HOP
        super().__init__(whole, hop, hop + schema.FRAME_LENGTH // 2)

    def initial_state(self, batch: int = 1) -> State:
        """As all have, and what the frames so far add to the samples after them."""
        # One row more than voices: the sum of the windows' squares.
        shape = (batch, self.separator.num_sources + 1, schema.FRAME_LENGTH - schema.HOP)
        return {**super().initial_state(batch), "overlap": ops.zeros(shape)}

    def _estimate(
        self, heard: Tensor, length: Tensor, gain: Tensor, state: State
    ) -> tuple[Tensor, State]:
        whole = self.separator
        batch, hop = ops.shape(heard)[0], schema.HOP
        hops = ops.reshape(heard[:, : ops.shape(heard)[1] // hop * hop], (batch, -1, hop))
        num_frames = (ops.shape(heard)[1] - self.delay) // hop
        parts = range(schema.FRAME_LENGTH // hop)
        frames = ops.concatenate([hops[:, i : i + num_frames] for i in parts], axis=-1)
        real, imaginary = spectral.forward_frames(frames * gain)

        # The middle of each frame, in samples from the signal's first, and which of them the whole
        # signal's spectrogram has: those before are none, those after are filled up with zeros.
        middle = state["fed"] - self.hop + hop * ops.arange(num_frames, dtype="int64")
        begun = ops.cast(middle >= 0, "float32")
        ended = ops.cast(middle >= state["heard"] + length + hop, "float32")
        inputs = whole.normalise(spectral.log_magnitude(real, imaginary))
        outputs, new = whole.network.step(inputs * (1 - ended)[:, None], state, begun)
        masks = masks_lib.complete(ops.cast(outputs, "float32"), whole.num_sources)

        # [batch, source + 1, frame, sample]
        found, squares = spectral.inverse_frames(masks * real[:, None], masks * imaginary[:, None])
        weights = ops.ones_like(found[:, :1]) * squares
        both = ops.concatenate([found, weights], axis=1) * (begun * (1 - ended))[:, None]
        both, new["overlap"] = continue_sum(spectral.overlap_add(both, hop), state["overlap"])
        return both[:, :-1] / ops.maximum(both[:, -1:], spectral.WEIGHT_FLOOR), new


class WaveformStream(StreamingSeparator):
    """For networks that give waveforms, and make nothing of silence."""

    def __init__(self, whole: separator.WaveformSeparator) -> None:
        """Hop and delay are the network's."""
        super().__init__(whole, whole.network.hop, whole.network.delay)

    def _estimate(
        self, heard: Tensor, length: Tensor, gain: Tensor, state: State
    ) -> tuple[Tensor, State]:
        estimates, new = self.separator.network.step(heard[:, self.delay :] * gain, state)
        return ops.cast(estimates, "float32"), new


def last(x: Tensor, count: int) -> Tensor:
    """The last `count` frames of `[batch, frame, channel]`, of which there are as many at least."""
    return x[:, ops.shape(x)[1] - count :]


def dilated(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """The convolution of each channel over a context and what follows it.

    Args:
        x: `[batch, (tap − 1) · dilation + frame, channel]`.
        kernel: `[tap, channel]`.
        dilation: frames from tap to tap.

    Returns:
        `[batch, frame, channel]`.
    """
    taps = kernel.shape[0]
    frames = ops.shape(x)[1] - (taps - 1) * dilation
    # A sum of few products: of few frames, a convolution's preparations cost more than itself.
    return sum(kernel[k] * x[:, k * dilation : k * dilation + frames] for k in range(taps))


def continue_sum(total: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """A sum of overlapping frames, with what frames before add to its beginning.

    Args:
        total: `[..., sample]` of `spectral.overlap_add`.
        rest: `[..., overlap]`, what was left by the frames before.

    Returns:
        The samples to which no later frame adds, and the new rest.
    """
    overlap, samples = rest.shape[-1], ops.shape(total)[-1]
    widths = [(0, 0)] * (len(rest.shape) - 1) + [(0, samples - overlap)]
    total = total + ops.pad(rest, widths)
    return total[..., : samples - overlap], total[..., samples - overlap :]
