"""Losses against loops in NumPy."""

import itertools

import fast_bss_eval
import keras
import numpy as np
import pytest
from keras import ops

from pipeline import features, schema
from trainer import losses


def _data(seed=0, num_sources=2):
    rng = np.random.default_rng(seed)
    shape = (3, num_sources, 11, 7)
    frame_mask = np.arange(11)[None] < np.array([[11], [6], [1]])
    return (
        rng.uniform(0, 1, shape).astype("float32"),
        rng.uniform(-1, 2, shape).astype("float32"),
        rng.exponential(size=(3, 11, 7)).astype("float32"),
        frame_mask.astype("uint8"),
    )


@pytest.mark.parametrize("name", schema.MASKS)
def test_targets_are_what_the_schema_decodes(name):
    feature = next(f for f in schema.MIXTURE_FEATURES if f.name == name)
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 2, (1, 5, 16)) if name == "psm" else rng.uniform(0, 1, (1, 5, 16))
    if name == "ibm":
        values = values > 0.5
    data = feature.encode(values)
    sizes = {"K": 1, "T": 5, "F": 16}
    stored = feature.decode(data, sizes).astype(np.float32)
    expected = np.concatenate([stored, 1 - stored])
    codes = np.frombuffer(data[0], np.uint8)
    if name == "ibm":
        codes = np.unpackbits(codes)
    found = losses.decode_targets(codes.reshape(1, 1, 5, 16), name, 2)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_fixed_is_the_mean_squared_error_of_the_first_mask():
    estimates, targets, _, frame_mask = _data()
    error, weight = (np.asarray(x) for x in losses.fixed_assignment(estimates, targets, frame_mask))
    for i in range(3):
        valid = frame_mask[i].astype(bool)
        differences = (estimates[i, 0] - targets[i, 0])[valid]
        np.testing.assert_allclose(error[i] / weight[i], np.mean(differences**2), rtol=1e-5)
        assert weight[i] == differences.size


@pytest.mark.parametrize("num_sources", [2, 3])
def test_permutation_invariant_is_the_least_over_all_permutations(num_sources):
    estimates, targets, magnitude, frame_mask = _data(1, num_sources)
    error, weight = losses.permutation_invariant(estimates, targets, magnitude, frame_mask)
    for i in range(3):
        masked = magnitude[i] * frame_mask[i][:, None]
        totals = [
            np.sum(((estimates[i] - targets[i, list(order)]) * masked) ** 2)
            for order in itertools.permutations(range(num_sources))
        ]
        np.testing.assert_allclose(error[i], min(totals), rtol=1e-5)
        np.testing.assert_allclose(weight[i], np.sum(masked**2), rtol=1e-5)


def test_permutation_invariant_does_not_care_for_the_order():
    estimates, targets, magnitude, frame_mask = _data(2, 3)
    first = losses.permutation_invariant(estimates, targets, magnitude, frame_mask)[0]
    other = losses.permutation_invariant(estimates[:, [2, 0, 1]], targets, magnitude, frame_mask)[0]
    np.testing.assert_allclose(first, other, rtol=1e-5)


def test_padding_counts_nothing():
    estimates, targets, magnitude, frame_mask = _data(3)
    spoilt = estimates.copy()
    spoilt.swapaxes(1, 2)[frame_mask == 0] = 77
    for loss in (
        lambda e: losses.fixed_assignment(e, targets, frame_mask),
        lambda e: losses.permutation_invariant(e, targets, magnitude, frame_mask),
    ):
        for before, after in zip(loss(estimates), loss(spoilt), strict=True):
            np.testing.assert_array_equal(before, after)


def _voices(num_sources=2, seed=0, length=4000, noise=0.3):
    """Voices that are not zero-mean, estimates in another order, and all samples valid."""
    rng = np.random.default_rng(seed)
    sources = rng.normal(size=(3, num_sources, length)) * rng.uniform(0.1, 1, (3, num_sources, 1))
    sources += 0.05
    estimates = sources * rng.uniform(0.5, 2, (3, num_sources, 1))
    estimates += noise * rng.normal(size=sources.shape) * sources.std(axis=-1, keepdims=True)
    estimates = estimates[:, rng.permutation(num_sources)]
    valid = np.ones((3, length), "float32")
    return estimates.astype("float32"), sources.astype("float32"), valid


def _clamped(ratio_db, clamp_db=losses.CLAMP_DB):
    """What a ratio of signal to noise becomes when 30 dB below the signal is added to the noise."""
    return -10 * np.log10(10 ** (-ratio_db / 10) + 10 ** (-clamp_db / 10))


def _best(pairs):
    """Mean over the best permutation of `[output, source]`, by trying all."""
    count = len(pairs)
    return max(
        np.mean([pairs[o, s] for o, s in enumerate(order)])
        for order in itertools.permutations(range(count))
    )


@pytest.mark.parametrize("num_sources", [2, 3, 4])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_negative_si_sdr_is_that_of_another_library_clamped(num_sources, noise):
    estimates, sources, valid = _voices(num_sources, noise=noise)
    error, weight = losses.negative_si_sdr(estimates, sources, valid)
    np.testing.assert_array_equal(weight, num_sources)
    for i in range(3):
        pairs = np.array(
            [
                [
                    fast_bss_eval.numpy.si_sdr(
                        s[None].astype("float64"), e[None].astype("float64"), zero_mean=True
                    )[0]
                    for s in sources[i]
                ]
                for e in estimates[i]
            ]
        )
        expected = _best(_clamped(pairs))
        np.testing.assert_allclose(-error[i] / weight[i], expected, atol=2e-3)


def test_what_is_perfect_has_the_clamp_and_what_is_better_than_it_gains_little():
    _, sources, valid = _voices()
    rng = np.random.default_rng(9)
    noise = rng.normal(size=sources.shape) * np.sqrt(np.mean(sources**2, axis=-1, keepdims=True))
    for loss in (losses.negative_si_sdr, losses.negative_snr):
        error, weight = loss(sources, sources, valid)
        np.testing.assert_allclose(np.asarray(error) / weight, -losses.CLAMP_DB, atol=0.01)
        near = sources + 10 ** (-(losses.CLAMP_DB + 10) / 20) * noise
        moved, _ = loss(near.astype("float32"), sources, valid)
        np.testing.assert_allclose(np.asarray(moved) / weight, -_clamped(40.0), atol=0.05)


@pytest.mark.parametrize("num_sources", [2, 3, 4])
def test_negative_snr_is_its_formula(num_sources):
    estimates, sources, valid = _voices(num_sources, seed=1)
    error, weight = losses.negative_snr(estimates, sources, valid)
    for i in range(3):
        pairs = np.empty((num_sources, num_sources))
        for e, s in itertools.product(range(num_sources), repeat=2):
            voice, estimate = sources[i, s].astype("float64"), estimates[i, e].astype("float64")
            power, noise = np.sum(voice**2), np.sum((voice - estimate) ** 2)
            pairs[e, s] = 10 * np.log10(power / (noise + 10 ** (-losses.CLAMP_DB / 10) * power))
        np.testing.assert_allclose(-error[i] / weight[i], _best(pairs), atol=1e-3)


def test_si_sdr_does_not_care_for_levels_and_snr_does():
    estimates, sources, valid = _voices(seed=2)
    before, _ = losses.negative_si_sdr(estimates, sources, valid)
    for gain in (0.01, 30.0):
        for e, s in ((gain * estimates, sources), (gain * estimates, gain * sources)):
            after, _ = losses.negative_si_sdr(e, s, valid)
            np.testing.assert_allclose(after, before, atol=0.02)
    one, _ = losses.negative_snr(estimates, sources, valid)
    both, _ = losses.negative_snr(0.1 * estimates, 0.1 * sources, valid)
    quiet, _ = losses.negative_snr(0.1 * estimates, sources, valid)
    np.testing.assert_allclose(both, one, atol=0.01)
    assert np.abs(np.asarray(quiet) - one).min() > 1


@pytest.mark.parametrize("loss", [losses.negative_si_sdr, losses.negative_snr])
def test_voices_that_add_up_to_the_mixture_are_in_their_best_order(loss):
    # Poor ones: the order of the best SI-SDR is not that of the best SNR.
    rng = np.random.default_rng(11)
    sources = rng.normal(size=(100, 2, 200)) * rng.uniform(0.1, 1, (100, 2, 1))
    share = rng.normal(size=(100, 1, 200)) * rng.uniform(0, 2, (100, 1, 1))
    mixture = sources.sum(1, keepdims=True)
    estimates = np.concatenate([share * mixture, (1 - share) * mixture], axis=1).astype("float32")
    sources, valid = sources.astype("float32"), np.ones((100, 200), "float32")
    found, _ = loss(estimates, sources, valid)
    pairs = [
        np.asarray(loss(estimates[:, [e, e]], sources[:, [s, s]], valid)[0]) / 2
        for e, s in itertools.product(range(2), repeat=2)
    ]
    best = np.minimum(pairs[0] + pairs[3], pairs[1] + pairs[2])
    np.testing.assert_allclose(found, best, atol=0.02)


def test_a_silent_estimate_is_worse_than_the_mixture():
    _, sources, valid = _voices(seed=6)
    mixture = sources.sum(1, keepdims=True)
    twice = losses.negative_si_sdr(np.repeat(mixture, 2, axis=1), sources, valid)[0]
    for level in (0.0, 1e-9):
        silent = np.concatenate([mixture, level * mixture], axis=1)
        silent[:, 1, ::2] *= -1
        found, _ = losses.negative_si_sdr(silent, sources, valid)
        assert np.all(np.asarray(found) > np.asarray(twice) + 20)


def _pair(loss, estimate, source, mixture):
    """What one estimate costs when it is taken for one voice, by the formulas, float64."""
    if loss is losses.negative_si_sdr:
        estimate, source, mixture = (x - x.mean() for x in (estimate, source, mixture))
    if np.sum(source**2) <= 1e-4 * np.sum(mixture**2):
        return 10 * np.log10(np.sum(estimate**2) / np.sum(mixture**2) + 1e-3)
    target = source
    if loss is losses.negative_si_sdr:
        target = source * np.sum(estimate * source) / np.sum(source**2)
    noise = np.sum((estimate - target) ** 2)
    return -_clamped(10 * np.log10(np.sum(target**2) / noise))


@pytest.mark.parametrize("loss", [losses.negative_si_sdr, losses.negative_snr])
@pytest.mark.parametrize("level", [0.0, 10 ** (-41 / 20)])
def test_silent_voices_cost_the_energy_of_their_estimates(loss, level):
    estimates, sources, valid = _voices(3, seed=3)
    own = np.sqrt(np.mean(np.sum(sources, axis=1, keepdims=True) ** 2, axis=-1, keepdims=True))
    silence = level * own[:, 0, 0] * np.random.default_rng(0).normal(size=4000)[:, None]
    sources[0, 1] = silence[:, 0]
    sources[1, [0, 2]] = silence[:, 1]
    error, weight = loss(estimates, sources, valid)
    np.testing.assert_array_equal(weight, 3)
    for i in range(3):
        given, voices = estimates[i].astype("float64"), sources[i].astype("float64")
        pairs = np.array([[_pair(loss, e, s, voices.sum(axis=0)) for s in voices] for e in given])
        np.testing.assert_allclose(error[i] / weight[i], -_best(-pairs), atol=2e-3)


@pytest.mark.parametrize("loss", [losses.negative_si_sdr, losses.negative_snr])
def test_one_voice_alone_is_best_left_alone(loss):
    _, sources, valid = _voices(seed=8)
    sources[:, 1] = 0
    voice = sources[:, 0]
    found = []
    for share in (0.5, 0.9, 0.99, 1.0):
        # They add up to the mixture, as those of a separator do.
        estimates = np.stack([(1 - share) * voice, share * voice], axis=1)
        error, weight = loss(estimates, sources, valid)
        np.testing.assert_array_equal(weight, 2)
        found.append(np.asarray(error) / 2)
        if loss is losses.negative_si_sdr:
            leak = 10 * np.log10((1 - share) ** 2 + 1e-3)
            np.testing.assert_allclose(found[-1], (leak - losses.CLAMP_DB) / 2, atol=0.01)
    assert (np.diff(found, axis=0) < 0).all()
    np.testing.assert_allclose(found[-1], (losses.FLOOR_DB - losses.CLAMP_DB) / 2, atol=0.01)


@pytest.mark.parametrize("loss", [losses.negative_si_sdr, losses.negative_snr])
def test_windows_without_a_voice_have_no_weight(loss):
    estimates, sources, valid = _voices(seed=3)
    sources[1] = 0
    error, weight = (np.asarray(x) for x in loss(estimates, sources, valid))
    np.testing.assert_array_equal(weight, [2, 0, 2])
    assert np.isfinite(error).all()
    assert error[1] == 0


def _gradient(loss, estimates, sources, valid):
    """Of the mean over the batch, with respect to the estimates, on this backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda e: ops.mean(loss(e, sources, valid)[0]))(estimates)
    import tensorflow as tf

    given = tf.Variable(estimates)
    with tf.GradientTape() as tape:
        value = ops.mean(loss(given, sources, valid)[0])
    return tape.gradient(value, given).numpy()


@pytest.mark.parametrize("loss", [losses.negative_si_sdr, losses.negative_snr])
def test_gradients_are_numbers_where_all_is_zero(loss):
    """In float32: silent targets, silent estimates, both, and perfect estimates."""
    estimates, sources, _ = _voices(seed=12)
    batch_sources = np.stack([sources[0]] * 7)
    batch_sources[1, 0] = 0
    batch_sources[2, :] = 0
    batch_sources[3, 1] = 0
    batch_sources[6, 0] *= 1e-9
    given = np.stack([estimates[0]] * 7)
    given[0, 0] = 0
    given[2, :] = 0
    given[3, 1] = 0
    given[4] = batch_sources[4]
    given[5] = 0
    given[6, 0] = 1e-9
    found = _gradient(loss, given, batch_sources, np.ones((7, 4000), "float32"))
    assert np.isfinite(found).all()
    assert np.abs(found[1]).max() > 0
    assert np.abs(found).max() < 1e6


@pytest.mark.parametrize(
    "loss", [losses.negative_si_sdr, losses.negative_snr, losses.negative_magnitude_si_sdr]
)
def test_padded_samples_count_nothing(loss):
    estimates, sources, _ = _voices(seed=4, length=3200)
    lengths = np.array([3200, 1600, 640])
    valid = (np.arange(3200)[None] < lengths[:, None]).astype("float32")
    # Padding is silence in the mixture; what the network makes there is nobody's.
    sources *= valid[:, None]
    error, weight = loss(estimates, sources, valid)
    spoilt = np.where(valid[:, None] > 0, estimates, 7.0).astype("float32")
    again, _ = loss(spoilt, sources, valid)
    np.testing.assert_allclose(error, again, rtol=1e-5)
    if loss is not losses.negative_magnitude_si_sdr:
        for i, length in enumerate(lengths):
            alone, _ = loss(
                estimates[i : i + 1, :, :length], sources[i : i + 1, :, :length], valid[:1, :length]
            )
            np.testing.assert_allclose(error[i], alone[0], atol=1e-3)
    np.testing.assert_array_equal(weight, 2)


def test_magnitude_si_sdr_is_si_sdr_of_the_spectrograms_magnitudes():
    estimates, sources, valid = _voices(seed=5)
    error, weight = losses.negative_magnitude_si_sdr(estimates, sources, valid)
    for i in range(3):
        found, voices = (
            np.abs(features.stft(x[i])).astype("float64").reshape(2, -1)
            for x in (estimates, sources)
        )
        pairs = np.array(
            [
                [fast_bss_eval.numpy.si_sdr(v[None], e[None], zero_mean=True)[0] for v in voices]
                for e in found
            ]
        )
        np.testing.assert_allclose(-error[i] / weight[i], _best(_clamped(pairs)), atol=5e-3)
