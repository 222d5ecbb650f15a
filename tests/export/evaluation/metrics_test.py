"""The figures against formulas, other libraries, and signals built to have a known ratio."""

import itertools

import mir_eval
import numpy as np
import pytest
import soundfile

from export.evaluation import metrics, oracles
from pipeline import errors, features, ideal_masks
from pipeline.audio import decoding

RATE = 8000
NAMES = ("si_sdr", "sdr")


def noise(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def at_ratio(reference, other, ratio_db):
    """`reference` with just so much of what is orthogonal to it and has no mean."""
    reference = reference - reference.mean()
    other = other - other.mean()
    other -= reference * (other @ reference) / (reference @ reference)
    wanted = (reference @ reference) / 10 ** (ratio_db / 10)
    return reference + other * np.sqrt(wanted / (other @ other))


def si_sdr_by_formula(reference, estimate):
    """Le Roux et al. 2019, equation 3."""
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    rest = target - estimate
    return 10 * np.log10((target @ target) / (rest @ rest))


@pytest.fixture(scope="module", params=["noise", "speech"])
def pair(request):
    """Two signals of 1.5 s, float64 `[source, sample]`."""
    if request.param == "noise":
        return noise(0, 2, 12000)
    folder = request.getfixturevalue("recordings") / "timit_sample"
    files = sorted(path for path in folder.rglob("*.WAV") if path.name.startswith("SX"))
    voices = []
    for path in (files[0], files[-1]):
        samples, rate = decoding.decode(path.read_bytes())
        voices.append(decoding.resample(samples, rate, RATE)[2000:14000])
    return np.array(voices, np.float64)


class TestSiSdr:
    @pytest.mark.parametrize("ratio_db", [-20, -3, 0, 12.5, 60])
    def test_of_signals_built_to_a_ratio(self, pair, ratio_db):
        estimate = at_ratio(pair[0], pair[1], ratio_db)
        matrix = metrics.si_sdr_matrix(pair[:1], estimate[np.newaxis])
        assert matrix[0, 0] == pytest.approx(ratio_db, abs=1e-4)

    def test_is_the_formula(self, pair):
        estimates = pair + 0.3 * pair[::-1] + 0.02
        matrix = metrics.si_sdr_matrix(pair, estimates)
        for s, e in itertools.product(range(2), range(2)):
            assert matrix[s, e] == pytest.approx(si_sdr_by_formula(pair[s], estimates[e]), abs=1e-6)

    @pytest.mark.parametrize("scale", [1e-9, 0.1, -1, 3e4])
    def test_does_not_depend_on_level_sign_or_mean(self, pair, scale):
        estimates = pair + 0.5 * pair[::-1]
        plain = metrics.si_sdr_matrix(pair, estimates)
        np.testing.assert_allclose(
            metrics.si_sdr_matrix(pair, scale * (estimates + 0.7)), plain, atol=1e-5
        )
        np.testing.assert_allclose(
            metrics.si_sdr_matrix(scale * (pair - 0.2), estimates), plain, atol=1e-5
        )

    @pytest.mark.parametrize("name", NAMES)
    def test_an_estimate_that_is_the_voice_itself_is_the_best_there_is(self, pair, name):
        """The ratio is infinite: the order is right, and the figure at its bound."""
        order, values = metrics.score(pair, pair[::-1], RATE, [name])
        assert list(order) == [1, 0]
        assert list(values[name]) == [100, 100]

    def test_one_of_two_estimates_is_the_voice_itself(self, pair):
        estimates = np.stack([pair[1], pair[0] + 10 * pair[1]])
        order, values = metrics.score(pair, estimates, RATE, NAMES)
        assert list(order) == [1, 0]
        assert values["si_sdr"][1] == 100
        assert values["si_sdr"][0] == pytest.approx(
            si_sdr_by_formula(pair[0], estimates[1]), abs=1e-6
        )

    def test_what_has_nothing_of_the_voice_is_the_worst_there_is(self):
        seconds = np.arange(RATE) / RATE
        voices = np.sin(2 * np.pi * 100 * seconds)[np.newaxis]
        other = np.zeros((1, RATE))
        other[0, 0], other[0, RATE // 2] = 1, -1  # Where the voice crosses zero.
        np.testing.assert_allclose(metrics.si_sdr_matrix(voices, other), -100)


class TestSdr:
    def test_is_that_of_mir_eval(self, pair):
        pair = pair - pair.mean(axis=1, keepdims=True)
        # Colour is forgiven by SDR and not by SI-SDR: without it the two could be mixed up.
        estimates = pair + 0.2 * np.roll(pair, 3, axis=1) + 0.1 * noise(1, *pair.shape) * pair.std()
        estimates -= estimates.mean(axis=1, keepdims=True)
        with pytest.warns(FutureWarning):
            expected = mir_eval.separation.bss_eval_sources(pair, estimates, False)[0]
        found = np.diag(metrics.sdr_matrix(pair, estimates))
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert (found > np.diag(metrics.si_sdr_matrix(pair, estimates)) + 1).all()


class TestPermutation:
    @pytest.mark.parametrize("seed", range(5))
    def test_has_the_largest_sum_of_all(self, seed):
        matrix = noise(seed, 4, 4)
        order = metrics.best_permutation(matrix)
        best = max(
            itertools.permutations(range(4)), key=lambda p: sum(matrix[i, p[i]] for i in range(4))
        )
        assert tuple(order) == best

    def test_of_three_voices_in_another_order(self):
        voices = noise(0, 3, RATE)
        estimates = (voices + 0.1 * noise(1, 3, RATE))[[2, 0, 1]]
        order, values = metrics.score(voices, estimates, RATE, NAMES)
        assert list(order) == [1, 2, 0]
        np.testing.assert_allclose(values["si_sdr"], 20, atol=0.3)
        np.testing.assert_allclose(values["sdr"], 20, atol=0.6)


class TestWhatCannotBeComputed:
    def test_a_silent_voice_costs_itself_alone(self):
        voices = noise(0, 2, RATE)
        voices[1] = 0
        estimates = voices[::-1] + 0.1 * noise(1, 2, RATE)
        order, values = metrics.score(voices, estimates, RATE, [*NAMES, "stoi", "pesq"])
        assert list(order) == [1, 0]
        assert values["si_sdr"][0] == pytest.approx(20, abs=0.3)
        assert all(np.isnan(of_voices[1]) for of_voices in values.values())

    def test_a_silent_and_a_constant_estimate(self):
        voices = noise(0, 2, RATE)
        matrix = metrics.si_sdr_matrix(voices, np.stack([np.zeros(RATE), np.full(RATE, 0.3)]))
        assert np.isnan(matrix).all()

    @pytest.mark.parametrize("num_samples", [1, 2, 300])
    def test_a_few_samples_raise_nothing(self, num_samples):
        pytest.importorskip("pystoi")
        voices = noise(0, 2, num_samples)
        order, values = metrics.score(voices, voices[::-1], RATE, metrics.METRICS)
        assert sorted(order) == [0, 1]
        assert np.isnan(values["stoi"]).all()
        assert np.isnan(values["pesq"]).all()
        if num_samples == 1:
            assert np.isnan(values["si_sdr"]).all()

    def test_an_estimate_that_is_no_number_costs_itself_alone(self):
        voices = noise(0, 2, RATE)
        estimates = voices[::-1] + 0.1 * noise(1, 2, RATE)
        estimates[0, 7] = np.nan
        order, values = metrics.score(voices, estimates, RATE, [*NAMES, "stoi", "pesq"])
        assert list(order) == [1, 0]
        assert values["si_sdr"][0] == pytest.approx(20, abs=0.3)
        assert all(np.isnan(of_voices[1]) for of_voices in values.values())
        assert not any(np.isnan(of_voices[0]) for of_voices in values.values())

    def test_pesq_without_an_utterance_is_not_a_number(self):
        pytest.importorskip("pesq")
        click = np.zeros((1, 2 * RATE))
        click[0, RATE : RATE + 200] = noise(0, 200)
        values = metrics.score(click, click + noise(1, *click.shape), RATE, ["pesq"])[1]
        assert np.isnan(values["pesq"][0])

    @pytest.mark.parametrize("name", ["pesq", "stoi"])
    def test_what_else_a_library_raises_is_a_fault_of_the_program(self, name, monkeypatch):
        def broken(*_, **__):
            raise TypeError("the library has changed")

        library = pytest.importorskip({"pesq": "pesq", "stoi": "pystoi"}[name])
        monkeypatch.setattr(library, name, broken)
        signal = noise(0, 1, RATE)
        with pytest.raises(TypeError, match="the library has changed"):
            metrics.score(signal, signal, RATE, [name])

    def test_a_ratio_that_fails_is_a_fault_of_the_program(self, monkeypatch):
        from fast_bss_eval import numpy as bss

        def broken(*_):
            raise ValueError("the library has changed")

        monkeypatch.setattr(bss, "pairwise_sdr_loss", broken)
        with pytest.raises(ValueError, match="the library has changed"):
            metrics.sdr_matrix(noise(0, 2, RATE), noise(1, 2, RATE))

    def test_different_lengths_are_a_mistake_of_the_caller(self):
        with pytest.raises(ValueError, match=r"\(100, 101\)"):
            metrics.score(noise(0, 2, 100), noise(0, 2, 101), RATE, NAMES)

    def test_a_library_that_is_not_installed_is_named(self, monkeypatch):
        found = metrics.importlib.util.find_spec
        monkeypatch.setattr(
            metrics.importlib.util, "find_spec", lambda n: None if n == "pesq" else found(n)
        )
        assert metrics.missing_libraries(["si_sdr", "pesq"]) == {"pesq": "pesq"}
        monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda n: None)
        with pytest.raises(errors.UserError, match=r"voices-apart\[evaluate\]"):
            metrics.missing_libraries(["pesq"])


@pytest.fixture(scope="module")
def speech(recordings):
    samples, rate = soundfile.read(sorted((recordings / "speech").rglob("*.flac"))[0])
    return decoding.resample(samples.astype(np.float32), rate, RATE)[: 3 * RATE]


class TestPerceptual:
    def test_stoi_and_pesq_fall_with_noise_and_are_best_without(self, speech):
        pytest.importorskip("pystoi")
        pytest.importorskip("pesq")
        scored = []
        for ratio_db in (100, 20, 5, -5):
            noisy = at_ratio(speech.astype(np.float64), noise(0, speech.size), ratio_db)
            _, values = metrics.score(speech[np.newaxis], noisy[np.newaxis], RATE, ["stoi", "pesq"])
            scored.append((values["stoi"][0], values["pesq"][0]))
        assert scored == sorted(scored, reverse=True)
        assert scored[0][0] == pytest.approx(1, abs=1e-3)
        assert scored[0][1] == pytest.approx(4.549, abs=0.05)  # P.862.1: the best there is

    @pytest.mark.parametrize("scale", [1e-30, 1e30])
    def test_do_not_depend_on_level(self, speech, scale):
        pytest.importorskip("pystoi")
        pytest.importorskip("pesq")
        noisy = at_ratio(speech.astype(np.float64), noise(0, speech.size), 5)[np.newaxis]
        _, plain = metrics.score(speech[np.newaxis], noisy, RATE, ["stoi", "pesq"])
        _, values = metrics.score(speech[np.newaxis], scale * noisy, RATE, ["stoi", "pesq"])
        assert values["stoi"] == pytest.approx(plain["stoi"], abs=1e-6)
        assert values["pesq"] == pytest.approx(plain["pesq"], abs=1e-4)

    def test_pesq_of_another_rate_is_not_a_number(self):
        signal = noise(0, 1, 11025)
        assert np.isnan(metrics.score(signal, signal, 11025, ["pesq"])[1]["pesq"][0])


class TestMaskAccuracy:
    def test_counted_by_hand(self):
        magnitudes = np.array([[[4, 1, 3, 1]], [[1, 4, 3, 1e-4]]], np.float32)
        mixture = np.array([[5, 5, 6, 1e-4]], np.float32)
        # The third bin is a tie, the fourth more than 40 dB below the loudest: two count.
        masks = np.array([[[0.9, 0.8, 1, 0]], [[0.1, 0.2, 0, 1]]], np.float32)
        np.testing.assert_allclose(metrics.mask_accuracy(masks, magnitudes, mixture), 50)
        np.testing.assert_allclose(metrics.mask_accuracy(masks[::-1], magnitudes, mixture), 50)
        ideal = ideal_masks.binary(magnitudes)
        np.testing.assert_allclose(metrics.mask_accuracy(ideal, magnitudes, mixture), 100)

    def test_three_voices_counted_by_hand(self):
        magnitudes = np.array([[[3, 1, 1, 3]], [[1, 3, 1, 2]], [[2, 2, 3, 1]]], np.float32)
        mixture = np.array([[5, 5, 5, 5]], np.float32)
        masks = np.array([[[0.1, 0, 0, 1]], [[0.8, 1, 0, 0]], [[0.1, 0, 1, 0]]], np.float32)
        # The first bin is given to the second voice: one of four is wrong, and counts once.
        assert metrics.mask_accuracy(masks, magnitudes, mixture) == 75

    @pytest.mark.parametrize("num_sources", [2, 3])
    def test_is_the_trainers(self, num_sources):
        from trainer import metrics as trainer_metrics

        voices = features.stft(noise(0, num_sources, RATE).astype(np.float32))
        magnitudes, mixture = np.abs(voices), np.abs(voices.sum(axis=0))
        masks = oracles.masks("oracle IRM", voices, voices.sum(axis=0))
        masks = np.clip(masks + 0.3 * noise(1, *masks.shape), 0, 1).astype(np.float32)
        agreed, counted = trainer_metrics.mask_agreement(
            masks[None], magnitudes[None], mixture[None], np.ones((1, len(mixture)), np.float32)
        )
        expected = 100 * float(agreed[0]) / float(counted[0])
        assert 50 < expected < 95
        np.testing.assert_allclose(
            metrics.mask_accuracy(masks, magnitudes, mixture), expected, atol=0.01
        )

    def test_silence_has_none(self):
        silence = np.zeros((2, 3, 129), np.float32)
        assert np.isnan(metrics.mask_accuracy(silence, silence, silence[0]))


def test_figures_and_their_titles():
    figures = metrics.figures(["si_sdr", "stoi", "mask_accuracy"])
    assert figures == [
        "si_sdr", "si_sdr_improvement", "stoi", "mask_accuracy", "mask_accuracy_as_given",
    ]  # fmt: skip
    assert metrics.title("si_sdr_improvement") == "SI-SDR improvement, dB"
    assert metrics.title("mask_accuracy_as_given") == "mask accuracy in the order given, %"
    assert metrics.of_figure("mask_accuracy_as_given").name == "mask_accuracy"
