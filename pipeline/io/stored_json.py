"""JSON in files that may have been damaged since they were written."""

import dataclasses
import json
import math
import types
import typing
from typing import Any

_MOST = 2**63


def loads(text: str) -> dict[str, Any]:
    """The object that a text holds.

    Raises:
        ValueError: it is no JSON, or no object.
    """
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError("not JSON that was written here: nested too deeply") from error
    if not isinstance(fields, dict):
        raise ValueError("not JSON that was written here: no object")
    return fields


def check(instance: Any) -> None:
    """Holds each field of a dataclass against the type that it declares.

    Numbers are finite and of at most 63 bits; dataclasses within are checked where they are made.

    Raises:
        ValueError: names the field.
    """
    hints = typing.get_type_hints(type(instance))
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if not _fits(value, hints[field.name]):
            raise ValueError(f"{field.name} is {short(value)}")


def short(value: Any) -> str:
    """A value for a message, however long it is."""
    text = ascii(value) if not isinstance(value, int) or abs(value) < _MOST else "a long number"
    return text if len(text) <= 60 else text[:57] + "..."


def _fits(value: Any, hint: Any) -> bool:
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in value.items()
        )
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, arguments[0]) for item in value)
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return type(value) in kinds and abs(value) < _MOST and math.isfinite(value)
    return isinstance(value, hint)
