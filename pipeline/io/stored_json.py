"""JSON in files that may have been damaged since they were written, by msgspec.

The content of a file is a `Stored`, whose fields declare their types and bounds. Values that do not
fit and unknown fields are refused, with the name of the field. Dataclasses can be used, too, and
ignore unknown fields.
"""

from typing import Annotated, Any, TypeVar

import msgspec

_Kind = TypeVar("_Kind")

# Integers that every JSON reader can represent.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a file, or part of it; `msgspec.structs.replace` returns a changed copy."""


def loads(text: str | bytes, kind: type[_Kind]) -> _Kind:
    """Parses a text.

    Raises:
        ValueError: it is not JSON, or not of this kind; one line names the field.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(_line(error)) from error


def loads_lines(text: bytes, kind: type[_Kind]) -> list[_Kind]:
    """Parses lines of JSON, all of one kind; raises ValueError as `loads` does."""
    try:
        return msgspec.json.Decoder(kind).decode_lines(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(_line(error)) from error


def convert(value: Any, kind: type[_Kind]) -> _Kind:
    """Converts a value that was parsed as `Any`; raises ValueError as `loads` does."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(_line(error)) from error


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Returns the text that `loads` reads, keys sorted, with a newline at its end.

    Args:
        value: a value made of dataclasses, structs, dicts, lists, tuples, text, numbers, None.
        indent: spaces of each level; by default everything is on one line.
    """
    data = msgspec.json.encode(value, order="sorted")
    if indent is not None:
        data = msgspec.json.format(data, indent=indent)
    return data.decode() + "\n"


def _line(error: BaseException) -> str:
    """Rewrites msgspec's message as `split.shards[0].bytes: expected int >= 0`."""
    reason, _, place = str(error).replace("`", "").partition(" - at $")
    if not reason.startswith("JSON"):
        reason = reason[:1].lower() + reason[1:]
    return f"{place.lstrip('.')[:80]}: {reason[:160]}" if place else reason[:160]
