"""What stands beside an exported model: `voices_apart.json`."""

import dataclasses
import json
from typing import Any

from pipeline import errors, file_names

FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor by its shape and the name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class StreamInfo:
    """What a program needs to know to use the signature `stream`.

    Attributes:
        hop: in samples: the signature takes multiples of it.
        delay: in samples, by which its voices lag behind its waveform.
        state: its further inputs, which are also outputs; before the first call all are zeros.
    """

    hop: int
    delay: int
    state: dict[str, Tensor]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "StreamInfo":
        """The info from what JSON has of it."""
        state = {
            name: Tensor(tuple(tensor["shape"]), tensor["dtype"])
            for name, tensor in fields["state"].items()
        }
        info = cls(**{**fields, "state": state})
        for name in ("hop", "delay"):
            value = getattr(info, name)
            if not (isinstance(value, int) and value > 0):
                raise ValueError(f"the stream's {name} is {value!r}")
        return info


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a program needs to know of a model before it runs it.

    Attributes:
        name: of the network, as `models.registry` knows it.
        sample_rate: in Hz.
        num_sources: voices that it gives.
        constants: what the separator holds beside the network (mean and deviation of the
            log-magnitudes, active level in dB).
        network: class and settings, as Keras serialises them.
        num_parameters: of the network.
        signatures: of the SavedModel, sorted.
        versions: of this package and of the libraries that wrote it.
        stream: of a network that can follow a stream; format 1 has none.
        format: of this file.
    """

    name: str
    sample_rate: int
    num_sources: int
    constants: dict[str, float]
    network: dict[str, Any]
    num_parameters: int
    signatures: tuple[str, ...]
    versions: dict[str, str]
    stream: StreamInfo | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "ModelInfo":
        """The info in the text of the file.

        Raises:
            UserError: it is not such a text, or of a later format.
        """
        try:
            fields = json.loads(text)
            if fields["format"] > FORMAT:
                raise errors.UserError(
                    f"{file_names.MODEL_INFO} has format {fields['format']}, this program reads "
                    f"up to {FORMAT}; install a newer voices-apart"
                )
            stream = fields.get("stream")
            info = cls(
                **{
                    **fields,
                    "signatures": tuple(fields["signatures"]),
                    "stream": None if stream is None else StreamInfo.from_fields(stream),
                }
            )
            if not (isinstance(info.sample_rate, int) and info.sample_rate > 0):
                raise ValueError(f"sample_rate is {info.sample_rate!r}")
            if not (isinstance(info.num_sources, int) and info.num_sources > 0):
                raise ValueError(f"num_sources is {info.num_sources!r}")
            return info
        except RecursionError as error:
            raise errors.UserError(
                f"{file_names.MODEL_INFO} is damaged (nested too deeply)"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise errors.UserError(f"{file_names.MODEL_INFO} is damaged ({error})") from error
