"""Prepares a separated recording for the page: what is shown, and the files for download."""

import json
import pathlib
from typing import Any

import numpy as np

from export.conversations import file_separation
from export.evaluation import charts
from export.separation import activity, jobs, pictures, rttm
from export.serving import lanes, recording
from pipeline.audio import decoding

# Pictures end at 8 kHz; speech has little above.
_HIGHEST_RATE = 16000


def complete(one: recording.Recording, done: file_separation.Separated) -> None:
    """Fills in a recording's `files` and `view`.

    Args:
        one: the recording; `mixture.wav` is in its folder.
        done: the result of the separation.

    Raises:
        OSError: the files cannot be read or written.
    """
    rate = min(done.rate, _HIGHEST_RATE)
    mixture = _heard(one.folder / "mixture.wav", rate)
    voices = np.stack([_heard(path, rate) for path in done.files[: len(done.summary["voices"])]])
    stem = pathlib.PurePosixPath(one.name).stem
    # Use the names that export.separate would give the files.
    named = jobs.Job(one.source, pathlib.Path(stem))
    one.files["mixture.wav"] = recording.File(
        one.folder / "mixture.wav", "audio/wav", f"{stem}.wav"
    )
    for index in range(len(voices)):
        one.files[f"voice{index + 1}.wav"] = recording.File(
            done.files[index], "audio/wav", named.voice(index).name
        )
    told = {**done.summary, "recording": one.name}
    told["voices"] = [
        {**voice, "file": named.voice(index).name} for index, voice in enumerate(told["voices"])
    ]
    texts = {
        "turns.rttm": (rttm.text(done.activity, stem), named.rttm.name, "text/plain"),
        "turns.json": (json.dumps(told, indent=2) + "\n", named.summary.name, "application/json"),
    }
    for key, (text, name, media_type) in texts.items():
        path = one.folder / key
        path.write_text(text, encoding="utf-8")
        one.files[key] = recording.File(path, media_type, name)
    one.view = {
        "key": one.key,
        "title": one.name,
        "notes": done.notes,
        "seconds": done.seconds,
        "rate": done.rate,
        "kilohertz": rate / 2000,
        "channels": done.num_channels,
        "told": told,
        "turns": [
            {**turn, "clock": lanes.clock(turn["start"]), "until": lanes.clock(turn["end"])}
            for turn in told["turns"]
        ],
        "offered": [
            {
                "sound": f"recordings/{one.key}/{key}",
                "file": one.files[key].name,
                "bytes": one.files[key].path.stat().st_size,
            }
            for key in texts
        ],
        **_draw(one, done.activity, mixture, voices),
    }


def _heard(path: pathlib.Path, rate: int) -> np.ndarray:
    """Reads the mean of the channels, float32 `[sample]`, at the given rate."""
    with decoding.Reader(path) as reader:
        means = (block.mean(axis=1, keepdims=True) for block in reader.blocks())
        blocks = list(decoding.resample_blocks(means, reader.rate, rate))
    # At the lower rate, a few samples may be less than one.
    return np.concatenate(blocks)[:, 0] if blocks else np.zeros(1, np.float32)


def _draw(
    one: recording.Recording, found: activity.Activity, mixture: np.ndarray, voices: np.ndarray
) -> dict[str, Any]:
    """Draws a recording and its voices for the template's tiles."""
    peak = max(pictures.peak(mixture), 1e-7)
    full = max(float(np.abs(mixture).max()), float(np.abs(voices).max()))

    def add(name: str, png: bytes) -> str:
        path = one.folder / name
        path.write_bytes(png)
        one.files[name] = recording.File(path, "image/png", name)
        return f"recordings/{one.key}/{name}"

    def tile(file: str, title: str, signal: np.ndarray, about: str, voice: int = 0) -> dict:
        return {
            "title": title,
            "voice": voice,
            "note": "",
            "picture": add(f"{file}.png", pictures.spectrogram_png(signal, peak)),
            "alt": f"Spectrogram of {about}, brighter where louder",
            "lanes": lanes.svg(found, range(len(voices)) if not voice else [voice - 1]),
            "wave": charts.waveform(signal, full, f"Waveform of {about}"),
            "sound": f"recordings/{one.key}/{file}.wav",
            "label": f"Play {about}",
            "file": one.files[f"{file}.wav"].name,
            "bytes": one.files[f"{file}.wav"].path.stat().st_size,
        }

    tiles = [
        tile(f"voice{s + 1}", f"voice {s + 1}", voice, f"voice {s + 1} of {one.name}", s + 1)
        for s, voice in enumerate(voices)
    ]
    shares = pictures.shares(voices)
    masks = [
        {
            "title": "all voices",
            "voice": 0,
            "note": "hue: whose; brighter where louder",
            "picture": add("who.png", pictures.assignment_png(shares, mixture, peak)),
            "alt": f"Which voice each bin of {one.name} is given to, a colour a voice, "
            "brighter where louder",
        }
    ]
    masks += [
        {
            "title": f"voice {s + 1}",
            "voice": s + 1,
            "note": f"{100 * float(share.mean()):.0f} % of all",
            "picture": add(f"mask{s + 1}.png", pictures.share_png(share)),
            "alt": f"Share of each bin of {one.name} that voice {s + 1} is given, dark for none",
        }
        for s, share in enumerate(shares)
    ]
    return {
        "mixture": tile("mixture", "recording", mixture, one.name),
        "voices": tiles,
        "masks": masks,
    }
