"""From waveform to waveforms: what stands around every network, once, for all who use one.

Trainer, SavedModel and evaluator all separate through this layer, so that they cannot disagree.
"""

from typing import Any

import keras
from keras import ops

from models import masks as masks_lib
from models import spectral
from pipeline import schema

Tensor = Any

# Below it, float32 has not all its digits, and one over it no value.
_SILENCE = 1e-35


@keras.saving.register_keras_serializable("voices_apart")
class Separator(keras.Model):
    """A network with its dataset's constants: separates waveforms of any level and length.

    Inside, the mixture is brought to the level that the network was trained at, and the estimates
    back to the mixture's; they add up to the mixture. A whole separator is one `.keras` file.

    Args:
        network: gives masks `[batch, output, frame, bin]` for normalised log-magnitudes
            `[batch, frame, bin]`; one output or one a voice.
        mean: of the train split's log-magnitudes.
        deviation: their standard deviation.
        active_level_db: the train split's mean active level, in dB.
        sample_rate: in Hz.
        num_sources: voices in a mixture.

    Call arguments:
        waveform: `[batch, sample]`, at least one sample, full scale 1.
        gain_db: what the mixture is changed by before the network sees it; by default what brings
            it to `active_level_db`.

    Returns:
        float32 `[batch, source, sample]`.

    Example:
        separator = keras.saving.load_model("runs/lstm/best.keras")
        voices = separator(waveform)
    """

    def __init__(
        self,
        network: keras.Model,
        mean: float,
        deviation: float,
        active_level_db: float,
        sample_rate: int,
        num_sources: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.network = network
        self.mean = float(mean)
        self.deviation = float(deviation)
        self.active_level_db = float(active_level_db)
        self.sample_rate = int(sample_rate)
        self.num_sources = int(num_sources)

    def build(self, input_shape: Any) -> None:
        if not self.network.built:
            self.network.build((None, None, schema.NUM_BINS))
        self.built = True

    def normalise(self, log_magnitude: Tensor) -> Tensor:
        """Log-magnitudes as the network takes them, of the same shape."""
        return (ops.cast(log_magnitude, "float32") - self.mean) / self.deviation

    def masks(self, log_magnitude: Tensor, training: bool | None = None) -> Tensor:
        """The masks of all voices.

        Args:
            log_magnitude: of the mixture, as the record stores it, `[batch, frame, bin]`.
            training: whether dropout and the like are active.

        Returns:
            float32 `[batch, source, frame, bin]`.
        """
        outputs = self.network(self.normalise(log_magnitude), training=training)
        return masks_lib.complete(ops.cast(outputs, "float32"), self.num_sources)

    def gain(self, waveform: Tensor) -> Tensor:
        """The factor that brings each mixture to the trained level; 1 for silence. `[batch]`."""
        peak = ops.max(ops.abs(waveform), axis=-1)
        sounding = peak > _SILENCE
        peak = ops.where(sounding, peak, 1.0)
        # At full scale first: the squares of very small or large samples have no place in float32.
        level = spectral.active_level_db(waveform / peak[:, None])
        change_db = self.active_level_db - ops.where(sounding, level, self.active_level_db)
        return 10 ** (change_db / 20) / peak

    def call(
        self, waveform: Tensor, gain_db: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        waveform = ops.cast(waveform, "float32")
        gain = self.gain(waveform)[:, None] if gain_db is None else 10 ** (gain_db / 20)
        real, imaginary = spectral.stft(waveform * gain)
        masks = self.masks(spectral.log_magnitude(real, imaginary), training=training)
        estimates = spectral.inverse_stft(
            masks * real[:, None], masks * imaginary[:, None], ops.shape(waveform)[-1]
        )
        return masks_lib.make_consistent(estimates / ops.expand_dims(gain, -1), waveform)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "mean": self.mean,
            "deviation": self.deviation,
            "active_level_db": self.active_level_db,
            "sample_rate": self.sample_rate,
            "num_sources": self.num_sources,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Separator":
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})
