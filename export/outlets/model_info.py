"""The model info stored with an exported model: `voices_apart.json`."""

import dataclasses
from typing import Annotated, Any

import msgspec

from pipeline import errors, file_names
from pipeline.io import stored_json

FORMAT = 2
# Arrays with at least this many values are stored in fewer bits, if requested. Smaller arrays would
# save nothing, and may be constants that have to be exact.
SMALLEST_WEIGHTS = 1024
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class Tensor(stored_json.Stored, frozen=True):
    """A tensor's shape and the name of its dtype."""

    shape: tuple[int, ...]
    dtype: str


class StreamInfo(stored_json.Stored, frozen=True):
    """What a program needs to know to use the signature `stream`.

    Attributes:
        hop: block size in samples; the signature takes multiples of it.
        delay: lag of the voices behind the waveform, in samples.
        state: the state tensors, which are both inputs and outputs; initially all zeros.
    """

    hop: Positive
    delay: Positive
    state: dict[str, Tensor]


class ModelInfo(stored_json.Stored, frozen=True):
    """What a program needs to know about a model before running it.

    Attributes:
        name: the network's name in `models.registry`.
        sample_rate: in Hz.
        num_sources: number of voices that it separates.
        constants: the separator's constants besides the network (mean and deviation of the
            log-magnitudes, active level in dB).
        network: the network's class and settings, as serialised by Keras.
        num_parameters: number of parameters of the network.
        signatures: the SavedModel's signatures, sorted.
        versions: versions of this package and of the libraries that wrote it.
        stream: for networks that can process a stream; format 1 has none.
        format: version of the file format.
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
        """Serialises the info."""
        return stored_json.dumps(self, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "ModelInfo":
        """Parses the text of the file.

        Raises:
            UserError: the text is damaged, or of a later format.
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
    """The part of the file that is common to all format versions."""

    format: stored_json.Integer
