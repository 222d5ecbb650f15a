"""Writes who speaks when as RTTM, the file format of diarisation programs.

Reference: NIST, "The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan",
appendix A: one line per turn, `SPEAKER file channel start duration <NA> <NA> name <NA> <NA>`.
"""

import re

from export.separation import activity

_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def speaker_name(voice: int) -> str:
    """Returns the name of a voice, counted from 0."""
    return f"voice{voice + 1}"


def recording_name(name: str) -> str:
    """Returns a recording's name as one field: white space becomes `_`."""
    return _SPACE.sub("_", name.strip()) or "recording"


def text(found: activity.Activity, name: str) -> str:
    """Formats the file.

    Args:
        found: who speaks when.
        name: the recording's name, without folder and suffix.

    Returns:
        One line per turn, sorted by start; times in seconds, rounded to milliseconds.
    """
    recording = recording_name(name)
    lines = []
    for turn in found.turns:
        # The rounded end minus the rounded start, so that adjacent turns stay adjacent.
        start, end = round(turn.start, 3), round(turn.end, 3)
        lines.append(
            f"SPEAKER {recording} 1 {start:.3f} {end - start:.3f} <NA> <NA> "
            f"{speaker_name(turn.speaker)} <NA> <NA>\n"
        )
    return "".join(lines)
