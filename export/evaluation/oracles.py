"""Oracle masks: the upper bounds that put a model's results into perspective.

Every oracle masks the mixture's spectrogram, keeps its phase and inverts it, as a model does, but
computes the mask from the true voices.
"""

from collections.abc import Callable

import numpy as np

from pipeline import features, ideal_masks

MIXTURE = "mixture"

_MASKS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "oracle IBM": lambda voices, mixture: ideal_masks.binary(np.abs(voices)),
    "oracle IRM": lambda voices, mixture: ideal_masks.ratio(np.abs(voices)),
    "oracle PSM, 0 to 1": lambda voices, mixture: np.clip(
        ideal_masks.phase_sensitive(voices, mixture), 0, 1
    ),
    "oracle PSM, −1 to 2": lambda voices, mixture: np.clip(
        ideal_masks.phase_sensitive(voices, mixture), *ideal_masks.MASKS["psm"].range
    ),
}
ORACLES = tuple(_MASKS)
ANCHORS = (MIXTURE, *ORACLES)


def masks(name: str, voices: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Computes an oracle's masks.

    Args:
        name: one of `ORACLES`.
        voices: the voices' spectrograms, complex64 `[source, frame, bin]`.
        mixture: spectrogram of their sum, complex64 `[frame, bin]`.

    Returns:
        float32 `[source, frame, bin]`.
    """
    return _MASKS[name](voices, mixture).astype(np.float32)


def separate(oracle_masks: np.ndarray, mixture: np.ndarray, num_samples: int) -> np.ndarray:
    """Applies masks to a mixture's spectrogram and inverts the results.

    Args:
        oracle_masks: `[source, frame, bin]`.
        mixture: the mixture's spectrogram, complex64 `[frame, bin]`.
        num_samples: the mixture's length in samples.

    Returns:
        float32 `[source, sample]`.
    """
    return features.inverse_stft(oracle_masks * mixture, num_samples)
