"""What other programs are told."""

import json

import pytest

from export.separation import activity, summary


def test_numbers_are_those_of_the_activity(bands):
    turns = (
        activity.Turn(0, 0.0, 3.0, -20.0),
        activity.Turn(1, 2.0, 4.0, -30.0),
        activity.Turn(0, 5.0, 6.0, -26.02),
    )
    found = activity.Activity(turns, 8.0, (4.0, 2.0), 1.0, 3.0)
    told = summary.describe(
        "call.m4a", ["a.wav", "b.wav"], found, bands,
        rate=48000, num_channels=2, notes=["n"], warnings=["w"],
    )  # fmt: skip
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    described = summary.__doc__.replace(",", "").split()
    assert set(told) <= set(described)
    assert (told["seconds"], told["overlap_seconds"], told["silence_seconds"]) == (8.0, 1.0, 3.0)
    assert [voice["share"] for voice in told["voices"]] == [0.5, 0.25]
    # (3 s of 0.01 and 1 s of 0.0025) / 4 s.
    assert told["voices"][0]["level_db"] == pytest.approx(-20.9, abs=0.05)
    assert told["turns"][1] == {"voice": 2, "start": 2.0, "end": 4.0, "level_db": -30.0}
    assert told["voices_heard"] == 2
    assert (told["notes"], told["warnings"]) == (["n"], ["w"])
    assert told["model"] == {
        "name": "stub", "network": "stub", "rate": 8000, "voices": 2, "versions": {},
    }  # fmt: skip
    assert told["versions"]["voices-apart"]


def test_a_voice_that_says_nothing_has_no_level(bands):
    found = activity.Activity((), 8.0, (0.0, 0.0), 0.0, 8.0)
    told = summary.describe("x", ["a", "b"], found, bands, rate=8000, num_channels=1)
    assert [voice["level_db"] for voice in told["voices"]] == [None, None]
    assert told["voices_heard"] == 0
