"""What a damaged JSON file may contain, and which of it is refused."""

import json

import msgspec
import pytest

from pipeline.io import stored_json


class Something(stored_json.Stored, frozen=True):
    count: stored_json.Count
    mean: float | None
    names: dict[str, stored_json.Integer]
    parts: tuple[str, ...]


GOOD = Something(3, -1.5, {"a": 1}, ("x",))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '"a"', "[" * 100_000, '{"a": ' + "9" * 5000 + "}", b"\xff", "{}x"],
)
def test_only_an_object_is_read(text):
    with pytest.raises(ValueError, match=r".") as caught:
        stored_json.loads(text, Something)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indent", [None, 2])
def test_what_was_written_is_read(indent):
    text = stored_json.dumps(GOOD, indent=indent)
    assert json.loads(text) == msgspec.structs.asdict(GOOD) | {"parts": ["x"]}
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert stored_json.loads(text, Something) == GOOD
    # Not every language distinguishes 2.0 from 2 in JSON.
    assert stored_json.loads(text.replace("-1.5", "2"), Something).mean == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"count": "3"}, {"count": True}, {"count": 3.5}, {"count": None}, {"count": 2**64},
        {"count": -1}, {"mean": "x"}, {"mean": 10**400},
        {"names": {"a": "b"}}, {"names": [1]}, {"names": {"b": 2**63}},
        {"parts": [1]}, {"parts": "x"}, {"surprise": 1},
    ],
    ids=str,
)  # fmt: skip
def test_others_are_named(change):
    (name,) = change
    text = json.dumps(msgspec.structs.asdict(GOOD) | change)
    with pytest.raises(ValueError, match=name) as caught:
        stored_json.loads(text, Something)
    assert len(str(caught.value)) < 100
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_are_finite(value):
    text = stored_json.dumps(GOOD).replace("-1.5", value)
    with pytest.raises(ValueError, match=r"mean|malformed"):
        stored_json.loads(text, Something)
