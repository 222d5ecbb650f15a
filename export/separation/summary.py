"""The machine-readable summary of a separated recording: one JSON object.

format            1
recording         name of the recording
seconds, rate, channels
mode              `mix`, or `separate` if there is one speaker per channel
voices            for each: voice (from 1), file, speech_seconds, share (of the recording's time),
                  level_db (while it speaks; 0 dB is a mean square of 1; null if it never speaks)
turns             for each: voice, start, end (in seconds), level_db
voices_heard      number of voices that speak at all
overlap_seconds   time in which two or more voices speak
silence_seconds   time in which nobody speaks
notes             what the user has to know about the result
warnings          what the user has to know about how the recording was read
model             name, network, rate, voices, versions (with which it was written)
versions          versions of the software that separated
"""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from export.separation import activity, loading
from pipeline import file_names, version

FORMAT = 1


def describe(
    recording: str,
    files: Sequence[str | os.PathLike[str]],
    found: activity.Activity,
    model: loading.LoadedModel,
    *,
    rate: int,
    num_channels: int,
    mode: str = "mix",
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds the summary.

    Args:
        recording: the recording's name.
        files: the voices' file names.
        found: who speaks when.
        model: the model that separated.
        rate: the recording's rate in Hz.
        num_channels: the recording's number of channels.
        mode: as in `export.conversations.file_separation.Separated`.
        notes: notes on the result.
        warnings: notes on how the recording was read.

    Returns:
        A dict for `json.dumps`.
    """
    return {
        "format": FORMAT,
        "recording": recording,
        "seconds": _seconds(found.seconds),
        "rate": rate,
        "channels": num_channels,
        "mode": mode,
        "voices": [
            {
                "voice": index + 1,
                "file": os.fspath(file),
                "speech_seconds": _seconds(found.speech[index]),
                "share": round(found.share[index], 4),
                "level_db": _level(found, index),
            }
            for index, file in enumerate(files)
        ],
        "turns": [
            {
                "voice": turn.speaker + 1,
                "start": _seconds(turn.start),
                "end": _seconds(turn.end),
                "level_db": round(turn.level_db, 1),
            }
            for turn in found.turns
        ],
        "voices_heard": found.num_voices,
        "overlap_seconds": _seconds(found.overlap),
        "silence_seconds": _seconds(found.silence),
        "notes": list(notes),
        "warnings": list(warnings),
        "model": {
            "name": _model_name(model),
            "network": model.info.name,
            "rate": model.sample_rate,
            "voices": model.num_sources,
            "versions": model.info.versions,
        },
        "versions": version.versions(),
    }


def _seconds(value: float) -> float:
    return round(value, 3)


def _level(found: activity.Activity, voice: int) -> float | None:
    """Computes the mean power of a voice over its turns, in dB; None if it has none."""
    own = [turn for turn in found.turns if turn.speaker == voice]
    energy = sum(10 ** (turn.level_db / 10) * (turn.end - turn.start) for turn in own)
    if not energy:
        return None
    return round(10 * math.log10(energy / sum(turn.end - turn.start for turn in own)), 1)


def _model_name(model: loading.LoadedModel) -> str:
    """Returns the name for `--model`, without parent folders."""
    path = pathlib.Path(model.path)
    return path.parent.name if path.name == file_names.LITE_MODEL else path.name
