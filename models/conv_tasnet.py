"""Conv-TasNet: masks over learned features of the waveform, by dilated convolutions.

Y. Luo, N. Mesgarani: "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech
separation", IEEE/ACM Transactions on Audio, Speech, and Language Processing 27(8), 2019.
"""

from typing import Any

import keras
from keras import ops

from models import spectral, streaming
from models.layers import normalisation

Tensor = Any

_MASKS = ("relu", "sigmoid", "softmax")


@keras.saving.register_keras_serializable("voices_apart")
class ConvTasNet(keras.Model):
    """A learned encoder, a mask for each voice over its output, and a learned decoder.

    Frames of `filter_length` samples, which overlap by half, are encoded to `filters` values each.
    Stacks of convolutions with dilations 1, 2, 4, … compute the masks; with the defaults their
    receptive field is 1.3 s at 8 kHz. The defaults are the paper's smallest network (1.5 M
    parameters, 0.58 G multiply-adds per second); its best is

        ConvTasNet(filters=512, filter_length=16, hidden=512, blocks=8, repeats=3)

    (5.1 M, 5.0 G). Trailing zeros of a row are taken for padding: the amount of padding does not
    change the output before it.

    Args:
        num_outputs: number of voices.
        filters: number of encoder filters, and of decoder filters (N in the paper).
        filter_length: filter length in samples, even (L).
        bottleneck: channels between the blocks (B).
        hidden: channels within a block (H).
        skip: channels of the skip connections, whose sum gives the masks (Sc).
        kernel_size: kernel size of a block's convolution, in frames, odd (P).
        blocks: blocks in a stack, each with twice the dilation of the one before (X).
        repeats: number of stacks (R).
        mask: activation of the masks, `relu`, `sigmoid`, or `softmax` over the voices.
        causal: no frame depends on later frames: causal convolutions, and cumulative norms.

    Call arguments:
        inputs: waveforms, `[batch, sample]`.
        training: has no effect.

    Returns:
        float32 `[batch, output, sample]`.

    Raises:
        ValueError: a setting has an invalid value.

    Example:
        voices = ConvTasNet(num_outputs=2)(np.zeros((1, 8000), "float32"))
    """

    takes = "waveform"

    def __init__(
        self,
        num_outputs: int = 2,
        filters: int = 128,
        filter_length: int = 40,
        bottleneck: int = 128,
        hidden: int = 256,
        skip: int = 128,
        kernel_size: int = 3,
        blocks: int = 7,
        repeats: int = 2,
        mask: str = "relu",
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        # The waveform stays in full precision up to the encoder.
        super().__init__(**{"autocast": False, **kwargs})
        if blocks < 1 or repeats < 1:
            raise ValueError(f"blocks and repeats are at least 1, not {blocks} and {repeats}")
        if filter_length % 2 or filter_length < 2:
            raise ValueError(f"filter_length must be even, not {filter_length}")
        if kernel_size % 2 != 1:
            raise ValueError(f"kernel_size must be odd, not {kernel_size}")
        if mask not in _MASKS:
            raise ValueError(f"unknown mask {mask!r}; known are {', '.join(_MASKS)}")
        self.num_outputs = num_outputs
        self.filters = filters
        self.filter_length = filter_length
        self.bottleneck = bottleneck
        self.hidden = hidden
        self.skip = skip
        self.kernel_size = kernel_size
        self.blocks = blocks
        self.repeats = repeats
        self.mask = mask
        self.causal = causal
        policy = self.dtype_policy
        norm = normalisation.CumulativeLayerNorm if causal else normalisation.GlobalLayerNorm
        # The whole signal passes through these two layers; full precision costs little here.
        self.encoder = keras.layers.Dense(
            filters, activation="relu", use_bias=False, dtype="float32", name="encoder"
        )
        self.decoder = keras.layers.Dense(
            filter_length, use_bias=False, dtype="float32", name="decoder"
        )
        self.norm = norm(dtype=policy, name="norm")
        self.entry = keras.layers.Dense(bottleneck, dtype=policy, name="entry")
        count = repeats * blocks
        self.stack = [
            # No later block would use the residual output of the last block.
            Block(
                bottleneck if i < count - 1 else 0,
                hidden,
                skip,
                kernel_size,
                2 ** (i % blocks),
                causal,
                dtype=policy,
                name=f"block_{i}",
            )
            for i in range(count)
        ]
        self.slope = Slope(dtype=policy, name="slope")
        self.mask_head = keras.layers.Dense(num_outputs * filters, dtype=policy, name="mask_head")

    def build(self, input_shape: Any) -> None:
        self.encoder.build((None, None, self.filter_length))
        self.decoder.build((None, None, self.filters))
        self.norm.build((None, None, self.filters))
        self.entry.build((None, None, self.filters))
        for block in self.stack:
            block.build((None, None, self.bottleneck))
        self.slope.build((None, None, self.skip))
        self.mask_head.build((None, None, self.skip))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        waveform = ops.cast(inputs, "float32")
        half = self.filter_length // 2
        encoded = self.encoder(_frames(waveform, half))
        valid = _valid_frames(waveform, half)
        x = self.entry(self.norm(encoded, valid))
        skip = None
        for block in self.stack:
            x, new = block(x, valid)
            skip = new if skip is None else skip + new
        masks = self._masks(ops.cast(self.mask_head(self.slope(skip)), "float32"))
        frames = self.decoder(masks * encoded[:, None])
        samples = ops.shape(waveform)[1]
        return spectral.overlap_add(frames, half)[..., half : half + samples]

    @property
    def hop(self) -> int:
        """Hop in samples; `step` takes multiples of it."""
        return self.filter_length // 2

    @property
    def delay(self) -> int:
        """Delay of the output of `step` relative to its input, in samples."""
        return self.filter_length // 2

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """Returns the state before the first sample: zeros."""
        state = {
            "frames": ops.zeros((), "int64"),
            "samples": ops.zeros((batch, self.hop)),
            "decoded": ops.zeros((batch, self.num_outputs, self.hop)),
            "norms": ops.zeros((batch, 1 + 2 * len(self.stack), 2)),
        }
        for i, block in enumerate(self.stack):
            shape = (batch, block.reach, self.hidden)
            state[f"context_{i}"] = ops.zeros(shape, self.compute_dtype)
        return state

    def step(self, waveform: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Processes the next samples of a stream, if the network is causal (`models.streaming`).

        Args:
            waveform: float32 `[batch, k · hop]`.
            state: state from the call before, or `initial_state`.

        Returns:
            Float32 `[batch, output, k · hop]`, `delay` samples behind the waveform, and the new
            state.
        """
        half, frames = self.hop, state["frames"]
        heard = ops.concatenate([state["samples"], waveform], axis=1)
        halves = ops.reshape(heard, (ops.shape(heard)[0], -1, half))
        encoded = self.encoder(ops.concatenate([halves[:, :-1], halves[:, 1:]], axis=-1))
        new = {
            "samples": heard[:, -half:],
            "frames": frames + ops.cast(ops.shape(encoded)[1], frames.dtype),
        }
        x, statistics = self.norm.step(encoded, state["norms"][:, 0], frames)
        norms, x, skip = [statistics], self.entry(x), 0
        for i, block in enumerate(self.stack):
            own = state["norms"][:, 2 * i + 1 : 2 * i + 3]
            x, more, own, context = block.step(x, own, state[f"context_{i}"], frames)
            skip = skip + more
            norms.append(own[:, 0])
            norms.append(own[:, 1])
            new[f"context_{i}"] = context
        new["norms"] = ops.stack(norms, axis=1)
        masks = self._masks(ops.cast(self.mask_head(self.slope(skip)), "float32"))
        decoded = spectral.overlap_add(self.decoder(masks * encoded[:, None]), half)
        given, new["decoded"] = streaming.continue_sum(decoded, state["decoded"])
        return given, new

    def _masks(self, x: Tensor) -> Tensor:
        """Maps `[batch, frame, output · filter]` to masks `[batch, output, frame, filter]`."""
        batch, frames = ops.shape(x)[:2]
        x = ops.reshape(x, (batch, frames, self.num_outputs, self.filters))
        x = ops.transpose(x, (0, 2, 1, 3))
        if self.mask == "softmax":
            return ops.softmax(x, axis=1)
        return keras.activations.get(self.mask)(x)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return (input_shape[0], self.num_outputs, input_shape[1])

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_outputs", "filters", "filter_length", "bottleneck", "hidden", "skip",
            "kernel_size", "blocks", "repeats", "mask", "causal",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# The serialised name stays as it is: the weights in saved files are named after it.
@keras.saving.register_keras_serializable("voices_apart", "ConvTasNetBlock")
class Block(keras.layers.Layer):
    """A dense layer, a dilated depthwise convolution, and residual and skip outputs.

    Args:
        width: channels of the residual output; 0 for none.
        hidden: channels within.
        skip: channels of the skip output.
        kernel_size: kernel size of the convolution, in frames, odd.
        dilation: dilation of the convolution.
        causal: use only past frames.

    Call arguments:
        inputs: `[batch, frame, channel]`.
        valid: 1 for valid frames, 0 for padding, float32 `[batch, frame]`.

    Returns:
        The inputs plus the residual output, and the skip output, `[batch, frame, skip]`.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        skip: int,
        kernel_size: int,
        dilation: int,
        causal: bool,
        **kwargs: Any,
    ) -> None:
        # `valid` is float32 even under mixed precision.
        super().__init__(**{"autocast": False, **kwargs})
        self.width = width
        self.hidden = hidden
        self.skip = skip
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.causal = causal
        policy = self.dtype_policy
        norm = normalisation.CumulativeLayerNorm if causal else normalisation.GlobalLayerNorm
        self.widen = keras.layers.Dense(hidden, dtype=policy)
        self.first_slope = Slope(dtype=policy)
        self.first_norm = norm(dtype=policy)
        self.second_slope = Slope(dtype=policy)
        self.second_norm = norm(dtype=policy)
        # Both outputs in one matrix product.
        self.out = keras.layers.Dense(width + skip, dtype=policy)

    def build(self, input_shape: Any) -> None:
        inside = (None, None, self.hidden)
        self.widen.build(input_shape)
        self.kernel = self.add_weight(
            shape=(self.kernel_size, self.hidden),
            # The default initialisation of a Keras depthwise convolution.
            initializer=keras.initializers.VarianceScaling(1 / self.hidden, "fan_avg", "uniform"),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.hidden,), initializer="zeros", name="bias")
        for layer in (self.first_slope, self.first_norm, self.second_slope, self.second_norm):
            layer.build(inside)
        self.out.build(inside)
        self.built = True

    def call(self, inputs: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first_norm(self.first_slope(self.widen(inputs)), valid)
        x = self.second_norm(self.second_slope(self._convolve(x)), valid)
        x = self.out(x)
        if not self.width:
            return inputs, x
        return inputs + x[..., : self.width], x[..., self.width :]

    @property
    def reach(self) -> int:
        """Number of frames beside the current one that the convolution spans."""
        return (self.kernel_size - 1) * self.dilation

    def step(
        self, inputs: Tensor, norms: Tensor, context: Tensor, frames: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Processes the next frames of a stream, if the block is causal.

        Args:
            inputs: `[batch, frame, channel]`.
            norms: state of the two norms, float32 `[batch, 2, 2]`.
            context: last frames seen by the convolution, `[batch, reach, hidden]`.
            frames: number of frames before.

        Returns:
            The two results of a call, and the new `norms` and `context`.
        """
        x, first = self.first_norm.step(self.first_slope(self.widen(inputs)), norms[:, 0], frames)
        x = ops.concatenate([context, x], axis=1)
        context = streaming.last(x, self.reach)
        kernel, bias = (ops.cast(w, self.compute_dtype) for w in (self.kernel, self.bias))
        x = streaming.dilated(x, kernel, self.dilation) + bias
        x, second = self.second_norm.step(self.second_slope(x), norms[:, 1], frames)
        x, norms = self.out(x), ops.stack([first, second], axis=1)
        if not self.width:
            return inputs, x, norms, context
        return inputs + x[..., : self.width], x[..., self.width :], norms, context

    def _convolve(self, x: Tensor) -> Tensor:
        """Dilated depthwise convolution."""
        kernel = ops.cast(self.kernel, self.compute_dtype)
        reach = self.reach
        before = reach if self.causal else reach // 2
        frames = ops.shape(x)[1]
        x = ops.pad(x, [(0, 0), (before, reach - before), (0, 0)])
        total = ops.cast(self.bias, self.compute_dtype)
        if keras.backend.backend() == "tensorflow":
            return ops.depthwise_conv(x, kernel[..., None], dilation_rate=self.dilation) + total
        # XLA's depthwise convolution takes 14 times as long on a CPU as this sum of shifted
        # products, which it fuses. Without XLA, TensorFlow's takes a fifth of the time of the sum.
        for k in range(self.kernel_size):
            total = total + kernel[k] * x[:, k * self.dilation : k * self.dilation + frames]
        return total

    def get_config(self) -> dict[str, Any]:
        names = ("width", "hidden", "skip", "kernel_size", "dilation", "causal")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("voices_apart")
class Slope(keras.layers.Layer):
    """PReLU (He et al. 2015): scales negative values by a learned factor, at most 1.

    One factor for all channels. The Keras layer makes five passes over the data instead of two.
    """

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(0.25), name="factor"
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        factor = ops.cast(ops.minimum(self.factor, 1.0), self.compute_dtype)
        return ops.maximum(inputs, factor * inputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        return tuple(input_shape)


def _frames(waveform: Tensor, half: int) -> Tensor:
    """Splits `[batch, sample]` into overlapping `[batch, ceil(sample / half) + 1, 2 · half]`."""
    batch, samples = ops.shape(waveform)
    count = (samples + half - 1) // half + 2
    padded = ops.pad(waveform, [(0, 0), (half, 2 * half - 1)])[:, : count * half]
    halves = ops.reshape(padded, (batch, count, half))
    return ops.concatenate([halves[:, :-1], halves[:, 1:]], axis=-1)


def _valid_frames(waveform: Tensor, half: int) -> Tensor:
    """1 for the frames of each row up to its last non-zero sample, `[batch, frame]`."""
    samples = ops.shape(waveform)[1]
    length = normalisation.sounding_samples(waveform)
    frames = ops.arange((samples + half - 1) // half + 1, dtype="int32")
    return ops.cast(frames <= (length + half - 1) // half, "float32")
