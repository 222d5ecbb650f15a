"""Pictures of the pages as PNG, and sound as FLAC; for the evaluator's page as `data:` addresses.

Spectrograms have a dark ground of their own, so that they are the same in a light and a dark page.
"""

import base64
import io

import numpy as np

from pipeline import features, ideal_masks

# Teal, orange, and for more voices blue and rose: told apart by people who see few colours, too.
VOICE_COLOURS = ((45, 212, 191), (251, 146, 60), (96, 165, 250), (244, 114, 182))
COLOUR_NAMES = ("teal", "orange", "blue", "rose")
_RANGE_DB = 60.0
_MAX_WIDTH = 900


def shares(voices: np.ndarray) -> np.ndarray:
    """How much of each bin a voice got: `|S_s| / sum_k |S_k|`, for networks of any kind.

    Args:
        voices: float32 `[source, sample]`.

    Returns:
        float32 `[source, frame, bin]`.
    """
    return ideal_masks.ratio(np.abs(features.stft(voices)))


def peak(signal: np.ndarray) -> float:
    """The largest magnitude of the spectrogram of float32 `[sample]`."""
    return float(np.abs(features.stft(signal)).max())


def spectrogram(signal: np.ndarray, peak: float) -> str:
    """`spectrogram_png` as `data:image/png;base64,…`."""
    return _address(spectrogram_png(signal, peak))


def spectrogram_png(signal: np.ndarray, peak: float) -> bytes:
    """A spectrogram, low frequencies at the bottom.

    Args:
        signal: float32 `[sample]`.
        peak: the magnitude that is brightest; what lies 60 dB below it is black. Signals with one
            peak can be compared.

    Returns:
        The bytes of a PNG file.
    """
    bright = _brightness(np.abs(features.stft(signal)), peak)
    return _png(np.round(bright * 255).astype(np.uint8), _palette("magma"))


def share_png(share: np.ndarray) -> bytes:
    """One voice's mask, dark where the voice gets nothing of a bin.

    Args:
        share: `[frame, bin]`, 0 to 1; what lies outside is clipped.

    Returns:
        The bytes of a PNG file.
    """
    return _png(np.round(np.clip(share, 0, 1) * 255).astype(np.uint8), _palette("viridis"))


def assignment(masks: np.ndarray, mixture: np.ndarray, peak: float) -> str:
    """`assignment_png` as `data:image/png;base64,…`."""
    return _address(assignment_png(masks, mixture, peak))


def assignment_png(masks: np.ndarray, mixture: np.ndarray, peak: float) -> bytes:
    """Which voice is given each bin: the hue is the voice's, the brightness the mixture's.

    Args:
        masks: `[source, frame, bin]`.
        mixture: float32 `[sample]`.
        peak: as in `spectrogram_png`.

    Returns:
        The bytes of a PNG file.
    """
    share = np.clip(masks, 0, 1)
    share = share / np.maximum(share.sum(axis=0), 1e-6)
    colours = np.array(VOICE_COLOURS, np.float32)
    colours = np.take(colours, np.arange(len(masks)) % len(colours), axis=0)
    hue = np.tensordot(share, colours, axes=(0, 0))
    bright = _brightness(np.abs(features.stft(mixture)), peak)
    return _png((hue * bright[..., np.newaxis]).astype(np.uint8))


def sound(samples: np.ndarray, rate: int) -> str:
    """A signal as 16-bit FLAC, which every browser plays and which loses nothing.

    Args:
        samples: float32 `[sample]`, full scale 1; what exceeds it is clipped.
        rate: in Hz.

    Returns:
        `data:audio/flac;base64,…`
    """
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(stream.getvalue()).decode()


def _brightness(magnitudes: np.ndarray, peak: float) -> np.ndarray:
    """0 to 1, from 60 dB below the peak up to it; `[frame, bin]`."""
    with np.errstate(divide="ignore"):
        level = 20 * np.log10(magnitudes / max(peak, 1e-7))
    return np.clip(level / _RANGE_DB + 1, 0, 1)


def _palette(name: str) -> np.ndarray:
    """Matplotlib's colours of that name, uint8 `[256, 3]`."""
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _png(pixels: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """`[frame, bin(, 3)]` to a picture with time to the right and frequency upwards."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(np.swapaxes(pixels, 0, 1)[::-1]))
    if picture.width > _MAX_WIDTH:
        picture = picture.resize((_MAX_WIDTH, picture.height), Image.Resampling.BOX)
    if palette is not None:
        picture.putpalette(palette.tobytes())
    else:
        picture = picture.quantize(96, Image.Quantize.FASTOCTREE)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
