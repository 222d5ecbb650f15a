"""Other projects' test sets, against recordings that are resampled and summed here."""

import logging

import numpy as np
import pytest
import soundfile
import soxr

from export import evaluate
from export.evaluation import librimix
from pipeline import errors, schema

RATE, FILE_RATE = 8000, 16000
NAMES = ("1995-1837-0001_8297-275154-0000", "61-70968-0000_908-31957-0003", "b", "c")


def make_voice(seed, level=0.02, num_samples=24000):
    """Noise of one colour a voice, in syllables, as it comes back from 16 bits."""
    random = np.random.default_rng(seed)
    tone = np.convolve(random.standard_normal(num_samples), random.standard_normal(40), "same")
    syllables = np.sin(np.arange(num_samples) / 3000 + seed) > -0.3
    return np.round(level * 32768 * tone * syllables) / 32768


def write(folder, parts):
    """Writes signals by part and name."""
    for part, own in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, samples in own.items():
            soundfile.write(folder / part / f"{name}.wav", samples, FILE_RATE)
    return str(folder)


def make_set(noise=False):
    """Signals by part and name: two voices, their sum, and with noise as well."""
    first = {name: make_voice(10 * n) for n, name in enumerate(NAMES)}
    second = {name: make_voice(10 * n + 1) for n, name in enumerate(NAMES)}
    clean = {name: first[name] + second[name] for name in NAMES}
    parts = {"mix_clean": clean, "s1": first, "s2": second}
    if noise:
        parts["noise"] = {n: make_voice(10 * i + 2, level=0.005) for i, n in enumerate(NAMES)}
        parts["mix_both"] = {name: clean[name] + parts["noise"][name] for name in NAMES}
    return parts


def read(folder, rate=RATE, split="test"):
    info = librimix.read_info(str(folder), split, rate)
    return {mixture.id: mixture for mixture in librimix.read(info)}


def resampled(samples):
    return soxr.resample(samples.astype(np.float32), FILE_RATE, RATE, quality="HQ")


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def test_voices_and_mixture_are_the_files_at_the_models_rate(tmp_path, warnings):
    parts = make_set()
    found = read(write(tmp_path, parts))
    assert sorted(found) == sorted(NAMES)
    for name, mixture in found.items():
        assert mixture.rate == RATE
        for voice, part in zip(mixture.voices, ("s1", "s2"), strict=True):
            np.testing.assert_allclose(voice, resampled(parts[part][name]), atol=0.6 / 32768)
        np.testing.assert_allclose(
            mixture.waveform, resampled(parts["mix_clean"][name]), atol=1.6 / 32768
        )
        assert mixture.noise is None
        assert mixture.log_magnitude.shape == (schema.num_frames(12000), schema.NUM_BINS)
    assert found[NAMES[0]].speakers == ("1995", "8297")
    assert found["b"].speakers == ("s1/b", "s2/b")
    assert warnings() == []


def test_at_their_own_rate_16_bits_come_back_exactly(tmp_path):
    parts = make_set()
    info = librimix.read_info(write(tmp_path, parts), "test")
    assert info.sample_rate == FILE_RATE
    for mixture in librimix.read(info, limit=2):
        np.testing.assert_array_equal(mixture.voices[0], parts["s1"][mixture.id])
        np.testing.assert_array_equal(mixture.waveform, parts["mix_clean"][mixture.id])


def test_noise_is_in_the_mixture_and_in_no_voice(tmp_path, warnings, capsys):
    parts = make_set(noise=True)
    write(tmp_path, parts)
    clean = read(tmp_path)
    assert "mix_clean is taken of mix_both, mix_clean" in capsys.readouterr().out
    assert all(mixture.noise is None for mixture in clean.values())
    noisy = read(tmp_path / "mix_both")
    for name, mixture in noisy.items():
        np.testing.assert_array_equal(mixture.sources, clean[name].sources)
        np.testing.assert_allclose(
            mixture.noise / 32768, resampled(parts["noise"][name]), atol=2.1 / 32768
        )
        np.testing.assert_allclose(
            mixture.waveform, resampled(parts["mix_both"][name]), atol=0.6 / 32768
        )
    assert warnings() == []


def test_what_is_neither_voice_nor_noise_is_told(tmp_path, warnings):
    parts = make_set()
    extra = make_voice(99)
    parts["mix_clean"]["b"] = parts["mix_clean"]["b"] + extra
    found = read(write(tmp_path, parts))
    level = 10 * np.log10(np.sum(extra**2) / np.sum(parts["mix_clean"]["b"] ** 2))
    (told,) = warnings()
    assert "in 1 of 4 mixtures of mix_clean there is something else" in told
    assert float(told.split("b: ")[1].split()[0]) == pytest.approx(level, abs=0.7)
    np.testing.assert_allclose(found["b"].noise / 32768, resampled(extra), atol=2.1 / 32768)


def test_voices_are_brought_to_their_level_in_the_mixture(tmp_path, warnings):
    parts = make_set()
    gains = np.array([0.5, 2.0])
    parts["mix_clean"]["c"] = gains[0] * parts["s1"]["c"] + gains[1] * parts["s2"]["c"]
    found = read(write(tmp_path, parts))["c"]
    for voice, part, gain in zip(found.voices, ("s1", "s2"), gains, strict=True):
        expected = gain * resampled(parts[part]["c"])
        np.testing.assert_allclose(voice, expected, atol=3 / 32768)
    (told,) = warnings()
    assert "in 1 of 4 mixtures" in told
    assert "(c: -6.0 dB, +6.0 dB)" in told


def test_lengths_may_differ_by_padding(tmp_path, warnings):
    parts = make_set()
    parts["s2"]["b"][16000:] = 0
    parts["mix_clean"]["b"] = parts["s1"]["b"] + parts["s2"]["b"]
    parts["s2"]["b"] = parts["s2"]["b"][:16000]
    parts["s1"]["c"] = np.pad(parts["s1"]["c"], (0, 500))
    found = read(write(tmp_path, parts))
    assert {mixture.sources.shape for mixture in found.values()} == {(2, 12000)}
    assert not found["b"].sources[1, 8010:].any()
    assert warnings() == []


def test_floating_point_that_exceeds_16_bits_is_scaled_as_a_whole(tmp_path):
    parts = make_set()
    for own in parts.values():
        own["b"] = own["b"] * (3 / np.abs(parts["mix_clean"]["b"]).max())
    write(tmp_path, parts)
    for part, own in parts.items():
        soundfile.write(tmp_path / part / "b.wav", own["b"], FILE_RATE, "FLOAT")
    mixture = read(tmp_path)["b"]
    assert 0.95 < np.abs(mixture.waveform).max() < 1
    loud = np.abs(mixture.waveform) > 0.3
    ratio = mixture.waveform[loud] / resampled(parts["mix_clean"]["b"])[loud]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-3)


def test_splits_are_told_by_their_folders(tmp_path):
    folder = tmp_path / "2speakers" / "wav8k" / "min"
    for part in ("tr", "cv", "tt"):
        write(folder / part, make_set())
    info = librimix.read_info(str(tmp_path), "valid", RATE)
    assert info.set.folder == str(folder / "cv")
    assert info.splits["valid"].mixtures == 4
    # Of one set any split is asked for.
    assert librimix.read_info(str(folder / "cv"), "test", RATE).splits["test"].mixtures == 4
    write(folder / "test-other", make_set())
    with pytest.raises(errors.UserError, match=r"several sets .*min/test-other, .*min/tt\); name"):
        librimix.read_info(str(tmp_path), "test", RATE)
    only = tmp_path / "only"
    write(only / "train-100", make_set())
    with pytest.raises(errors.UserError, match="no mixtures in split test; it has train"):
        librimix.read_info(str(only), "test", RATE)


def test_a_voice_that_is_missing_is_named(tmp_path):
    folder = write(tmp_path, make_set())
    (tmp_path / "s2" / "c.wav").unlink()
    with pytest.raises(errors.UserError, match="s2 lacks c, which mix_clean has"):
        librimix.read_info(folder, "test", RATE)


@pytest.mark.parametrize("paths", [(), ("s1/a.wav", "s2/a.wav"), ("mix/a.wav", "s1/a.wav")])
def test_other_folders_are_none(tmp_path, paths):
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    assert librimix.read_info(str(tmp_path), "test") is None
    assert librimix.read_info(str(tmp_path / "absent"), "test") is None


def test_a_model_of_another_rate_is_evaluated_on_it(tmp_path, saved):
    parts = make_set(noise=True)
    write(tmp_path / "set", parts)
    summary = evaluate.evaluate(
        [str(saved.run)],
        [str(tmp_path / "set" / "mix_both")],
        str(tmp_path / "report"),
        metric_names=("si_sdr",),
        workers=1,
        audio=False,
    )
    (data,) = summary["datasets"]
    assert (data["mixtures"], data["rate"], data["num_sources"]) == (4, RATE, 2)
    found = data["systems"]["mixture"]["si_sdr"]["all"]["mean"]
    expected = [
        si_sdr(resampled(parts[part][name]), resampled(parts["mix_both"][name]))
        for name in NAMES
        for part in ("s1", "s2")
    ]
    assert found == pytest.approx(np.mean(expected), abs=0.05)


def si_sdr(reference, estimate):
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = (estimate @ reference) / (reference @ reference) * reference
    return 10 * np.log10(np.sum(target**2) / np.sum((estimate - target) ** 2))
