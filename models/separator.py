"""Separators: a network plus the signal processing that turns a waveform into waveforms.

Trainer, SavedModel and evaluator all separate through these classes, so their results agree.
`wrap` chooses the class from the network's class attribute `takes`.
"""

from typing import Any

import keras
from keras import ops

from models import masks as masks_lib
from models import spectral
from pipeline import schema

Tensor = Any

# The values of a network's class attribute `takes`.
LOG_MAGNITUDE = "log_magnitude"
WAVEFORM = "waveform"

# Below this peak, float32 values lose digits and their reciprocal overflows.
_SILENCE = 1e-35


def wrap(
    network: keras.Model,
    *,
    mean: float,
    deviation: float,
    active_level_db: float,
    sample_rate: int,
    num_sources: int,
) -> "BaseSeparator":
    """Returns the separator that fits a network, not yet built.

    Args:
        network: network from the registry, or any whose class has the attribute `takes`.
        mean: mean of the train split's log-magnitudes; used only by networks that give masks.
        deviation: standard deviation of the train split's log-magnitudes.
        active_level_db: mean active level of the train split, in dB.
        sample_rate: sample rate, in Hz.
        num_sources: number of voices in a mixture.

    Raises:
        ValueError: `takes` has an unknown value.
    """
    common: dict[str, Any] = {
        "active_level_db": active_level_db,
        "sample_rate": sample_rate,
        "num_sources": num_sources,
    }
    if network.takes == LOG_MAGNITUDE:
        return Separator(network, mean=mean, deviation=deviation, **common)
    if network.takes == WAVEFORM:
        return WaveformSeparator(network, **common)
    raise ValueError(
        f"{type(network).__name__}.takes is {network.takes!r}, neither {LOG_MAGNITUDE!r} nor "
        f"{WAVEFORM!r}"
    )


class BaseSeparator(keras.Model):
    """A network with the constants of its dataset: separates waveforms of any level and length.

    The mixture is scaled to the level that the network was trained at, and the estimates are scaled
    back. The estimates add up to the mixture. A separator is saved as one `.keras` file.
    Subclasses call the network in `estimate`.

    Args:
        network: the separation network.
        active_level_db: mean active level of the train split, in dB.
        sample_rate: sample rate, in Hz.
        num_sources: number of voices in a mixture.

    Call arguments:
        waveform: `[batch, sample]`, at least one sample, full scale 1.
        gain_db: gain applied to the mixture before the network, in dB; by default the gain that
            brings it to `active_level_db`.
        training: whether layers such as dropout are in training mode.

    Returns:
        float32 `[batch, source, sample]`.

    Example:
        separator = keras.saving.load_model("runs/lstm/best.keras")
        voices = separator(waveform)
    """

    def __init__(
        self,
        network: keras.Model,
        active_level_db: float,
        sample_rate: int,
        num_sources: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.network = network
        self.active_level_db = float(active_level_db)
        self.sample_rate = int(sample_rate)
        self.num_sources = int(num_sources)

    def gain(self, waveform: Tensor) -> Tensor:
        """Returns the gain to the trained level for each mixture, `[batch]`; 1 for silence."""
        peak = ops.max(ops.abs(waveform), axis=-1)
        sounding = peak > _SILENCE
        peak = ops.where(sounding, peak, 1.0)
        # Scale to full scale first: the squares of extreme samples would overflow or underflow.
        level = spectral.active_level_db(waveform / peak[:, None])
        change_db = self.active_level_db - ops.where(sounding, level, self.active_level_db)
        return 10 ** (change_db / 20) / peak

    def estimate(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        """Returns the voices as estimated by the network.

        Args:
            waveform: mixture at the trained level, float32 `[batch, sample]`.
            training: whether layers such as dropout are in training mode.

        Returns:
            float32 `[batch, source, sample]`, which need not add up to the mixture.
        """
        raise NotImplementedError

    def call(
        self, waveform: Tensor, gain_db: Tensor | None = None, training: bool | None = None
    ) -> Tensor:
        waveform = ops.cast(waveform, "float32")
        gain = self._gain(waveform, gain_db)
        estimates = self.estimate(waveform * gain, training=training)
        return masks_lib.make_consistent(estimates / ops.expand_dims(gain, -1), waveform)

    def _gain(self, waveform: Tensor, gain_db: Tensor | None = None) -> Tensor:
        return self.gain(waveform)[:, None] if gain_db is None else 10 ** (gain_db / 20)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "active_level_db": self.active_level_db,
            "sample_rate": self.sample_rate,
            "num_sources": self.num_sources,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BaseSeparator":
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**{**config, "network": network})


@keras.saving.register_keras_serializable("voices_apart")
class Separator(BaseSeparator):
    """Separator for a network that gives masks for log-magnitudes; see `BaseSeparator`.

    Args:
        network: gives masks `[batch, output, frame, bin]` for normalised log-magnitudes
            `[batch, frame, bin]`, with one output or one per voice.
        mean: mean of the train split's log-magnitudes.
        deviation: standard deviation of the train split's log-magnitudes.
        active_level_db: mean active level of the train split, in dB.
        sample_rate: sample rate, in Hz.
        num_sources: number of voices in a mixture.
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
        super().__init__(network, active_level_db, sample_rate, num_sources, **kwargs)
        self.mean = float(mean)
        self.deviation = float(deviation)

    def build(self, input_shape: Any) -> None:
        if not self.network.built:
            self.network.build((None, None, schema.NUM_BINS))
        self.built = True

    def normalise(self, log_magnitude: Tensor) -> Tensor:
        """Returns log-magnitudes normalised for the network, of the same shape."""
        return (ops.cast(log_magnitude, "float32") - self.mean) / self.deviation

    def masks(self, log_magnitude: Tensor, training: bool | None = None) -> Tensor:
        """Returns the masks of all voices.

        Args:
            log_magnitude: log-magnitudes of the mixture, as in the record, `[batch, frame, bin]`.
            training: whether layers such as dropout are in training mode.

        Returns:
            float32 `[batch, source, frame, bin]`.
        """
        outputs = self.network(self.normalise(log_magnitude), training=training)
        return masks_lib.complete(ops.cast(outputs, "float32"), self.num_sources)

    def estimate(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        real, imaginary = spectral.stft(waveform)
        masks = self.masks(spectral.log_magnitude(real, imaginary), training=training)
        return spectral.inverse_stft(
            masks * real[:, None], masks * imaginary[:, None], ops.shape(waveform)[-1]
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "deviation": self.deviation}


@keras.saving.register_keras_serializable("voices_apart")
class WaveformSeparator(BaseSeparator):
    """Separator for a network that maps a waveform to waveforms; see `BaseSeparator`.

    Args:
        network: gives `[batch, output, sample]` for `[batch, sample]`, one output per voice.
        active_level_db: mean active level of the train split, in dB.
        sample_rate: sample rate, in Hz.
        num_sources: number of voices in a mixture.

    Raises:
        ValueError: the network has a different number of outputs.
    """

    def __init__(
        self,
        network: keras.Model,
        active_level_db: float,
        sample_rate: int,
        num_sources: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, active_level_db, sample_rate, num_sources, **kwargs)
        outputs = getattr(network, "num_outputs", num_sources)
        if outputs != num_sources:
            raise ValueError(f"the network gives {outputs} voices, not {num_sources}")

    def build(self, input_shape: Any) -> None:
        if not self.network.built:
            self.network.build((None, None))
        self.built = True

    def estimate(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        estimates = ops.cast(self.network(waveform, training=training), "float32")
        # A network with biases gives non-zero output for silence.
        sounding = ops.any(waveform != 0, axis=-1)
        return estimates * ops.cast(sounding, "float32")[:, None, None]

    def with_auxiliary(
        self, waveform: Tensor, training: bool | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns the voices and the network's auxiliary estimates, for the training loss.

        Args:
            waveform: `[batch, sample]`.
            training: whether layers such as dropout are in training mode.

        Returns:
            The result of a call, and the list of auxiliary estimates from the network's own
            `with_auxiliary`: tensors of the same shape and level, which need not add up to the
            mixture. The list is empty if the network has no such method.
        """
        if not hasattr(self.network, "with_auxiliary"):
            return self(waveform, training=training), []
        waveform = ops.cast(waveform, "float32")
        gain = self._gain(waveform)
        found, others = self.network.with_auxiliary(waveform * gain, training=training)
        estimates, *others = (ops.cast(e, "float32") / gain[..., None] for e in (found, *others))
        return masks_lib.make_consistent(estimates, waveform), others
