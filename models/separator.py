"""From waveform to waveforms: what stands around every network, once, for all who use one.

Trainer, SavedModel and evaluator all separate through these, so that they cannot disagree.
`wrap` puts the right one around a network, by what the network's class says that it `takes`.
"""

from typing import Any

import keras
from keras import ops

from models import masks as masks_lib
from models import spectral
from pipeline import schema

Tensor = Any

# What networks can take: the values of their class attribute `takes`.
LOG_MAGNITUDE = "log_magnitude"
WAVEFORM = "waveform"

# Below it, float32 has not all its digits, and one over it no value.
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
    """The separator that fits a network, not yet built.

    Args:
        network: of the registry, or another whose class has the attribute `takes`.
        mean: of the train split's log-magnitudes; only a network of masks needs it.
        deviation: their standard deviation, likewise.
        active_level_db: the train split's mean active level, in dB.
        sample_rate: in Hz.
        num_sources: voices in a mixture.

    Raises:
        ValueError: the class says that it takes something else.
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
    """A network with its dataset's constants: separates waveforms of any level and length.

    Inside, the mixture is brought to the level that the network was trained at, and the estimates
    back to the mixture's; they add up to the mixture. A whole separator is one `.keras` file.
    A subclass says in `estimate` how the network is asked.

    Args:
        network: what separates.
        active_level_db: the train split's mean active level, in dB.
        sample_rate: in Hz.
        num_sources: voices in a mixture.

    Call arguments:
        waveform: `[batch, sample]`, at least one sample, full scale 1.
        gain_db: what the mixture is changed by before the network sees it; by default what brings
            it to `active_level_db`.
        training: whether dropout and the like are active.

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
        """The factor that brings each mixture to the trained level; 1 for silence. `[batch]`."""
        peak = ops.max(ops.abs(waveform), axis=-1)
        sounding = peak > _SILENCE
        peak = ops.where(sounding, peak, 1.0)
        # At full scale first: the squares of very small or large samples have no place in float32.
        level = spectral.active_level_db(waveform / peak[:, None])
        change_db = self.active_level_db - ops.where(sounding, level, self.active_level_db)
        return 10 ** (change_db / 20) / peak

    def estimate(self, waveform: Tensor, training: bool | None = None) -> Tensor:
        """The voices as the network gives them.

        Args:
            waveform: at the trained level, float32 `[batch, sample]`.
            training: whether dropout and the like are active.

        Returns:
            float32 `[batch, source, sample]`, which need not add up.
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
    """Around a network that gives masks for log-magnitudes; see `BaseSeparator`.

    Args:
        network: gives masks `[batch, output, frame, bin]` for normalised log-magnitudes
            `[batch, frame, bin]`; one output or one a voice.
        mean: of the train split's log-magnitudes.
        deviation: their standard deviation.
        active_level_db: the train split's mean active level, in dB.
        sample_rate: in Hz.
        num_sources: voices in a mixture.
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
    """Around a network that gives waveforms for a waveform; see `BaseSeparator`.

    Args:
        network: gives `[batch, output, sample]` for `[batch, sample]`; one output a voice.
        active_level_db: the train split's mean active level, in dB.
        sample_rate: in Hz.
        num_sources: voices in a mixture.

    Raises:
        ValueError: the network gives another number of voices.
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
        # A network with biases makes something of nothing.
        sounding = ops.any(waveform != 0, axis=-1)
        return estimates * ops.cast(sounding, "float32")[:, None, None]

    def with_auxiliary(
        self, waveform: Tensor, training: bool | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The voices, and those that a network also gives on its way, for the loss in training.

        Args:
            waveform: `[batch, sample]`.
            training: whether dropout and the like are active.

        Returns:
            What a call gives, and a list of as many tensors of the same shape and level, which
            need not add up, as the network's own `with_auxiliary` gives; none if it has no such
            method.
        """
        if not hasattr(self.network, "with_auxiliary"):
            return self(waveform, training=training), []
        waveform = ops.cast(waveform, "float32")
        gain = self._gain(waveform)
        found, others = self.network.with_auxiliary(waveform * gain, training=training)
        estimates, *others = (ops.cast(e, "float32") / gain[..., None] for e in (found, *others))
        return masks_lib.make_consistent(estimates, waveform), others
