"""What a damaged JSON file may hold, and what of it is refused."""

import dataclasses

import pytest

from pipeline.io import stored_json


@dataclasses.dataclass(frozen=True)
class Something:
    count: int
    mean: float | None
    names: dict[str, int]
    parts: tuple[str, ...]


GOOD = Something(3, -1.5, {"a": 1}, ("x",))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"a"', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_only_an_object_is_read(text):
    with pytest.raises(ValueError, match=r".") as caught:
        stored_json.loads(text)
    assert len(str(caught.value)) < 300


def test_what_was_written_is_read():
    assert stored_json.loads('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_values_of_the_declared_types_pass():
    stored_json.check(GOOD)
    stored_json.check(dataclasses.replace(GOOD, mean=None, names={}, parts=()))
    # JSON does not tell 2.0 from 2 in every language.
    stored_json.check(dataclasses.replace(GOOD, mean=2))


@pytest.mark.parametrize(
    "change",
    [
        {"count": "3"}, {"count": True}, {"count": 3.0}, {"count": None}, {"count": 2**64},
        {"mean": float("nan")}, {"mean": float("inf")}, {"mean": "x"}, {"mean": 10**400},
        {"names": {"a": "b"}}, {"names": [1]}, {"names": {1: 1}},
        {"parts": ["x"]}, {"parts": (1,)}, {"parts": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_others_are_named(change):
    (name,) = change
    with pytest.raises(ValueError, match=name) as caught:
        stored_json.check(dataclasses.replace(GOOD, **change))
    assert len(str(caught.value)) < 100
