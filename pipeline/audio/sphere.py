"""NIST SPHERE, the format of TIMIT's disc: a text header of 1,024 bytes, then the samples.

libsndfile decodes it. It can also write it, but without the fields of TIMIT's header.
"""

import re
from typing import BinaryIO

import numpy as np

from pipeline.audio import limits

_HEADER_BYTES = 1024
# The codings' names, and those that libsndfile knows.
_CODINGS = {
    **dict.fromkeys(("pcm", "linear"), "pcm"),
    **dict.fromkeys(("ulaw", "mu-law", "pculaw"), "ulaw"),
    **dict.fromkeys(("alaw", "a-law", "pcalaw"), "alaw"),
}


def encode(samples: np.ndarray, rate: int, utterance_id: str, database_id: str) -> bytes:
    """Encodes a whole file: a header with TIMIT's fields, then 16-bit little-endian samples.

    Args:
        samples: int16 `[sample]`, at least one.
        rate: sample rate in Hz.
        utterance_id: such as `vmh0_sx116`, ASCII.
        database_id: name of the corpus, ASCII.

    Raises:
        ValueError: the samples are empty or have another dtype or shape, or the names do not fit
            the header.
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
    # Newlines, then spaces, as on the disc.
    header = (header + b"\n\n\n\n").ljust(_HEADER_BYTES)
    if len(header) != _HEADER_BYTES:
        raise ValueError(f"{utterance_id!r} and {database_id!r} do not fit a SPHERE header")
    return header + samples.astype("<i2").tobytes()


def check(file: BinaryIO, size: int) -> dict[int, bytes]:
    """Checks that the header of a SPHERE file is readable and fits what follows.

    libsndfile accepts a header whose length differs from that of the samples, and does not
    understand integers written as reals, some names of codings, and orders of more than two bytes.

    Args:
        file: binary, seekable.
        size: file size in bytes.

    Returns:
        Bytes to read instead of those in the header, by position.

    Raises:
        AudioError: the header is damaged, promises more or less than there is, or names a coding
            that libsndfile does not decode.
    """
    file.seek(0)
    match = re.fullmatch(rb"NIST_1A\n\s*(\d+)\s*\n", file.read(16))
    if match is None:
        raise limits.AudioError("its SPHERE header is damaged")
    header_bytes = int(match[1])
    header, end, _ = file.read(max(min(header_bytes, size) - 16, 0)).partition(b"end_head")
    if not end:
        raise limits.AudioError("cut short within its SPHERE header")
    fields: dict[str, str] = {}
    for line in header.decode("latin-1").split("\n"):
        words = line.split(maxsplit=2)
        if len(words) > 1:
            # If a field occurs twice, libsndfile takes the first.
            fields.setdefault(words[0], words[2].strip() if len(words) > 2 else "")
    coding = fields.get("sample_coding", "pcm").lower()
    if "shorten" in coding or "wavpack" in coding or "shortpack" in coding:
        packer = coding.partition("embedded-")[2] or coding
        raise limits.AudioError(f"compressed with {_short(packer)}; convert it with sph2pipe first")
    if coding not in _CODINGS:
        raise limits.AudioError(
            f"its SPHERE header names a coding {_short(coding)} that is not known"
        )
    count = _number(fields, "sample_count")
    channels = _number(fields, "channel_count", "1")
    width = _number(fields, "sample_n_bytes", "1" if "law" in coding else "2")
    limits.check_rate_and_channels(_number(fields, "sample_rate"), channels)
    if width not in (1, 2, 3, 4):
        raise limits.AudioError(f"its SPHERE header promises samples of {width} bytes")
    order = fields.get("sample_byte_format")
    digits = "0123"[:width]
    known = {"01": "01", digits: "01", "10": "10", digits[::-1]: "10"}
    if width > 1 and order is not None and order not in known:
        raise limits.AudioError(
            f"its SPHERE header names an order of bytes {_short(order)}, not {digits}"
        )
    limits.compare(count * channels * width, size - header_bytes, channels * width)
    lines = {
        found: found[1] + b" -i " + found[2]
        for found in re.finditer(rb"(?m)^(\w+) -r (\d+)\.0*\s*?$", header)
    }
    texts = [("sample_coding", _CODINGS[coding], len(_CODINGS[coding]))]
    if width > 1 and order is not None:
        texts.append(("sample_byte_format", known[order], width))
    for name, text, length in texts:
        if found := re.search(rf"(?m)^{name}[ \t]+-s\d+ .*$".encode(), header):
            lines[found] = f"{name} -s{length} {text}".encode()
    return {
        16 + found.start(): line.ljust(len(found[0]))
        for found, line in lines.items()
        if line != found[0].rstrip()
    }


def _number(fields: dict[str, str], name: str, default: str | None = None) -> int:
    text = fields.get(name, default)
    if text is None:
        raise limits.AudioError(f"its SPHERE header is damaged: it has no {name}")
    # Rates may be written as reals, counts hardly as 1.2e5; 18 digits are more than a disk holds.
    match = re.fullmatch(r"(-?[0-9]{1,18})(\.[0-9]*)?", text)
    if match is None:
        raise limits.AudioError(f"its SPHERE header is damaged: {name} is {_short(text)}")
    return int(match[1])


def _short(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")
