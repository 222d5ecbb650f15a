"""What stands beside an exported model: `voices_apart.json`."""

import dataclasses
from typing import Annotated, Any

import msgspec

from pipeline import errors, file_names
from pipeline.io import stored_json

FORMAT = 2
# Values from which on an array is stored in fewer bits, where that is asked for. What is smaller
# saves nothing, and may be a constant that has to be exact.
SMALLEST_WEIGHTS = 1024
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Tensor(stored_json.Stored, frozen=True):
    """A tensor by its shape and the name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


class StreamInfo(stored_json.Stored, frozen=True):
    """What a program needs to know to use the signature `stream`.

    Attributes:
        hop: in samples: the signature takes multiples of it.
        delay: in samples, by which its voices lag behind its waveform.
        state: its further inputs, which are also outputs; before the first call all are zeros.
    """

    hop: Positive
    delay: Positive
    state: dict[str, Tensor]


class ModelInfo(stored_json.Stored, frozen=True):
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
    sample_rate: Positive
    num_sources: Positive
    constants: dict[str, float]
    network: dict[str, Any]
    num_parameters: int
    signatures: tuple[str, ...]
    versions: dict[str, str]
    stream: StreamInfo | None = None
    format: int = FORMAT

    def to_json(self) -> str:
        """The text of the file."""
        return stored_json.dumps(self, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "ModelInfo":
        """The info in the text of the file.

        Raises:
            UserError: it is not such a text, or of a later format.
        """
        try:
            version = stored_json.loads(text, _Format).format
            if version > FORMAT:
                raise errors.UserError(
                    f"{file_names.MODEL_INFO} has format {version}, this program reads up to "
                    f"{FORMAT}; install a newer voices-apart"
                )
            return stored_json.loads(text, cls)
        except ValueError as error:
            raise errors.UserError(f"{file_names.MODEL_INFO} is damaged ({error})") from error


@dataclasses.dataclass(frozen=True)
class _Format:
    """The part of the file that every format has."""

    format: stored_json.Integer
