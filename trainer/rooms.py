"""What surrounds voices: noise and rooms, from folders of recordings or made here."""

import math

import numpy as np
import scipy.signal

from pipeline import audio, errors, storage

# J. B. Allen and D. A. Berkley 1979 would need walls; that the tail is noise whose energy decays
# exponentially is J. A. Moorer's model of a room («About this reverberation business», 1979).
_REVERBERATION_SECONDS = (0.1, 0.5)
_DIRECT_TO_REVERBERANT_DB = (-3.0, 9.0)
# Slopes of the power spectrum of made noise: from white to brown.
_NOISE_SLOPES = (0.0, 2.0)


class Surroundings:
    """Draws noise and room responses.

    Args:
        sample_rate: in Hz.
        noise_dir: recordings of noise; without, coloured noise is made.
        room_dir: recordings of impulse responses, one channel each voice's; without, they are made.

    Raises:
        UserError: a folder holds no recording.
    """

    def __init__(self, sample_rate: int, noise_dir: str = "", room_dir: str = "") -> None:
        self.sample_rate = sample_rate
        self._noises = _read_folder(noise_dir, sample_rate) if noise_dir else []
        responses = _read_folder(room_dir, sample_rate) if room_dir else []
        # From the direct sound on: a voice must not come later than its target.
        self._responses = [r[np.abs(r).argmax() :] for r in responses]

    def noise(self, random: np.random.Generator, voices: np.ndarray, snr_db: float) -> np.ndarray:
        """Noise that lies `snr_db` below `voices`, float32 `[sample]`, by their mean squares."""
        if self._noises:
            made = self._recorded_noise(random, len(voices))
        else:
            made = coloured_noise(random, len(voices))
        power = np.mean(np.square(voices), dtype=np.float64)
        own = np.mean(np.square(made), dtype=np.float64)
        if not own:
            return made
        return made * np.float32(math.sqrt(power / own * 10 ** (-snr_db / 10)))

    def in_room(self, random: np.random.Generator, voices: np.ndarray) -> np.ndarray:
        """Voices as they arrive in one room, from different places; levels stay.

        Args:
            random: source of the draws.
            voices: float32 `[source, sample]`.
        """
        seconds = random.uniform(*_REVERBERATION_SECONDS)
        heard = np.empty_like(voices)
        for number, voice in enumerate(voices):
            if self._responses:
                response = self._responses[random.integers(len(self._responses))]
            else:
                ratio_db = random.uniform(*_DIRECT_TO_REVERBERANT_DB)
                response = room_response(random, seconds, ratio_db, self.sample_rate)
            wet = scipy.signal.oaconvolve(voice, response)[: len(voice)]
            power = np.mean(np.square(wet), dtype=np.float64)
            before = np.mean(np.square(voice), dtype=np.float64)
            heard[number] = wet * math.sqrt(before / power) if power else wet
        return heard

    def _recorded_noise(self, random: np.random.Generator, num_samples: int) -> np.ndarray:
        samples = self._noises[random.integers(len(self._noises))]
        repeated = np.tile(samples, math.ceil(num_samples / len(samples)) + 1)
        start = random.integers(len(samples))
        return repeated[start : start + num_samples].astype(np.float32)


def coloured_noise(random: np.random.Generator, num_samples: int) -> np.ndarray:
    """Noise whose power falls with frequency as `f ** -slope`, slope between white and brown.

    Returns:
        float32 `[sample]`, mean square about 1.
    """
    slope = random.uniform(*_NOISE_SLOPES)
    spectrum = np.fft.rfft(random.standard_normal(num_samples))
    spectrum[0] = 0
    # Flat below a hundredth of the band: what lies there is no sound.
    frequency = np.maximum(np.linspace(0, 1, len(spectrum)), 0.01)
    made = np.fft.irfft(spectrum * frequency ** (-slope / 2), num_samples)
    return (made / max(made.std(), 1e-9)).astype(np.float32)


def room_response(
    random: np.random.Generator, seconds: float, ratio_db: float, sample_rate: int
) -> np.ndarray:
    """An impulse response: the direct sound, then noise that falls by 60 dB in `seconds`.

    Args:
        random: source of the draws.
        seconds: reverberation time.
        ratio_db: energy of the direct sound over that of the rest.
        sample_rate: in Hz.

    Returns:
        float32 `[sample]`, which begins with the direct sound, 1.
    """
    count = max(2, round(seconds * sample_rate))
    tail = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    # The first reflections come some milliseconds later.
    tail[: 1 + round(random.uniform(0.001, 0.005) * sample_rate)] = 0
    energy = np.square(tail).sum()
    response = tail * math.sqrt(10 ** (-ratio_db / 10) / energy) if energy else tail
    response[0] = 1
    return response.astype(np.float32)


def _read_folder(folder: str, sample_rate: int) -> list[np.ndarray]:
    """All recordings below a folder, mono, at `sample_rate`; what is no recording is passed over.

    Raises:
        UserError: there is none.
    """
    recordings = []
    for name in storage.list_files(folder).files:
        try:
            samples, rate = audio.decode(storage.read_bytes(storage.join(folder, name)))
        except errors.UserError:
            continue
        if len(samples) and np.any(samples):
            recordings.append(audio.resample(samples, rate, sample_rate))
    if not recordings:
        raise errors.UserError(f"{folder} holds no recording that can be read")
    return recordings
