"""Scores for turn-taking conversations and single speakers, where SI-SDR says little.

A moment is 0.1 s. Whether a voice speaks in it follows the definition of a turn in
`export.separation.activity`, applied to the true voices. Levels are energy ratios, at least
-100 dB.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize

from export.evaluation import dataset_mixtures, metrics, oracles
from export.evaluation.scoring import Row, Separation, anchors, rounded
from export.separation import activity
from pipeline import features

TURN_METRICS = ("overlap_si_sdr", "wrong_output", "wrong_level", "diarization_error")
SOLO_METRICS = ("weaker_level",)
_FLOOR = 1e-10
# Shorter overlaps have no meaningful SI-SDR.
_LEAST_OVERLAP_SECONDS = 0.5


def score_turns(
    mixture: dataset_mixtures.Mixture, separations: Sequence[Separation], names: Sequence[str]
) -> list[Row]:
    """Computes the rows of one conversation: the mixture itself, the oracles, and the models.

    Each output is assigned to one voice throughout. The assignment maximises the number of
    single-speaker moments that are in the speaker's output.

    Args:
        mixture: the conversation.
        separations: the models' separations of it.
        names: `TURN_METRICS`.

    Returns:
        One row per system. `wrong_output`: the share, in percent, of single-speaker moments in
        which the speaker's output is not the loudest; if k outputs are equally loud, the moment
        counts (k - 1) / k. `wrong_level`: in those moments, the energy of the other outputs
        relative to the speaker's, dB. `overlap_si_sdr`: the SI-SDR of each voice over the moments
        in which it and another speak, under the same assignment, averaged over the voices, with its
        improvement over the mixture; NaN under 0.5 s. `diarization_error`: as computed by the
        function of this name, in percent.
    """
    powers = _powers(mixture.voices, mixture.rate)
    active = activity.active_frames(powers)
    alone = active & (active.sum(axis=0) == 1)
    overlapped = active & (active.sum(axis=0) > 1)
    common: Row = {
        "mixture_id": mixture.id,
        "speakers": " ".join(mixture.speakers),
        "pair": mixture.pair,
        "seconds": round(mixture.seconds, 4),
        "overlap": round(
            float((active.sum(axis=0) > 1).sum() / max(active.any(axis=0).sum(), 1)), 4
        ),
    }
    before = _overlap_si_sdr(
        mixture, np.broadcast_to(mixture.waveform, mixture.voices.shape), overlapped
    )
    spectra, whole = features.stft(mixture.voices), features.stft(mixture.waveform)
    rows = []
    for system in [*anchors(mixture, spectra, whole), *separations]:
        heard = _powers(system.estimates, mixture.rate)
        loudest = heard == heard.max(axis=0)
        # Moments of each voice in each output, `[source, output]`.
        moments = alone.astype(float) @ (loudest / loudest.sum(axis=0)).T
        order = scipy.optimize.linear_sum_assignment(moments, maximize=True)[1]
        right = moments[np.arange(len(order)), order].sum()
        energy = alone.astype(float) @ heard.T
        own = energy[np.arange(len(order)), order].sum()
        ratio = _overlap_si_sdr(mixture, system.estimates[order], overlapped)
        figures = {
            "overlap_si_sdr": ratio,
            "overlap_si_sdr_improvement": ratio - before,
            "wrong_output": 100 * (1 - right / alone.sum()) if alone.any() else np.nan,
            "wrong_level": _level_db(energy.sum() - own, own),
            "diarization_error": 100 * diarization_error(active, activity.active_frames(heard)),
        }
        rows.append(
            {
                **common,
                "system": system.system,
                **{name: rounded(value) for name, value in figures.items()},
                "order": " ".join(str(estimate + 1) for estimate in order),
            }
        )
    return rows


def diarization_error(reference: np.ndarray, found: np.ndarray) -> float:
    """Computes the diarisation error rate without a collar, as NIST's md-eval defines it.

    Args:
        reference: who speaks when, bool `[voice, moment]`.
        found: in which moments each output speaks, bool `[output, moment]`.

    Returns:
        Missed speech, false alarms and speech of the wrong person, as a share of all speech; NaN if
        nobody speaks. Outputs are assigned to the voices with which they have most in common.
    """
    common = reference.astype(float) @ found.T
    right = common[scipy.optimize.linear_sum_assignment(common, maximize=True)].sum()
    spoken = reference.sum(axis=0)
    total = float(spoken.sum())
    wrong = np.maximum(spoken, found.sum(axis=0)).sum() - right
    return float(wrong) / total if total else float("nan")


def score_solo(
    mixture: dataset_mixtures.Mixture, separations: Sequence[Separation], names: Sequence[str]
) -> list[Row]:
    """Computes the rows of a single speaker: the mixture itself, and the models.

    Args:
        mixture: a mixture with one voice that is not silent.
        separations: the models' separations of it.
        names: `SOLO_METRICS`.

    Returns:
        One row per system. `weaker_level`: the energy of all outputs except the strongest, relative
        to the strongest, dB.
    """
    same = np.broadcast_to(mixture.waveform, mixture.voices.shape)
    rows = []
    for system in [Separation(oracles.MIXTURE, same), *separations]:
        energy = np.square(system.estimates, dtype=np.float64).sum(axis=1)
        rows.append(
            {
                "mixture_id": mixture.id,
                "speakers": " ".join(mixture.speakers),
                "pair": "",
                "seconds": round(mixture.seconds, 4),
                "system": system.system,
                "weaker_level": rounded(_level_db(energy.sum() - energy.max(), energy.max())),
            }
        )
    return rows


def _powers(signals: np.ndarray, rate: int) -> np.ndarray:
    """Computes the mean square of each complete moment, float64 `[signal, moment]`."""
    meter = activity.Meter(len(signals), rate)
    meter.add(signals)
    return meter.powers


def _overlap_si_sdr(
    mixture: dataset_mixtures.Mixture, estimates: np.ndarray, overlapped: np.ndarray
) -> float:
    """Averages over the voices the SI-SDR of their estimates where they and another speak."""
    moment = np.arange(mixture.sources.shape[1]) * activity.FRAMES_PER_SECOND // mixture.rate
    found = []
    for voice, estimate, own in zip(mixture.voices, estimates, overlapped, strict=True):
        heard = np.flatnonzero(own[np.minimum(moment, len(own) - 1)] & (moment < len(own)))
        if len(heard) < _LEAST_OVERLAP_SECONDS * mixture.rate:
            return float("nan")
        found.append(metrics.si_sdr_matrix(voice[None, heard], estimate[None, heard])[0, 0])
    return float(np.mean(found))


def _level_db(energy: float, reference: float) -> float:
    if not reference > 0:
        return float("nan")
    return float(10 * np.log10(max(energy / reference, _FLOOR)))
