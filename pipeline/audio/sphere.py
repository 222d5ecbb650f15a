"""Recordings as on TIMIT's disc: NIST SPHERE, a text header of 1,024 bytes, then the samples.

Reading them is `pipeline.audio.decoding`'s.
"""

import numpy as np

_HEADER_BYTES = 1024


def encode(samples: np.ndarray, rate: int, utterance_id: str, database_id: str) -> bytes:
    """A whole file: the header with the fields of TIMIT's, then 16-bit little-endian samples.

    Args:
        samples: int16 `[sample]`, at least one.
        rate: in Hz.
        utterance_id: such as `vmh0_sx116`, ASCII.
        database_id: name of the corpus, ASCII.

    Raises:
        ValueError: samples of another dtype or shape, none, or names that do not fit the header.
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or not samples.size:
        raise ValueError(f"int16 [sample] is needed, not {samples.dtype} {samples.shape}")
    fields: list[tuple[str, str | int]] = [
        ("database_id", database_id),
        ("database_version", "1.0"),
        ("utterance_id", utterance_id),
        ("channel_count", 1),
        ("sample_count", samples.size),
        ("sample_rate", rate),
        ("sample_min", int(samples.min())),
        ("sample_max", int(samples.max())),
        ("sample_n_bytes", 2),
        ("sample_byte_format", "01"),
        ("sample_sig_bits", 16),
    ]
    lines = ["NIST_1A", f"{_HEADER_BYTES:7d}"]
    for name, value in fields:
        kind = "-i" if isinstance(value, int) else f"-s{len(value)}"
        lines.append(f"{name} {kind} {value}")
    header = ("\n".join(lines) + "\nend_head\n").encode("ascii")
    # Line ends, then spaces, as on the disc.
    header = (header + b"\n\n\n\n").ljust(_HEADER_BYTES)
    if len(header) != _HEADER_BYTES:
        raise ValueError(f"{utterance_id!r} and {database_id!r} do not fit a SPHERE header")
    return header + samples.astype("<i2").tobytes()
