"""Separators for streams: they process block by block and carry their memory as a state.

A network supports streaming if it is causal and implements `step`. Its class then has

- `causal`: whether this instance is causal;
- `initial_state(batch)`: the whole state, tensors of zeros by name;
- `step`: the same as a call, for the next block. A network that gives masks takes
  `(inputs, state, valid)` and gives `(masks, state)`. Inputs are `[batch, frame, bin]` with a
  multiple of `frames_per_step` frames (1 if the class has no such attribute). Frames where `valid`
  (`[frame]`) is 0 are not part of the signal and do not change the state. A network that gives
  waveforms takes `(waveform, state)`, a multiple of `hop` samples, and gives `(voices, state)`, as
  many samples, `delay` samples behind the input. The state passed in may hold further tensors.

`wrap` makes a streaming separator from it. It gives the same samples as a call of the whole
separator at a fixed gain: the level of the rest of the stream cannot be known.
"""

from typing import Any

from keras import ops

from models import masks as masks_lib
from models import separator, spectral
from pipeline import schema

Tensor = Any
State = dict[str, Any]


class NotCausalError(ValueError):
    """The network is not causal, or has no `step`."""


def wrap(whole: Any) -> "StreamingSeparator":
    """Returns the streaming version of a separator from `models.separator`.

    Raises:
        NotCausalError: its network does not support streaming.
    """
    network = whole.network
    if not getattr(network, "causal", False) or not hasattr(network, "step"):
        raise NotCausalError(f"{type(network).__name__} is not causal, or has no step")
    if isinstance(whole, separator.Separator):
        return SpectralStream(whole)
    return WaveformStream(whole)


class StreamingSeparator:
    """Common part of all streaming separators: steps of whole hops of samples.

    Attributes:
        separator: the separator whose samples this gives.
        hop: hop in samples; `step` takes multiples of it.
        delay: delay of the output relative to the input, in samples.
    """

    def __init__(self, whole: Any, hop: int, delay: int) -> None:
        """Takes hop and delay from the subclass."""
        self.separator = whole
        self.hop = hop
        self.delay = delay

    def initial_state(self, batch: int = 1) -> State:
        """Returns the state before the first sample: zeros, by name."""
        return {
            **self.separator.network.initial_state(batch),
            # Samples received so far, and how many of them belong to the signal.
            "fed": ops.zeros((), "int64"),
            "heard": ops.zeros((), "int64"),
            "recent": ops.zeros((batch, self.delay)),
        }

    def step(
        self, waveform: Tensor, length: Tensor, gain_db: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Processes the next samples.

        Args:
            waveform: float32 `[batch, k · hop]`, full scale 1.
            length: int32, number of samples that belong to the signal. It is less than the whole
                only from the end of the signal on: zeros follow until the last `delay` samples of
                output have come out.
            gain_db: float32, gain applied to the mixture before the network, in dB; the same in all
                steps of a stream.
            state: state from the step before, or `initial_state`.

        Returns:
            Float32 `[batch, source, k · hop]`: the voices, `delay` samples behind the waveform, so
            the first `delay` samples of a stream are zeros; and the new state.
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
        """Returns the voices at the network's level, and the network's part of the state.

        `heard` holds the `delay` samples before the new ones, then the new ones.
        """
        raise NotImplementedError


class SpectralStream(StreamingSeparator):
    """Streaming separator for networks that give masks.

    Frame t of the spectrogram spans 256 samples from sample hop · t − 128 on. The frames of a step
    are therefore complete one hop and half a frame after the first sample of the step.
    """

    def __init__(self, whole: separator.Separator) -> None:
        """Derives hop and delay from the network's `frames_per_step`."""
        self.frames_per_step = getattr(whole.network, "frames_per_step", 1)
        hop = self.frames_per_step * schema.HOP
        super().__init__(whole, hop, hop + schema.FRAME_LENGTH // 2)

    def initial_state(self, batch: int = 1) -> State:
        """Returns the common state, and the overlap of the frames so far with later samples."""
        # One row more than voices, for the sum of the squared windows.
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

        # Centre of each frame, in samples from the start of the signal. Frames centred before the
        # start do not exist in the whole signal's STFT; those after its end are filled with zeros.
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
    """Streaming separator for networks that give waveforms and map silence to silence."""

    def __init__(self, whole: separator.WaveformSeparator) -> None:
        """Takes hop and delay from the network."""
        super().__init__(whole, whole.network.hop, whole.network.delay)

    def _estimate(
        self, heard: Tensor, length: Tensor, gain: Tensor, state: State
    ) -> tuple[Tensor, State]:
        estimates, new = self.separator.network.step(heard[:, self.delay :] * gain, state)
        return ops.cast(estimates, "float32"), new


def last(x: Tensor, count: int) -> Tensor:
    """Returns the last `count` frames of `[batch, frame, channel]`; there are at least `count`."""
    return x[:, ops.shape(x)[1] - count :]


def dilated(x: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """Dilated depthwise convolution over a context and the frames that follow it.

    Args:
        x: `[batch, (tap − 1) · dilation + frame, channel]`.
        kernel: `[tap, channel]`.
        dilation: distance between taps, in frames.

    Returns:
        `[batch, frame, channel]`.
    """
    taps = kernel.shape[0]
    frames = ops.shape(x)[1] - (taps - 1) * dilation
    # A sum of few products: for few frames, the set-up of a convolution costs more than the work.
    return sum(kernel[k] * x[:, k * dilation : k * dilation + frames] for k in range(taps))


def continue_sum(total: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """Adds the overlap of earlier frames to an overlap-add result.

    Args:
        total: result of `spectral.overlap_add`, `[..., sample]`.
        rest: overlap left by the frames before, `[..., overlap]`.

    Returns:
        The samples that no later frame overlaps, and the new rest.
    """
    overlap, samples = rest.shape[-1], ops.shape(total)[-1]
    widths = [(0, 0)] * (len(rest.shape) - 1) + [(0, samples - overlap)]
    total = total + ops.pad(rest, widths)
    return total[..., : samples - overlap], total[..., samples - overlap :]
