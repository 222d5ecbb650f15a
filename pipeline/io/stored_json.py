"""JSON in files that may have been damaged since they were written, by msgspec.

What a file holds is a `Stored`, whose fields declare their types and bounds; whatever does not fit
them, and what they do not know, is refused with the name of the field. Dataclasses serve as well,
and pass over what they do not know.
"""

from typing import Annotated, Any, TypeVar

import msgspec

_Kind = TypeVar("_Kind")

# Numbers that every reader of JSON can hold.
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds, or a part of it; `msgspec.structs.replace` gives a changed copy."""


def loads(text: str | bytes, kind: type[_Kind]) -> _Kind:
    """What a text holds.

    Raises:
        ValueError: it is no JSON, or not of this kind; one line names the field.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise ValueError(_line(error)) from error


def convert(value: Any, kind: type[_Kind]) -> _Kind:
    """What has been read as `Any` before, likewise."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(_line(error)) from error


def dumps(value: Any, *, indent: int | None = None) -> str:
    """The text that `loads` reads, keys sorted, with a newline at its end.

    Args:
        value: of dataclasses, structs, dicts, lists, tuples, text, numbers, None.
        indent: spaces of each level; by default all is one line.
    """
    data = msgspec.json.encode(value, order="sorted")
    if indent is not None:
        data = msgspec.json.format(data, indent=indent)
    return data.decode() + "\n"


def _line(error: BaseException) -> str:
    """`split.shards[0].bytes: expected int >= 0`, of what msgspec says."""
    reason, _, place = str(error).replace("`", "").partition(" - at $")
    reason = reason[:1].lower() + reason[1:160]
    return f"{place.lstrip('.')[:80]}: {reason}" if place else reason
