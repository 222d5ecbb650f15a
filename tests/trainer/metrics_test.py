"""Metrics against another library and against NumPy."""

import fast_bss_eval
import numpy as np

from pipeline import features
from trainer import metrics


def test_si_sdr_is_that_of_another_library():
    rng = np.random.default_rng(0)
    references = rng.normal(size=(4, 2, 3000)) + 0.3
    estimates = references + rng.normal(size=(4, 2, 3000)) * 0.4 - 0.1
    found = metrics.si_sdr(
        estimates.astype("float32"), references.astype("float32"), np.ones(3000, "float32")
    )
    expected = fast_bss_eval.numpy.si_sdr(references, estimates, zero_mean=True)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_improvement_takes_the_best_permutation_and_leaves_padding_out():
    rng = np.random.default_rng(1)
    lengths = [3000, 2000]
    sources = rng.normal(size=(2, 2, 3000)).astype("float32")
    valid = (np.arange(3000)[None] < np.array(lengths)[:, None]).astype("float32")
    sources *= valid[:, None]
    estimates = (sources + 0.3 * rng.normal(size=sources.shape)).astype("float32")[:, ::-1]
    found = np.asarray(metrics.si_sdr_improvement(estimates, sources, valid))
    for i, length in enumerate(lengths):
        reference, estimate = (x[i, :, :length].astype("float64") for x in (sources, estimates))
        mixture = np.stack([reference.sum(axis=0)] * 2)
        after = fast_bss_eval.numpy.si_sdr(reference, estimate, zero_mean=True)
        before = fast_bss_eval.numpy.si_sdr(reference, mixture, zero_mean=True)
        np.testing.assert_allclose(found[i], np.mean(after - before), atol=1e-3)


def test_a_silent_estimate_improves_nothing():
    rng = np.random.default_rng(3)
    sources = rng.normal(size=(4, 2, 3000)) * [[[1.0], [0.5]]]
    sources, valid = sources.astype("float32"), np.ones((4, 3000), "float32")
    mixture = sources.sum(1, keepdims=True)
    silent = np.concatenate([mixture, 0 * mixture], axis=1)
    assert (np.asarray(metrics.si_sdr_improvement(silent, sources, valid)) < -20).all()


def test_mask_agreement_counts_as_the_definition_says():
    rng = np.random.default_rng(2)
    magnitudes = 10 ** rng.uniform(-4, 0, (1, 2, 12, 9)).astype("float32")
    magnitudes[0, :, 3, 4] = 0.5  # A tie.
    mixture = magnitudes.sum(axis=1)
    frame_mask = (np.arange(12) < 10)[None].astype("uint8")
    estimates = rng.uniform(size=(1, 2, 12, 9)).astype("float32")
    no_tie = magnitudes[:, 0] != magnitudes[:, 1]

    counted = features.counted_bins(mixture[0, :10], magnitudes[0, :, :10])
    agree = (estimates[0, 0] > estimates[0, 1]) == (magnitudes[0, 0] > magnitudes[0, 1])
    as_is = np.sum(agree[:10] & counted)

    def agreement(masks, **options):
        found = metrics.mask_agreement(
            masks, magnitudes, mixture, frame_mask, no_tie=no_tie, **options
        )
        return [float(x[0]) for x in found]

    assert agreement(estimates, fixed=True) == [as_is, counted.sum()]
    assert agreement(estimates) == [max(as_is, counted.sum() - as_is), counted.sum()]
    assert agreement(magnitudes[:, ::-1])[0] == counted.sum()
    assert agreement(magnitudes[:, ::-1], fixed=True)[0] == 0
