"""Noise and room reverberation for mixtures, recorded or synthetic."""

import concurrent.futures
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import scipy.signal
from absl import logging

from pipeline import errors, inspection
from pipeline.audio import decoding, limits
from pipeline.corpora import corpus
from pipeline.io import cores, storage

# The image method (J. B. Allen, D. A. Berkley 1979) would need walls. Noise with exponentially
# decaying energy as reverberation tail follows J. A. Moorer ("About this reverberation business",
# 1979).
_REVERBERATION_SECONDS = (0.1, 0.5)
_DIRECT_TO_REVERBERANT_DB = (-3.0, 9.0)
# Slopes of the power spectrum of synthetic noise: from white to brown.
_NOISE_SLOPES = (0.0, 2.0)
_INT16_PEAK = float(np.iinfo(np.int16).max)

T = TypeVar("T")


class Surroundings:
    """Draws noise and room responses.

    Args:
        sample_rate: sample rate, in Hz.
        noise_dir: folder of noise recordings. Their channels are averaged and kept in memory, two
            bytes per sample. Without it, coloured noise is synthesised.
        room_dir: folder of impulse responses: each file is a room, each channel a position in it.
            Without it, responses are synthesised.

    Raises:
        UserError: a folder contains no usable recording.
    """

    def __init__(self, sample_rate: int, noise_dir: str = "", room_dir: str = "") -> None:
        self.sample_rate = sample_rate
        self._noises = _read_folder(noise_dir, sample_rate, _read_noise) if noise_dir else []
        self._rooms = _read_folder(room_dir, sample_rate, _read_room) if room_dir else []

    def noise(self, random: np.random.Generator, voices: np.ndarray, snr_db: float) -> np.ndarray:
        """Returns noise `snr_db` below `voices` in mean square, float32 `[sample]`."""
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
        """Convolves voices with responses of one room; levels are kept.

        Each voice has its own response, as at a different position. If a recorded room has fewer
        channels than there are voices, some share a position.

        Args:
            random: random number generator.
            voices: float32 `[source, sample]`.
        """
        heard = np.empty_like(voices)
        responses = self._draw_responses(random, len(voices))
        for number, (voice, response) in enumerate(zip(voices, responses, strict=True)):
            wet = scipy.signal.oaconvolve(voice, response)[: len(voice)]
            power = np.mean(np.square(wet), dtype=np.float64)
            before = np.mean(np.square(voice), dtype=np.float64)
            heard[number] = wet * math.sqrt(before / power) if power else wet
        return heard

    def _draw_responses(self, random: np.random.Generator, count: int) -> list[np.ndarray]:
        """Draws responses at `count` positions of one room, float32 `[sample]` each."""
        if self._rooms:
            channels = self._rooms[random.integers(len(self._rooms))]
            order = random.permutation(len(channels))
            return [channels[order[number % len(order)]] for number in range(count)]
        seconds = random.uniform(*_REVERBERATION_SECONDS)
        return [
            room_response(
                random, seconds, random.uniform(*_DIRECT_TO_REVERBERANT_DB), self.sample_rate
            )
            for _ in range(count)
        ]

    def _recorded_noise(self, random: np.random.Generator, num_samples: int) -> np.ndarray:
        samples = self._noises[random.integers(len(self._noises))]
        start = random.integers(len(samples))
        positions = np.arange(start, start + num_samples)
        return samples.take(positions, mode="wrap").astype(np.float32)


def coloured_noise(random: np.random.Generator, num_samples: int) -> np.ndarray:
    """Returns noise with power spectrum `f ** -slope`; the slope is between white and brown.

    Returns:
        float32 `[sample]`, mean square about 1.
    """
    slope = random.uniform(*_NOISE_SLOPES)
    spectrum = np.fft.rfft(random.standard_normal(num_samples))
    spectrum[0] = 0
    # Flat below a hundredth of the band, where nothing is audible.
    frequency = np.maximum(np.linspace(0, 1, len(spectrum)), 0.01)
    made = np.fft.irfft(spectrum * frequency ** (-slope / 2), num_samples)
    return (made / max(made.std(), 1e-9)).astype(np.float32)


def room_response(
    random: np.random.Generator, seconds: float, ratio_db: float, sample_rate: int
) -> np.ndarray:
    """Synthesises a room response: the direct sound, then noise that decays by 60 dB in `seconds`.

    Args:
        random: random number generator.
        seconds: reverberation time.
        ratio_db: direct-to-reverberant energy ratio, in dB.
        sample_rate: sample rate, in Hz.

    Returns:
        float32 `[sample]`; it begins with the direct sound, 1.
    """
    count = max(2, round(seconds * sample_rate))
    tail = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    # The first reflections arrive some milliseconds later.
    tail[: 1 + round(random.uniform(0.001, 0.005) * sample_rate)] = 0
    energy = np.square(tail).sum()
    response = tail * math.sqrt(10 ** (-ratio_db / 10) / energy) if energy else tail
    response[0] = 1
    return response.astype(np.float32)


def _read_folder(
    folder: str, sample_rate: int, read: Callable[[bytes, int, list[str]], T]
) -> list[T]:
    """Applies `read` to all recordings below a folder; warns about files that are left out.

    Args:
        folder: folder, with any subfolders.
        sample_rate: sample rate, in Hz.
        read: takes the bytes of a file, `sample_rate` and a list for notes; raises AudioError if
            the file is unusable.

    Raises:
        UserError: there is no usable recording, or one cannot be read for an external reason.
    """
    noted: list[str] = []

    def load(name: str) -> T | corpus.Rejection:
        try:
            notes: list[str] = []
            made = read(storage.read_bytes(storage.join(folder, name)), sample_rate, notes)
            noted.extend(f"{name}: {note}" for note in notes)
            return made
        except storage.ReadError as error:
            return inspection.rejection(name, error)
        except decoding.AudioError as error:
            return corpus.Rejection(name, str(error))
        except limits.MissingDecoderError as error:
            raise errors.UserError(f"{storage.join(folder, name)}: {error}") from error

    listing = storage.list_files(folder)
    storage.require_open(folder, listing)
    rejections = [corpus.Rejection(*problem) for problem in listing.problems]
    made: list[T] = []
    # Decoding and resampling release the GIL.
    with concurrent.futures.ThreadPoolExecutor(cores.available_cores()) as threads:
        for found in threads.map(load, listing.files):
            if isinstance(found, corpus.Rejection):
                rejections.append(found)
            else:
                made.append(found)
    example = f"such as {rejections[0].path}: {rejections[0].reason}" if rejections else ""
    if not made:
        raise errors.UserError(
            f"{folder} holds no recording that can be used" + (f", {example}" if example else "")
        )
    if rejections:
        count = len(rejections)
        logging.warning(
            "%d of %d files in %s are left out, %s", count, count + len(made), folder, example
        )
    if noted:
        logging.warning("%s: %d notes, such as %s", folder, len(noted), min(noted))
    return made


def _read_noise(data: bytes, sample_rate: int, notes: list[str]) -> np.ndarray:
    """Mean of the channels, int16 `[sample]`, scaled to full scale; the level is drawn later."""
    samples, rate = decoding.decode(data, notes=notes)
    samples = decoding.resample(samples, rate, sample_rate)
    peak = _check(samples)
    return np.round(samples * (_INT16_PEAK / peak)).astype(np.int16)


def _read_room(data: bytes, sample_rate: int, notes: list[str]) -> list[np.ndarray]:
    """Returns the responses of the non-silent channels, float32 `[sample]`, from the direct sound.

    Anything before it would only delay the voice and push its end out of the window.
    """
    samples, rate = decoding.decode_channels(data, notes=notes)
    samples = decoding.resample(samples, rate, sample_rate)
    _check(samples)
    channels = [np.ascontiguousarray(channel) for channel in samples.T if channel.any()]
    return [channel[np.abs(channel).argmax() :] for channel in channels]


def _check(samples: np.ndarray) -> np.float32:
    """Returns the peak; raises AudioError if it is 0 or not finite."""
    peak = np.abs(samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise decoding.AudioError("has samples that are not finite")
    if not peak:
        raise decoding.AudioError("silent")
    return peak
