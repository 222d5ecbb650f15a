"""Who speaks when as RTTM, which programs for diarisation read.

Reference: NIST, "The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan",
appendix A: one line a turn, `SPEAKER file channel start duration <NA> <NA> name <NA> <NA>`.
"""

import re

from export.separation import activity

_SPACE = re.compile(r"[\s\x00-\x1f\x7f]+")


def speaker_name(voice: int) -> str:
    """The name of the voice that is counted from 0."""
    return f"voice{voice + 1}"


def recording_name(name: str) -> str:
    """A recording's name as one field: white space becomes `_`."""
    return _SPACE.sub("_", name.strip()) or "recording"


def text(found: activity.Activity, name: str) -> str:
    """The file.

    Args:
        found: who speaks when.
        name: of the recording, without folder and ending.

    Returns:
        A line for each turn, in the order of their beginnings; times in seconds, to a millisecond.
    """
    recording = recording_name(name)
    lines = []
    for turn in found.turns:
        # The rounded end less the rounded start, so that turns that touch still do.
        start, end = round(turn.start, 3), round(turn.end, 3)
        lines.append(
            f"SPEAKER {recording} 1 {start:.3f} {end - start:.3f} <NA> <NA> "
            f"{speaker_name(turn.speaker)} <NA> <NA>\n"
        )
    return "".join(lines)
