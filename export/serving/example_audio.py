"""The example: two synthetic speakers at once, made when it is first asked for."""

import os
import threading

import numpy as np

from pipeline import voices
from pipeline.audio import decoding
from pipeline.corpora import espeak, synthetic_speakers

NAME = "example.wav"
_SEED = 0
_SENTENCES = 2
_ACTIVE_LEVEL = 0.05
# eSpeak NG keeps global state: one at a time in a process.
_lock = threading.Lock()


def write(path: str | os.PathLike[str]) -> None:
    """Writes a 16-bit WAV file of some seconds in which two speakers talk at once.

    They are a woman and a man of the embedded corpus' test split where eSpeak NG is there, and
    two tones in syllables, that rise and fall as voices do, where it is not.

    Args:
        path: the file; it gets its name when it is whole.
    """
    with _lock:
        try:
            parts = [_spoken(0), _spoken(1)]
        except espeak.EspeakError:
            parts = [_sung(190.0, 3.1), _sung(105.0, 2.3)]
    length = min(map(len, parts))
    decoding.write_wav(
        path, np.sum([part[:length] for part in parts], axis=0), synthetic_speakers.RATE
    )


def _spoken(index: int) -> np.ndarray:
    """Some sentences of a speaker, float32 `[sample]`."""
    speaker = synthetic_speakers.draw(_SEED, "test", index)
    said = synthetic_speakers.read(speaker, voices.sentences("test"), _SENTENCES)
    return _levelled(np.concatenate([samples for _, samples in said]) / np.float32(32768))


def _sung(pitch: float, syllables: float) -> np.ndarray:
    """Harmonics of a moving pitch in syllables, float32 `[sample]`."""
    seconds = np.arange(6 * synthetic_speakers.RATE) / synthetic_speakers.RATE
    phase = 2 * np.pi * pitch * (seconds - 0.02 * np.cos(2 * np.pi * 0.4 * seconds))
    tone = sum(np.sin(order * phase) / order for order in range(1, 25))
    envelope = np.clip(np.sin(np.pi * syllables * seconds), 0, None)
    return _levelled((envelope * tone).astype(np.float32))


def _levelled(samples: np.ndarray) -> np.ndarray:
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
    # Half of full scale for each: their sum needs no more than 16 bits.
    gain = min(_ACTIVE_LEVEL / rms, 0.49 / float(np.abs(samples).max()))
    return (gain * samples).astype(np.float32)
