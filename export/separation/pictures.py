"""Pictures as PNG and sound as FLAC for the HTML pages; as `data:` URLs for the evaluation report.

Spectrograms have their own dark background, so they look the same on light and dark pages.
"""

import base64
import io

import numpy as np

from pipeline import features, ideal_masks

# Teal, orange, and for more voices blue and rose: distinguishable with colour blindness.
VOICE_COLOURS = ((45, 212, 191), (251, 146, 60), (96, 165, 250), (244, 114, 182))
COLOUR_NAMES = ("teal", "orange", "blue", "rose")
_RANGE_DB = 60.0
_MAX_WIDTH = 900


def shares(voices: np.ndarray) -> np.ndarray:
    """Computes each voice's share of each bin, `|S_s| / sum_k |S_k|`, for any kind of network.

    Args:
        voices: float32 `[source, sample]`.

    Returns:
        float32 `[source, frame, bin]`.
    """
    return ideal_masks.ratio(np.abs(features.stft(voices)))


def peak(signal: np.ndarray) -> float:
    """Computes the largest magnitude of the spectrogram of float32 `[sample]`."""
    return float(np.abs(features.stft(signal)).max())


def spectrogram(signal: np.ndarray, peak: float) -> str:
    """Returns `spectrogram_png` as `data:image/png;base64,…`."""
    return _address(spectrogram_png(signal, peak))


def spectrogram_png(signal: np.ndarray, peak: float) -> bytes:
    """Draws a spectrogram, with low frequencies at the bottom.

    Args:
        signal: float32 `[sample]`.
        peak: the brightest magnitude; 60 dB below it is black. Use the same peak for signals that
            are to be compared.

    Returns:
        The bytes of a PNG file.
    """
    bright = _brightness(np.abs(features.stft(signal)), peak)
    return _png(np.round(bright * 255).astype(np.uint8), _palette("magma"))


def share_png(share: np.ndarray) -> bytes:
    """Draws one voice's mask, dark where the voice gets nothing of a bin.

    Args:
        share: `[frame, bin]`, 0 to 1; values outside are clipped.

    Returns:
        The bytes of a PNG file.
    """
    return _png(np.round(np.clip(share, 0, 1) * 255).astype(np.uint8), _palette("viridis"))


def assignment(masks: np.ndarray, mixture: np.ndarray, peak: float) -> str:
    """Returns `assignment_png` as `data:image/png;base64,…`."""
    return _address(assignment_png(masks, mixture, peak))


def assignment_png(masks: np.ndarray, mixture: np.ndarray, peak: float) -> bytes:
    """Draws which voice gets each bin: hue shows the voice, brightness the mixture's magnitude.

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
    """Encodes a signal as 16-bit FLAC, which is lossless and plays in every browser.

    Args:
        samples: float32 `[sample]`, full scale 1; values beyond it are clipped.
        rate: in Hz.

    Returns:
        `data:audio/flac;base64,…`
    """
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(stream.getvalue()).decode()


def _brightness(magnitudes: np.ndarray, peak: float) -> np.ndarray:
    """Maps magnitudes from 60 dB below the peak up to it to 0 to 1, `[frame, bin]`."""
    with np.errstate(divide="ignore"):
        level = 20 * np.log10(magnitudes / max(peak, 1e-7))
    return np.clip(level / _RANGE_DB + 1, 0, 1)


def _palette(name: str) -> np.ndarray:
    """Returns Matplotlib's colour map of that name, uint8 `[256, 3]`."""
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _png(pixels: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """Encodes `[frame, bin(, 3)]` as a picture with time to the right and frequency upwards."""
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
