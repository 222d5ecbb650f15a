"""FLAC's header: the number of samples and their checksum (RFC 9639)."""

import hashlib

import numpy as np

from pipeline.audio import limits

HEADER_BYTES = 42
# The field with the number of samples, preceded by rate, channels and width.
_FIELDS = slice(18, 26)


def num_samples(header: bytes) -> int | None:
    """Returns the samples per channel according to the header; None if it does not say."""
    return int.from_bytes(header[_FIELDS], "big") & (2**36 - 1) or None


def without_length(header: bytes) -> dict[int, bytes]:
    """Returns patches that blank the length in the header, so that decoders go on to the end."""
    fields = int.from_bytes(header[_FIELDS], "big") >> 36 << 36
    return {_FIELDS.start: fields.to_bytes(8, "big")}


class Checksum:
    """Compares decoded samples with the MD5 in a FLAC file's header."""

    def __init__(self, head: bytes) -> None:
        """Reads the file's first `HEADER_BYTES`."""
        fields = int.from_bytes(head[18:26], "big")
        self._bits = (fields >> 36 & 31) + 1
        self._promised = head[26:HEADER_BYTES]
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def known(self) -> bool:
        """Whether there is a checksum, and samples decode to whole bytes."""
        return any(self._promised) and self._bits in (8, 16, 24)

    def update(self, samples: np.ndarray) -> None:
        """Adds the next decoded samples, float32 `[sample, channel]`."""
        # Exact in float32: at most 24 bits, scaled by a power of two.
        values = samples * np.float32(2 ** (self._bits - 1))
        if self._bits == 24:
            whole = values.astype("<i4")[..., np.newaxis]
            self._md5.update(whole.view(np.uint8)[..., :3].tobytes())
        else:
            self._md5.update(values.astype(f"<i{self._bits // 8}").tobytes())

    def check(self) -> None:
        """Compares the checksums after all samples have been decoded.

        Raises:
            AudioError: the samples are not those that were encoded.
        """
        if self._md5.digest() != self._promised:
            raise limits.AudioError(
                "damaged or cut: the samples do not fit the checksum in its header"
            )
