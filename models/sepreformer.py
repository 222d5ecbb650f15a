"""SepReformer: splits the features by voice early and reconstructs all voices with one decoder.

U.-H. Shin, S. Lee, T. Kim, H.-M. Park: "Separate and reconstruct: asymmetric encoder-decoder for
speech separation", NeurIPS 2024. Sizes and widths are those of the authors' configurations.
"""

from typing import Any

import keras
from keras import ops

from models import spectral
from models.layers import attention, normalisation
from models.layers import sepreformer_blocks as blocks

Tensor = Any

# Settings by size. The paper's M and L are left out: they need larger machines for training.
SIZES: dict[str, dict[str, int]] = {
    "B": {"channels": 128, "num_stages": 4, "kernel": 16, "stride": 4},
    "S": {"channels": 64, "num_stages": 5, "kernel": 8, "stride": 2},
    "T": {"channels": 64, "num_stages": 4, "kernel": 16, "stride": 4},
    "nano": {"channels": 32, "num_stages": 3, "kernel": 16, "stride": 8},
}


@keras.saving.register_keras_serializable("voices_apart")
class SepReformer(keras.Model):
    """Encodes the waveform, halves the frame rate stage by stage, splits by voice, and decodes.

    Each stage alternates attention over the whole length, between means of frames, with long
    convolutions. In the decoder the voices also attend to each other in each frame. All splits (of
    the result of every stage and of the coarsest) share their weights, and all voices share the
    decoder.

    Where the sources leave details open, this implementation pads the waveform with kernel − stride
    zeros at both ends, so that every sample lies in the same number of frames; zero-pads the frames
    after the projection to a multiple of 2 ** num_stages; applies dropout to the output of
    attention, not to its weights; and uses one table of 4,000 relative positions for all attention.

    Args:
        num_outputs: number of voices.
        size: one of `SIZES`: `T`, `S` and `B` are the paper's; `nano` is a small one for slow
            processors. It sets those of the following arguments that are not given.
        channels: number of feature channels, a multiple of `heads`.
        num_stages: how often the frame rate is halved.
        kernel: frame length of the encoder, in samples, a multiple of `stride`.
        stride: hop of the encoder, in samples.
        filters: number of filters of the waveform encoder and decoder.
        heads: number of attention heads.
        local_kernel: kernel size of the long convolutions, in frames.
        encoder_repeats: pairs of a global and a local block per encoder stage.
        decoder_repeats: the same per decoder stage.
        dropout: dropout rate.
        auxiliary: whether to add the heads for `with_auxiliary`, one per stage. Only training uses
            them, and the literature does not count their parameters.

    Call arguments:
        waveform: `[batch, sample]`, of any length. Trailing zeros of a row are taken for padding:
            outside training, the amount of padding does not change the output before it.
        training: whether dropout is active and batch norm uses the statistics of the batch.

    Returns:
        float32 `[batch, output, sample]`.

    Raises:
        ValueError: the size is unknown, or `kernel` or `channels` is not the required multiple.

    Example:
        voices = SepReformer(num_outputs=2)(np.zeros((1, 32000), "float32"))
    """

    takes = "waveform"

    def __init__(
        self,
        num_outputs: int = 2,
        size: str = "T",
        channels: int | None = None,
        num_stages: int | None = None,
        kernel: int | None = None,
        stride: int | None = None,
        filters: int = 256,
        heads: int = 8,
        local_kernel: int = 65,
        encoder_repeats: int = 2,
        decoder_repeats: int = 3,
        dropout: float = 0.05,
        auxiliary: bool = True,
        **kwargs: Any,
    ) -> None:
        # The waveform keeps its precision.
        super().__init__(**{"autocast": False, **kwargs})
        if size not in SIZES:
            raise ValueError(f"unknown size {size!r}; known are {', '.join(SIZES)}")
        given = {"channels": channels, "num_stages": num_stages, "kernel": kernel, "stride": stride}
        chosen = {k: SIZES[size][k] if v is None else v for k, v in given.items()}
        self.num_outputs = num_outputs
        self.size = size
        self.channels = channels = chosen["channels"]
        self.num_stages = num_stages = chosen["num_stages"]
        self.kernel, self.stride = chosen["kernel"], chosen["stride"]
        self.filters = filters
        self.heads = heads
        self.local_kernel = local_kernel
        self.encoder_repeats = encoder_repeats
        self.decoder_repeats = decoder_repeats
        self.dropout = dropout
        self.auxiliary = auxiliary
        if self.kernel % self.stride:
            raise ValueError(f"kernel {self.kernel} is not a multiple of stride {self.stride}")
        if channels % heads:
            raise ValueError(f"{channels} channels are not a multiple of {heads} heads")

        policy = self.dtype_policy
        self.encoder = keras.layers.Conv1D(
            filters, self.kernel, self.stride, activation="gelu", use_bias=False, dtype="float32"
        )
        self.norm = normalisation.GlobalLayerNorm(dtype=policy)
        self.project = keras.layers.Dense(channels, use_bias=False, dtype=policy)
        self.positions = attention.RelativePositions(channels // heads, 2000, dtype=policy)
        self.encoder_stages = [
            self._stage(encoder_repeats, 2 ** (num_stages - i), 1) for i in range(num_stages + 1)
        ]
        self.halve = [Halve(dtype=policy) for _ in range(num_stages)]
        self.split = Split(channels, num_outputs, dtype=policy)
        self.fuse = [keras.layers.Dense(channels, dtype=policy) for _ in range(num_stages)]
        self.decoder_stages = [
            self._stage(decoder_repeats, 2 ** (i + 1), num_outputs) for i in range(num_stages)
        ]
        self.head = Head(channels, filters, dtype=policy)
        self.decoder = keras.layers.Dense(self.kernel, use_bias=False, dtype="float32")
        count = num_stages if auxiliary else 0
        self.auxiliary_heads = [Head(channels, filters, dtype=policy) for _ in range(count)]
        self.auxiliary_decoders = [
            keras.layers.Dense(self.kernel, use_bias=False, dtype="float32") for _ in range(count)
        ]

    def _stage(self, repeats: int, pooling: int, num_voices: int) -> blocks.Stage:
        return blocks.Stage(
            self.channels,
            repeats,
            self.heads,
            pooling,
            self.local_kernel,
            self.dropout,
            num_voices,
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Any) -> None:
        self.encoder.build((None, None, 1))
        for layer in (self.norm, self.project, self.decoder, *self.auxiliary_decoders):
            layer.build((None, None, self.filters))
        for layer in self.fuse:
            layer.build((None, None, 2 * self.channels))
        others: list[keras.layers.Layer] = [
            self.positions,
            self.split,
            self.head,
            *self.encoder_stages,
            *self.halve,
            *self.decoder_stages,
            *self.auxiliary_heads,
        ]
        for layer in others:
            layer.build((None, None, self.channels))
        self.built = True

    def call(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        frames, features, valid = self._encode(waveform)
        last = self._separate(features, valid, training)[-1]
        return self._waveforms(self.head(last), self.decoder, valid, frames, waveform)

    def with_auxiliary(
        self, waveform: Tensor, training: bool | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the voices, and estimates of them before each stage of the decoder.

        The paper's loss is (1 − a) times the negative SI-SDR of the voices, plus a = 0.4 times the
        mean loss of the auxiliary estimates on magnitude spectrograms (512 samples, hop 128).

        Args:
            waveform: `[batch, sample]`.
            training: whether dropout is active and batch norm uses the statistics of the batch.

        Returns:
            The voices, float32 `[batch, output, sample]`, and `num_stages` such tensors, coarsest
            first; an empty list without `auxiliary`.
        """
        frames, features, valid = self._encode(waveform)
        *before, last = self._separate(features, valid, training)
        others = []
        if self.auxiliary:
            layers = zip(before, self.auxiliary_heads, self.auxiliary_decoders, strict=True)
            for i, (x, head, decoder) in enumerate(layers):
                # The head acts on single frames, so nearest-neighbour upsampling may follow it.
                mask = ops.repeat(ops.relu(head(x)), 2 ** (self.num_stages - i), axis=1)
                others.append(self._waveforms(mask, decoder, valid, frames, waveform, masked=True))
        return self._waveforms(self.head(last), self.decoder, valid, frames, waveform), others

    def _encode(self, waveform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the encoded frames of `[batch, sample]`, the padded features, and `valid`.

        Frames are `[batch, frame, filter]`. `valid` is 1 for valid frames of the features, 0 for
        padding, `[batch, frame]`.
        """
        before = self.kernel - self.stride
        waveform = ops.cast(waveform, "float32")
        padded = ops.pad(waveform, [(0, 0), (before, self.kernel - 1)])
        frames = self.encoder(padded[..., None])
        numbers = ops.arange(ops.shape(frames)[1], dtype="int32")
        end = normalisation.sounding_samples(waveform) + before
        valid = ops.cast(numbers * self.stride < end, "float32")
        features = self.project(self.norm(frames, valid))
        multiple = 2**self.num_stages
        num_frames = ops.shape(features)[1]
        whole = (num_frames + multiple - 1) // multiple * multiple
        features = ops.pad(features, [(0, 0), (0, multiple - 1), (0, 0)])[:, :whole]
        return frames, features, ops.pad(valid, [(0, 0), (0, multiple - 1)])[:, :whole]

    def _separate(self, features: Tensor, valid: Tensor, training: bool | None) -> list[Tensor]:
        """Returns the voices' features before each stage of the decoder and after the last."""
        distances = self.positions(features[:, :: 2**self.num_stages])
        # Valid frames at each level of the encoder; the last level has the rate of the means.
        levels = [valid]
        for _ in range(self.num_stages):
            pairs = ops.reshape(levels[-1], (-1, ops.shape(levels[-1])[1] // 2, 2))
            levels.append(ops.max(pairs, axis=-1))
        # Few training examples are padded, so masking the padding is not worth its cost.
        masks: list[Tensor | None] = [None if training else level for level in levels]
        x, skipped = features, []
        for i, stage in enumerate(self.encoder_stages):
            x = stage(x, distances, masks[i], masks[-1], training=training)
            skipped.append(self.split(x, levels[i]))
            if i < self.num_stages:
                x = self.halve[i](x, masks[i], training=training)
        if not training:
            masks = [ops.repeat(level, self.num_outputs, axis=0) for level in levels]
        results = [skipped.pop()]
        for i, (fuse, stage) in enumerate(zip(self.fuse, self.decoder_stages, strict=True)):
            x = ops.concatenate([ops.repeat(results[-1], 2, axis=1), skipped.pop()], axis=-1)
            mask = masks[self.num_stages - 1 - i]
            results.append(stage(fuse(x), distances, mask, masks[-1], training=training))
        return results

    def _waveforms(
        self,
        x: Tensor,
        decoder: keras.layers.Layer,
        valid: Tensor,
        frames: Tensor,
        waveform: Tensor,
        masked: bool = False,
    ) -> Tensor:
        """Decodes `[batch · voice, frame, filter]`, with `masked` as a mask for `frames`."""
        num_frames, num_samples = ops.shape(frames)[1], ops.shape(waveform)[1]
        x = ops.cast(x[:, :num_frames], "float32")
        x = ops.reshape(x, (-1, self.num_outputs, num_frames, self.filters))
        x = x * valid[:, None, :num_frames, None]
        if masked:
            x = x * frames[:, None]
        found = spectral.overlap_add(decoder(x), self.stride)
        before = self.kernel - self.stride
        return found[..., before : before + num_samples]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "size": self.size,
            "channels": self.channels,
            "num_stages": self.num_stages,
            "kernel": self.kernel,
            "stride": self.stride,
            "filters": self.filters,
            "heads": self.heads,
            "local_kernel": self.local_kernel,
            "encoder_repeats": self.encoder_repeats,
            "decoder_repeats": self.decoder_repeats,
            "dropout": self.dropout,
            "auxiliary": self.auxiliary,
        }


class Halve(keras.layers.Layer):
    """Halves the number of frames by a depthwise convolution with stride 2.

    Call arguments:
        inputs: `[row, frame, channel]`, an even number of frames.
        valid: 1 for valid frames, 0 for padding, `[row, frame]`; by default all are valid.
        training: whether batch norm uses the statistics of the batch.

    Returns:
        `[row, frame / 2, channel]`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convolve = keras.layers.DepthwiseConv1D(
            5, strides=2, padding="same", dtype=self.dtype_policy
        )
        self.batch_norm = blocks.batch_norm()

    def build(self, input_shape: Any) -> None:
        self.convolve.build(input_shape)
        self.batch_norm.build(input_shape)
        self.built = True

    def call(
        self, inputs: Tensor, valid: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        x = self.convolve(normalisation.without_padding(inputs, valid))
        x = self.batch_norm(x, training=training)
        return ops.cast(ops.gelu(x, approximate=False), self.compute_dtype)


class Split(keras.layers.Layer):
    """Splits the features of the mixture into features of each voice.

    Args:
        channels: number of feature channels.
        num_voices: number of voices.

    Call arguments:
        inputs: `[batch, frame, channel]`.
        valid: 1 for valid frames, 0 for padding, `[batch, frame]`.

    Returns:
        `[batch · voice, frame, channel]`; the voices of a mixture are adjacent rows.
    """

    def __init__(self, channels: int, num_voices: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.num_voices = num_voices
        self.enter = keras.layers.Dense(4 * channels * num_voices, dtype=self.dtype_policy)
        self.leave = keras.layers.Dense(channels * num_voices, dtype=self.dtype_policy)
        self.norm = normalisation.GlobalLayerNorm(dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.enter.build(input_shape)
        self.leave.build((None, None, 2 * self.channels * self.num_voices))
        self.norm.build(input_shape)
        self.built = True

    def call(self, inputs: Tensor, valid: Tensor) -> Tensor:
        x = self.leave(ops.glu(self.enter(inputs)))
        frames = ops.shape(x)[1]
        x = ops.reshape(x, (-1, frames, self.num_voices, self.channels))
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, frames, self.channels))
        return self.norm(x, ops.repeat(valid, self.num_voices, axis=0))


class Head(keras.layers.Layer):
    """Maps features to one value per filter of the waveform decoder.

    Args:
        channels: number of feature channels.
        filters: number of filters of the decoder.

    Call arguments:
        inputs: `[row, frame, channel]`.

    Returns:
        `[row, frame, filter]`.
    """

    def __init__(self, channels: int, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.enter = keras.layers.Dense(4 * channels, dtype=self.dtype_policy)
        self.leave = keras.layers.Dense(filters, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.enter.build(input_shape)
        self.leave.build((None, None, 2 * input_shape[-1]))
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self.leave(ops.glu(self.enter(inputs)))
