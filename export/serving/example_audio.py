"""The example recording: two synthetic speakers in conversation, generated on request."""

import os
import threading

import numpy as np

from pipeline.audio import decoding
from pipeline.corpora import conversation, espeak, synthetic_speakers

NAME = "example.wav"
_ACTIVE_LEVEL = 0.05
# eSpeak NG has global state: only one call at a time per process.
_lock = threading.Lock()


def write(path: str | os.PathLike[str], seconds: float = 60.0) -> None:
    """Writes a 16-bit WAV file of some 20 seconds with two speakers who partly overlap.

    With eSpeak NG they are a woman and a man from the embedded corpus' test split. Without it they
    are two syllabic tones with a voice-like pitch contour.

    Args:
        path: the file; it gets its name once it is complete.
        seconds: maximum duration.
    """
    with _lock:
        try:
            made = conversation.make()
        except espeak.EspeakError:
            high = [_sung(190.0, 3.1, length) for length in (4.0, 5.0, 3.0)]
            low = [_sung(105.0, 2.3, length) for length in (4.5, 4.0)]
            made = conversation.arrange([high, low], synthetic_speakers.RATE)
    decoding.write_wav(path, made.mixture[: int(seconds * made.rate)], made.rate)


def _sung(pitch: float, syllables: float, length: float) -> np.ndarray:
    """Synthesises syllables with a moving pitch, `length` seconds, float32 `[sample]`."""
    seconds = np.arange(round(length * synthetic_speakers.RATE)) / synthetic_speakers.RATE
    phase = 2 * np.pi * pitch * (seconds - 0.02 * np.cos(2 * np.pi * 0.4 * seconds))
    tone = sum(np.sin(order * phase) / order for order in range(1, 25))
    envelope = np.clip(np.sin(np.pi * syllables * seconds), 0, None)
    return _levelled((envelope * tone).astype(np.float32))


def _levelled(samples: np.ndarray) -> np.ndarray:
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    # At most half of full scale each, so that their sum fits into 16 bits.
    gain = min(_ACTIVE_LEVEL / rms, 0.49 / float(np.abs(samples).max()))
    return (gain * samples).astype(np.float32)
