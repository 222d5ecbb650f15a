"""Limits for a recording, and errors for headers that do not fit them or the file."""

from pipeline import errors

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
# Taggers leave a few bytes that no header counts; if there are more, they may be audio.
HARMLESS_REST_BYTES = 4096


class AudioError(errors.UserError):
    """The bytes are not a usable recording; the message says why."""


class MissingDecoderError(errors.UserError):
    """The recording may be good, but its decoder is not installed; the message says which."""


def check_rate_and_channels(rate: int, channels: int) -> None:
    """Raises AudioError if no recording of a voice has this rate or number of channels."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"its header promises {rate} samples a second")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"its header promises {channels} channels")


def compare(promised: int, present: int, unit: int) -> None:
    """Compares the number of bytes that a header promises with the number that follow it.

    Args:
        promised: bytes according to the header.
        present: bytes in the file.
        unit: the smallest number of extra bytes that is an error.

    Raises:
        AudioError: there are fewer bytes, or at least `unit` more.
    """
    if present < promised:
        raise AudioError(
            f"cut short: its header promises {promised} bytes of samples, {max(present, 0)} follow"
        )
    if present >= promised + unit:
        raise AudioError(
            f"its header promises {promised} bytes of samples, but {present} follow it"
        )


def two_recordings(where: int) -> AudioError:
    """Returns the error for a file in which a second recording follows the first."""
    return AudioError(
        f"two recordings in one file: another begins at byte {where}; cut it there into two files"
    )
