"""What a recording may be at most, and what is said where a header promises otherwise."""

from pipeline import errors

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
# Taggers leave some bytes behind that no header names; audio that no header names is more.
HARMLESS_REST_BYTES = 4096


class AudioError(errors.UserError):
    """Bytes are not a recording that can be used; the message says why."""


class MissingDecoderError(errors.UserError):
    """A recording may be good, but what decodes it is not installed; the message says what is."""


def check_rate_and_channels(rate: int, channels: int) -> None:
    """Raises AudioError where a header promises what no recording of a voice has."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"its header promises {rate} samples a second")
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(f"its header promises {channels} channels")


def compare(promised: int, present: int, unit: int) -> None:
    """Compares the bytes of samples that a header promises with those that follow it.

    Args:
        promised: bytes by the header.
        present: bytes in the file.
        unit: as many more are too many.

    Raises:
        AudioError: there are fewer, or `unit` more.
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
    """What is said of a file in which another recording begins after the first one's end."""
    return AudioError(
        f"two recordings in one file: another begins at byte {where}; cut it there into two files"
    )
