"""A temporal convolutional network (TCN) over the frames of a spectrogram, which gives masks.

The blocks follow Y. Luo, N. Mesgarani: "Conv-TasNet", IEEE/ACM Transactions on Audio, Speech, and
Language Processing 27(8), 2019. Using a spectrogram instead of a learned encoder follows
J. Heitkaemper et al.: "Demystifying TasNet: a dissecting approach", ICASSP 2020. Longer frames mean
far fewer frames: this is by far the cheapest of the networks that separate well.
"""

from typing import Any

import keras
from keras import ops

from models import streaming
from models.layers import fused_convolution, heads
from pipeline import schema

Tensor = Any


@keras.saving.register_keras_serializable("voices_apart")
class TemporalConvolution(keras.Model):
    """Residual blocks of dilated convolutions over the frames, then a mask for each output.

    Args:
        num_outputs: number of masks.
        width: channels between the blocks.
        units: channels within a block.
        kernel: kernel size of a block's convolution, in steps.
        num_layers: blocks in a repetition; the dilation doubles from block to block.
        repeats: number of repetitions.
        stack: number of neighbouring frames stacked into one step; 2 halves the number of steps.
        dropout: dropout rate.
        head: activation of the masks, `sigmoid`, `linear`, `relu` or `softmax` (over the outputs).
        causal: use only past frames (with `stack`, frames up to the end of the step).
        num_bins: number of bins of the spectrogram.

    Call arguments:
        inputs: normalised log-magnitudes, `[batch, frame, bin]`.
        training: whether dropout is active.

    Returns:
        float32 masks, `[batch, output, frame, bin]`.

    Example:
        masks = TemporalConvolution(num_outputs=2)(np.zeros((1, 100, 129), "float32"))
    """

    takes = "log_magnitude"

    def __init__(
        self,
        num_outputs: int = 2,
        width: int = 192,
        units: int = 384,
        kernel: int = 3,
        num_layers: int = 7,
        repeats: int = 2,
        stack: int = 2,
        dropout: float = 0.0,
        head: str = "relu",
        causal: bool = False,
        num_bins: int = schema.NUM_BINS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if head not in heads.ACTIVATIONS:
            raise ValueError(f"unknown head {head!r}; known are {', '.join(heads.ACTIVATIONS)}")
        self.num_outputs = num_outputs
        self.width = width
        self.units = units
        self.kernel = kernel
        self.num_layers = num_layers
        self.repeats = repeats
        self.stack = stack
        self.dropout = dropout
        self.head = head
        self.causal = causal
        self.num_bins = num_bins
        policy = self.dtype_policy
        self.entry = keras.layers.Dense(width, dtype=policy, name="entry")
        self.blocks = [
            Block(width, units, kernel, 2**i, dropout, causal, dtype=policy, name=f"block_{r}_{i}")
            for r in range(repeats)
            for i in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(dtype="float32", name="norm")
        # The activation follows once steps are frames again: softmax is over the outputs.
        self.mask_head = heads.MaskHead(num_outputs * stack, num_bins, "linear", dtype=policy)

    def build(self, input_shape: Any) -> None:
        self.entry.build((None, None, self.stack * self.num_bins))
        for block in self.blocks:
            block.build((None, None, self.width))
        self.norm.build((None, None, self.width))
        self.mask_head.build((None, None, self.width))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        batch, frames = ops.shape(inputs)[:2]
        # The padding of the last step is cut off at the end.
        padded = ops.pad(inputs, [(0, 0), (0, self.stack - 1), (0, 0)])
        steps = (frames + self.stack - 1) // self.stack
        padded = padded[:, : steps * self.stack]
        x = ops.reshape(padded, (batch, steps, self.stack * self.num_bins))
        x = self.entry(ops.cast(x, self.compute_dtype))
        for block in self.blocks:
            x = block(x, training=training)
        return self._masks(x)[:, :, :frames]

    def parts(self) -> dict[str, keras.layers.Layer]:
        """Returns the layers, by names that networks of different sizes share.

        A new block is an identity at first. A larger network with the weights of a smaller one
        therefore gives the same results as the smaller one.
        """
        blocks = {block.name: block for block in self.blocks}
        return {"entry": self.entry, **blocks, "norm": self.norm, "mask_head": self.mask_head}

    @property
    def frames_per_step(self) -> int:
        """Number of frames in a step; `step` takes multiples of it."""
        return self.stack

    def initial_state(self, batch: int) -> dict[str, Tensor]:
        """Returns the state before the first frame: zeros."""
        shapes = ((batch, block.reach, self.units) for block in self.blocks)
        return {
            f"context_{i}": ops.zeros(shape, self.compute_dtype) for i, shape in enumerate(shapes)
        }

    def step(
        self, inputs: Tensor, state: dict[str, Tensor], valid: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the masks of the next frames of a stream and the new state, if causal.

        See `models.streaming`. A step changes the state only if all of its frames are valid.
        """
        batch, frames = ops.shape(inputs)[:2]
        steps = frames // self.stack
        x = ops.reshape(inputs, (batch, steps, self.stack * self.num_bins))
        x = self.entry(ops.cast(x, self.compute_dtype))
        valid = ops.min(ops.reshape(valid, (steps, self.stack)), axis=1)
        new = {}
        for i, block in enumerate(self.blocks):
            x, new[f"context_{i}"] = block.step(x, state[f"context_{i}"], valid)
        return self._masks(x), new

    def _masks(self, x: Tensor) -> Tensor:
        """Maps `[batch, step, width]` to masks `[batch, output, frame, bin]`."""
        batch, steps = ops.shape(x)[:2]
        x = self.mask_head(ops.cast(self.norm(x), self.compute_dtype))
        # [batch, output · stack, step, bin] to [batch, output, frame, bin].
        x = ops.reshape(x, (batch, self.num_outputs, self.stack, steps, self.num_bins))
        x = ops.transpose(x, (0, 1, 3, 2, 4))
        x = ops.reshape(x, (batch, self.num_outputs, steps * self.stack, self.num_bins))
        return heads.activate(x, self.head)

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_outputs", "width", "units", "kernel", "num_layers", "repeats", "stack", "dropout",
            "head", "causal", "num_bins",
        )  # fmt: skip
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# The serialised name stays as it is: the weights in saved files are named after it.
@keras.saving.register_keras_serializable("voices_apart", "TemporalConvolutionBlock")
class Block(fused_convolution.FusedBlock):
    """Residual block: normalisation, wider dense layer, dilated depthwise convolution, and back.

    Args:
        width: channels of input and output.
        units: channels within.
        kernel: kernel size of the convolution, in steps.
        dilation: dilation of the convolution.
        dropout: dropout rate of the output channels.
        causal: use only past steps.

    Call arguments:
        inputs: `[batch, step, width]`.

    Returns:
        The same shape.
    """

    def __init__(
        self,
        width: int,
        units: int,
        kernel: int,
        dilation: int,
        dropout: float = 0.0,
        causal: bool = False,
        **kwargs: Any,
    ) -> None:
        # The fused implementation takes weights in float32.
        super().__init__(**{"autocast": False, **kwargs})
        self.width = width
        self.units = units
        self.kernel = kernel
        self.dilation = dilation
        self.dropout = dropout
        self.causal = causal
        policy = self.dtype_policy
        self.norm = keras.layers.LayerNormalization(
            epsilon=fused_convolution.EPSILON, dtype="float32", autocast=False
        )
        self.widen = keras.layers.Dense(units, "silu", dtype=policy)
        self.convolve = keras.layers.DepthwiseConv1D(
            kernel,
            padding="valid" if causal else "same",
            dilation_rate=dilation,
            activation="silu",
            dtype=policy,
        )
        self.narrow = keras.layers.Dense(width, kernel_initializer="zeros", dtype=policy)
        self.drop = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, input_shape: Any) -> None:
        self.norm.build((None, None, self.width))
        self.widen.build((None, None, self.width))
        self.convolve.build((None, None, self.units))
        self.narrow.build((None, None, self.units))
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.takes_the_fast_way(training):
            return inputs + self.drop(self._fast(inputs), training=training)
        x = ops.cast(self.norm(ops.cast(inputs, "float32")), self.compute_dtype)
        x = self.widen(x)
        if self.causal:
            # DepthwiseConv1D has no "causal" padding.
            x = ops.pad(x, [(0, 0), ((self.kernel - 1) * self.dilation, 0), (0, 0)])
        x = self.narrow(self.convolve(x))
        return inputs + self.drop(x, training=training)

    def _fast(self, inputs: Tensor) -> Tensor:
        norm, widen, convolve, narrow = self.norm, self.widen, self.convolve, self.narrow
        return fused_convolution.convolution(
            inputs,
            (norm.gamma.value, norm.beta.value),
            (widen.kernel.value, widen.bias.value),
            (convolve.kernel.value[..., 0], convolve.bias.value),
            (narrow.kernel.value, narrow.bias.value),
            self.dilation,
            self.causal,
        )

    @property
    def reach(self) -> int:
        """Number of steps beside the current one that the convolution spans."""
        return (self.kernel - 1) * self.dilation

    def step(self, inputs: Tensor, context: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Processes the next steps of a stream, if the block is causal.

        Args:
            inputs: `[batch, step, width]`.
            context: last steps seen by the convolution, `[batch, reach, units]`.
            valid: 1 for valid steps, 0 for steps that do not change the state, float32 `[step]`.

        Returns:
            The same shape as the inputs, and the new context.
        """
        x = ops.cast(self.norm(ops.cast(inputs, "float32")), self.compute_dtype)
        x = self.widen(x) * ops.cast(valid, self.compute_dtype)[:, None]
        x = ops.concatenate([context, x], axis=1)
        convolve = self.convolve
        kernel, bias = (ops.cast(w, self.compute_dtype) for w in (convolve.kernel, convolve.bias))
        y = streaming.dilated(x, kernel[..., 0], self.dilation) + bias
        return inputs + self.narrow(convolve.activation(y)), streaming.last(x, self.reach)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("width", "units", "kernel", "dilation", "dropout", "causal")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
