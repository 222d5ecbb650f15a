"""Band-split RNN: LSTMs over time within each band, and over the bands within each step.

Y. Luo, J. Yu: "Music source separation with band-split RNN", IEEE/ACM Transactions on Audio,
Speech, and Language Processing 31, 2023. The bands share the weights of all LSTMs, so a little
speech teaches much. Input and masks are complex: the real and imaginary parts carry the phase.
"""

from typing import Any

import keras
from keras import ops

from models import spectral, tcn
from models.layers import fused_convolution, fused_lstm, normalisation
from pipeline import schema

Tensor = Any

# The bands from low to high: how many, and the bins of each. They grow wider upwards, as the bands
# of hearing do. They cover 132 bins, of which the last three are padding.
BANDS = ((12, 3), (6, 6), (6, 10))
_GROUP_ENDS = [sum(count for count, _ in BANDS[: k + 1]) for k in range(len(BANDS) - 1)]
_BIN_ENDS = [sum(count * width for count, width in BANDS[: k + 1]) for k in range(len(BANDS) - 1)]
# Mean and standard deviation of the log-magnitudes of speech at the level that networks are trained
# at. They need not be those of the dataset: the layers that follow learn to scale.
_MEAN, _DEVIATION = -3.43, 0.846
# Magnitudes are raised to this power in the real and imaginary parts of the input.
_POWER = 0.3
_GAIN = 6.0


@keras.saving.register_keras_serializable("voices_apart")
class BandSplit(keras.Model):
    """Maps the mixture's spectrogram to complex masks of the voices.

    Args:
        num_outputs: number of voices.
        channels: channels of each band.
        units: units of each direction of the LSTMs over time.
        band_units: units of each direction of the LSTMs over bands.
        num_layers: number of pairs of an LSTM over time and one over bands, both bidirectional.
        stack: number of neighbouring frames in one step.
        guide: whether a `tcn` (`models.tcn`) estimates masks first, which are further features of
            the input. `--init_from` takes a trained one.
        guide_repeats: `repeats` of the guide.
        train_guide: whether the guide learns as well.

    Call arguments:
        waveform: `[batch, sample]`, of any length, at the level of the train split. Trailing zeros
            of a row are taken for padding: outside training, the amount of padding does not change
            the output before it.
        training: whether the layers are in training mode.

    Returns:
        float32 `[batch, output, sample]`.

    Example:
        voices = BandSplit(num_outputs=2)(np.zeros((1, 32000), "float32"))
    """

    takes = "waveform"

    def __init__(
        self,
        num_outputs: int = 2,
        channels: int = 64,
        units: int = 64,
        band_units: int = 32,
        num_layers: int = 3,
        stack: int = 2,
        guide: bool = False,
        guide_repeats: int = 2,
        train_guide: bool = True,
        **kwargs: Any,
    ) -> None:
        # The waveform keeps its precision.
        super().__init__(**{"autocast": False, **kwargs})
        self.num_outputs = num_outputs
        self.channels = channels
        self.units = units
        self.band_units = band_units
        self.num_layers = num_layers
        self.stack = stack
        self.num_bands = sum(count for count, _ in BANDS)
        self.num_bins = sum(count * width for count, width in BANDS)
        self.train_guide = train_guide
        policy = self.dtype_policy
        self.guide_repeats = guide_repeats
        self.guide = None
        if guide:
            self.guide = tcn.TemporalConvolution(num_outputs, repeats=guide_repeats, dtype=policy)
        if self.guide and not train_guide:
            self.guide.trainable = False
        self.entries = [
            BandDense(count, channels, dtype=policy, name=f"entry_{i}")
            for i, (count, _) in enumerate(BANDS)
        ]
        self.over_time = [
            Path(channels, units, dtype=policy, name=f"time_{i}") for i in range(num_layers)
        ]
        self.over_bands = [
            Path(channels, band_units, dtype=policy, name=f"bands_{i}") for i in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(dtype="float32", name="norm")
        self.hidden = [
            BandDense(count, 2 * channels, "silu", dtype=policy, name=f"hidden_{i}")
            for i, (count, _) in enumerate(BANDS)
        ]
        self.masks = [
            BandDense(count, width * stack * num_outputs * 2, dtype=policy, name=f"mask_{i}")
            for i, (count, width) in enumerate(BANDS)
        ]

    def build(self, input_shape: Any) -> None:
        features = self.stack * (3 + (self.num_outputs if self.guide else 0))
        for (_, width), entry, hidden, mask in zip(
            BANDS, self.entries, self.hidden, self.masks, strict=True
        ):
            entry.build((None, None, width * features))
            hidden.build((None, None, self.channels))
            mask.build((None, None, 2 * self.channels))
        for path in (*self.over_time, *self.over_bands):
            path.build((None, None, self.channels))
        self.norm.build((None, None, self.channels))
        if self.guide:
            self.guide.build((None, None, schema.NUM_BINS))
        self.built = True

    def call(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        waveform = ops.cast(waveform, "float32")
        # With a few more frames, so that the last step is whole.
        more = (self.stack - 1) * schema.HOP
        real, imaginary = spectral.stft(ops.pad(waveform, [(0, 0), (0, more)]))
        batch, frames = ops.shape(real)[0], ops.shape(real)[1] - (self.stack - 1)
        steps = (frames + self.stack - 1) // self.stack
        real, imaginary = (_first(part, steps * self.stack) for part in (real, imaginary))
        length = None
        if not training:
            # The steps without the padding. Few training examples are padded.
            sounding = normalisation.sounding_samples(waveform)
            length = (sounding + schema.HOP - 1) // schema.HOP + 1
            length = ops.minimum((length + self.stack - 1) // self.stack, steps)
            length = ops.tile(length, (self.num_bands, 1))
        x = self._enter(real, imaginary, steps, training)
        for over_time, over_bands in zip(self.over_time, self.over_bands, strict=True):
            # [band, batch, step, channel] to [step, band · batch, channel], and back.
            x = ops.transpose(x, (2, 0, 1, 3))
            x = ops.reshape(x, (steps, self.num_bands * batch, self.channels))
            x = over_time(x, length, training=training)
            x = ops.reshape(x, (steps, self.num_bands, batch, self.channels))
            x = ops.transpose(x, (1, 2, 0, 3))
            x = ops.reshape(x, (self.num_bands, batch * steps, self.channels))
            x = over_bands(x, training=training)
            x = ops.reshape(x, (self.num_bands, batch, steps, self.channels))
        masks = ops.slice(
            self._masks(x), (0, 0, 0, 0), (batch, 2 * self.num_outputs, frames, schema.NUM_BINS)
        )
        mask_real, mask_imaginary = ops.split(masks, 2, axis=1)
        real, imaginary = (_first(part, frames)[:, None] for part in (real, imaginary))
        return spectral.inverse_stft(
            mask_real * real - mask_imaginary * imaginary,
            mask_real * imaginary + mask_imaginary * real,
            ops.shape(waveform)[-1],
        )

    def _enter(self, real: Tensor, imaginary: Tensor, steps: Any, training: bool | None) -> Tensor:
        """Maps spectrograms `[batch, frame, bin]` to `[band, batch, step, channel]`."""
        batch = ops.shape(real)[0]
        # The last band needs more bins.
        more = (0, 0), (0, self.num_bins - schema.NUM_BINS)
        guess = None
        if self.guide:
            log_magnitude = (spectral.log_magnitude(real, imaginary) - _MEAN) / _DEVIATION
            guess = ops.cast(self.guide(log_magnitude, training=training), "float32")
            guess = ops.pad(guess, [(0, 0), (0, 0), *more])
        real, imaginary = (ops.pad(part, [(0, 0), *more]) for part in (real, imaginary))
        log_magnitude = (spectral.log_magnitude(real, imaginary) - _MEAN) / _DEVIATION
        scale = _GAIN * ops.power(spectral.magnitude(real, imaginary), _POWER - 1)
        x = ops.stack([log_magnitude, real * scale, imaginary * scale], axis=1)
        if guess is not None:
            x = ops.concatenate([x, guess], axis=1)
        # A frame of a feature is a feature of the step: [batch · step, feature, bin].
        features = x.shape[1]
        x = ops.reshape(x, (batch, features, steps, self.stack, self.num_bins))
        x = ops.transpose(x, (0, 2, 1, 3, 4))
        x = ops.reshape(x, (batch * steps, features * self.stack, self.num_bins))
        found = []
        groups = ops.split(x, _BIN_ENDS, axis=-1)
        for (count, width), entry, part in zip(BANDS, self.entries, groups, strict=True):
            part = ops.reshape(part, (batch * steps, features * self.stack, count, width))
            part = ops.transpose(part, (2, 0, 1, 3))
            part = ops.reshape(part, (count, batch * steps, features * self.stack * width))
            found.append(entry(ops.cast(part, self.compute_dtype)))
        x = ops.concatenate(found, axis=0)
        return ops.reshape(x, (self.num_bands, batch, steps, self.channels))

    def _masks(self, x: Tensor) -> Tensor:
        """Maps `[band, batch, step, channel]` to masks `[batch, part · output, frame, bin]`.

        The parts are the real and the imaginary one.
        """
        batch, steps = ops.shape(x)[1:3]
        x = ops.reshape(x, (self.num_bands, batch * steps, self.channels))
        x = ops.cast(self.norm(x), self.compute_dtype)
        outputs = 2 * self.num_outputs
        found = []
        groups = ops.split(x, _GROUP_ENDS, axis=0)
        for (count, width), hidden, mask, group in zip(
            BANDS, self.hidden, self.masks, groups, strict=True
        ):
            part = mask(hidden(group))
            part = ops.reshape(part, (count, batch * steps, outputs * self.stack, width))
            part = ops.transpose(part, (1, 2, 0, 3))
            found.append(ops.reshape(part, (batch * steps, outputs * self.stack, count * width)))
        bins = found[-1].shape[-1] - (self.num_bins - schema.NUM_BINS)
        found[-1], _ = ops.split(found[-1], [bins], axis=-1)
        x = ops.concatenate(found, axis=-1)
        x = ops.reshape(x, (batch, steps, outputs, self.stack, schema.NUM_BINS))
        x = ops.transpose(ops.cast(x, "float32"), (0, 2, 1, 3, 4))
        return ops.reshape(x, (batch, outputs, steps * self.stack, schema.NUM_BINS))

    def get_config(self) -> dict[str, Any]:
        names = (
            "num_outputs",
            "channels",
            "units",
            "band_units",
            "num_layers",
            "stack",
            "guide_repeats",
            "train_guide",
        )
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "guide": self.guide is not None}


@keras.saving.register_keras_serializable("voices_apart")
class BandDense(keras.layers.Layer):
    """A dense layer with its own weights for each band.

    Args:
        num_bands: number of bands.
        units: outputs of each band.
        activation: name of the activation.

    Call arguments:
        inputs: `[band, row, feature]`.

    Returns:
        `[band, row, unit]`.
    """

    def __init__(
        self, num_bands: int, units: int, activation: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_bands = num_bands
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        bound = (3 / input_shape[-1]) ** 0.5
        self.kernel = self.add_weight(
            shape=(self.num_bands, input_shape[-1], self.units),
            initializer=keras.initializers.RandomUniform(-bound, bound),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.num_bands, 1, self.units), initializer="zeros", name="bias"
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return self.activation(ops.matmul(inputs, self.kernel) + self.bias)


@keras.saving.register_keras_serializable("voices_apart")
class Path(keras.layers.Layer):
    """Norm, an LSTM in both directions, a dense layer, and the residual connection.

    Args:
        channels: channels of input and output.
        units: units of each direction.

    Call arguments:
        inputs: `[position, row, channel]`.
        length: number of valid positions of each row, int32 `[row, 1]`; by default all are valid.

    Returns:
        The same shape.
    """

    def __init__(self, channels: int, units: int, **kwargs: Any) -> None:
        # The fused operations take weights in float32.
        super().__init__(**{"autocast": False, **kwargs})
        self.channels = channels
        self.units = units
        self.norm = keras.layers.LayerNormalization(dtype="float32")
        self.ahead = fused_lstm.LSTM(units, return_sequences=True, dtype="float32")
        self.back = fused_lstm.LSTM(units, return_sequences=True, dtype="float32")
        self.ahead.alone = self.back.alone = False
        self.merge = keras.layers.Dense(
            channels, kernel_initializer="zeros", dtype=self.dtype_policy
        )

    def build(self, input_shape: Any) -> None:
        self.norm.build((None, None, self.channels))
        self.ahead.build((None, None, self.channels))
        self.back.build((None, None, self.channels))
        self.merge.build((None, None, 2 * self.units))
        self.built = True

    def call(
        self, inputs: Tensor, length: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        # The LSTMs are in float32 whatever the precision of the other layers.
        x = ops.cast(inputs, "float32")
        if self.ahead.fused and training:
            x = fused_convolution.normalise(x)
        else:
            x = x - ops.mean(x, axis=-1, keepdims=True)
            variance = ops.mean(ops.square(x), axis=-1, keepdims=True)
            x = x * ops.rsqrt(variance + self.norm.epsilon)
        # The fused operations fold them into their weights.
        gain, shift = self.norm.gamma, self.norm.beta
        y = self.ahead.over_positions(x, gain, shift, training=training)
        z = self.back.over_positions(_turned(x, length), gain, shift, training=training)
        return inputs + self.merge(ops.concatenate([y, _turned(z, length)], axis=-1))


def _first(x: Tensor, frames: Any) -> Tensor:
    """Returns the first frames of `[batch, frame, bin]`.

    As for all large slices here, `ops.slice` and `ops.split` take far less time in LiteRT than
    indexing.
    """
    return ops.slice(x, (0, 0, 0), (ops.shape(x)[0], frames, x.shape[2]))


def _turned(x: Tensor, length: Tensor | None) -> Tensor:
    """Reverses the valid positions of `[position, row, channel]`; applied twice, it restores them.

    Padding stays in place, so that it comes last in either direction.
    """
    if length is None:
        return ops.flip(x, 0)
    positions, rows = ops.shape(x)[:2]
    numbers = ops.arange(positions, dtype="int32")[:, None]
    length = ops.transpose(ops.cast(length, "int32"))
    numbers = ops.where(numbers < length, length - 1 - numbers, numbers)
    numbers = numbers * rows + ops.arange(rows, dtype="int32")
    taken = ops.take(ops.reshape(x, (positions * rows, x.shape[-1])), numbers, axis=0)
    return ops.reshape(taken, (positions, rows, x.shape[-1]))
