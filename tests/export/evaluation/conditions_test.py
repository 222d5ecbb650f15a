"""Conditions made from a dataset, and their figures where those are known by a formula."""

import json

import numpy as np
import pytest
import soundfile

from export import evaluate
from export.evaluation import conditions, dataset_mixtures, scoring, turn_taking
from pipeline import errors, features, schema

RATE = 8000


@pytest.fixture(scope="module")
def folder(make_dataset, tmp_path_factory):
    """A dataset with six mixtures to test on, of one pair of speakers."""
    path = tmp_path_factory.mktemp("conditions") / "tones"
    make_dataset(path, {"train": 2, "test": 6})
    return path


def _sources(folder, *names, **settings):
    return conditions.open_all({"tones": str(folder)}, "test", names=names, **settings)


def _read(folder, name, **settings):
    (source,) = _sources(folder, name, **settings)
    return list(source.read())


def _level_db(signal):
    return 10 * np.log10(np.mean(np.square(signal, dtype=np.float64)))


def test_clean_is_what_is_stored(folder):
    (source,) = _sources(folder, "clean")
    assert (source.name, source.count) == ("tones", 6)
    stored = dataset_mixtures.read(str(folder), source.info, "test")
    for mixture, other in zip(source.read(), stored, strict=True):
        assert mixture.id == other.id
        np.testing.assert_array_equal(mixture.sources, other.sources)


def test_each_mixture_is_the_same_every_time_whatever_else_is_asked_for(folder):
    for name in conditions.NAMES:
        again = [s for s in _sources(folder, *conditions.NAMES, limit=2) if s.condition == name]
        for mixture, other in zip(again[0].read(), _read(folder, name), strict=False):
            assert mixture.id == other.id
            np.testing.assert_array_equal(mixture.waveform, other.waveform)
            np.testing.assert_array_equal(mixture.log_magnitude, other.log_magnitude)


def test_noise_lies_ten_decibels_below_the_voices(folder):
    for clean, noisy in zip(_read(folder, "clean"), _read(folder, "noise"), strict=True):
        noise = noisy.waveform - noisy.voices.sum(axis=0)
        assert _level_db(noisy.voices.sum(axis=0)) - _level_db(noise) == pytest.approx(10, abs=0.1)
        # The voices are those of the mixture, perhaps turned down.
        gain = np.sqrt(np.sum(noisy.voices**2) / np.sum(clean.voices**2))
        assert gain <= 1 + 1e-3
        np.testing.assert_allclose(noisy.voices, gain * clean.voices, atol=2 / schema.FULL_SCALE)
        expected = features.log_magnitude(features.stft(noisy.waveform))
        np.testing.assert_allclose(noisy.log_magnitude, expected, atol=0.005)


def test_recorded_noise_and_rooms_are_used(folder, tmp_path):
    time = np.arange(4 * RATE) / RATE
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "hum.wav", 0.3 * np.sin(2 * np.pi * 50 * time), RATE)
    noisy = _read(folder, "noise", noise_dir=str(tmp_path / "noise"))[0]
    spectrum = np.abs(np.fft.rfft(noisy.noise))
    assert np.fft.rfftfreq(len(noisy.noise), 1 / RATE)[spectrum.argmax()] == pytest.approx(
        50, abs=1
    )
    (tmp_path / "room").mkdir()
    # An echo after 0.1 s, half as loud, in each of two places.
    echo = np.zeros((2000, 2))
    echo[0], echo[800] = 0.5, 0.25
    soundfile.write(tmp_path / "room" / "echo.wav", echo, RATE, subtype="FLOAT")
    clean, heard = (
        _read(folder, name, **given)[0]
        for name, given in (("clean", {}), ("room", {"room_dir": str(tmp_path / "room")}))
    )
    assert heard.noise is None
    for voice, wet in zip(clean.voices, heard.voices, strict=True):
        expected = voice.copy()
        expected[800:] += 0.5 * voice[:-800]
        scale = (wet @ expected) / (expected @ expected)
        np.testing.assert_allclose(wet, scale * expected, atol=2 / schema.FULL_SCALE)


def test_solo_is_one_of_the_voices(folder):
    for clean, alone in zip(_read(folder, "clean"), _read(folder, "solo"), strict=True):
        (heard,) = np.flatnonzero(alone.sources.any(axis=1))
        np.testing.assert_array_equal(alone.sources[heard], clean.sources[heard])
        assert alone.speakers == clean.speakers[heard : heard + 1]


@pytest.mark.parametrize("num_sources", [2, 3])
def test_conversations_have_turns_pauses_and_overlaps(make_dataset, tmp_path, num_sources):
    make_dataset(tmp_path, {"test": 3}, num_sources=num_sources)
    (source,) = conditions.open_all({"d": str(tmp_path)}, "test", names=("turns",))
    made = list(source.read())
    # Of each set of speakers one.
    assert source.count == len(made) == 1
    (mixture,) = made
    assert mixture.seconds == conditions.CONVERSATION_SECONDS
    assert mixture.log_magnitude.shape == (schema.num_frames(40 * RATE), schema.NUM_BINS)
    heard = mixture.sources != 0
    # Now and then a sample is zero in the middle of speech.
    heard = np.stack([np.convolve(row, np.ones(401), "same") > 0.5 for row in heard])
    count = heard.sum(axis=0)
    assert heard.mean(axis=1).min() > 0.1
    assert 0.01 < (count > 1).mean() < 0.4
    assert 0.01 < (count == 0).mean() < 0.4
    levels = [features.active_level_db(voice) for voice in mixture.voices]
    assert np.ptp(levels) < 5 + 1.5


# What is known of systems without a model: the truth itself, the truth with leaks, and nothing.
def _turns(separations, mixture):
    rows = turn_taking.score_turns(mixture, separations, turn_taking.TURN_METRICS)
    return {row["system"]: row for row in rows}


@pytest.fixture(scope="module")
def talk():
    """Ten seconds: voice 1 for three, both for one, voice 2 for four, then nobody."""
    random = np.random.default_rng(0)
    sources = np.zeros((2, 10 * RATE), np.int16)
    sources[0, : 4 * RATE] = random.normal(size=4 * RATE) * 1500
    sources[1, 3 * RATE : 8 * RATE] = random.normal(size=5 * RATE) * 1500
    return dataset_mixtures.Mixture(
        "talk", ("a", "b"), ("f", "m"), RATE, sources, np.zeros((1, 1), np.float32)
    )


def test_the_true_voices_make_no_error(talk):
    truth = scoring.Separation("truth", talk.voices[::-1].copy())
    row = _turns([truth], talk)["truth"]
    assert row["order"] == "2 1"
    assert row["wrong_output"] == 0
    assert row["wrong_level"] == -100
    # Nothing is left: it is beyond any number, or very large.
    assert row["overlap_si_sdr"] is None or row["overlap_si_sdr"] > 60


def test_the_mixture_twice_is_right_by_chance(talk):
    half = scoring.Separation("half", np.stack([talk.waveform / 2] * 2))
    rows = _turns([half], talk)
    for name in ("half", "mixture"):
        assert rows[name]["wrong_output"] == pytest.approx(50)
        assert rows[name]["wrong_level"] == pytest.approx(0, abs=1e-6)
        assert rows[name]["overlap_si_sdr_improvement"] == pytest.approx(0, abs=1e-3)
    assert rows["mixture"]["overlap"] == pytest.approx(1 / 8, abs=0.02)


def test_leaks_and_swaps_are_counted_as_they_are(talk):
    """A tenth of each voice in the other's output; then, in two of its four seconds, swapped."""
    one, two = talk.voices
    leaky = np.stack([0.9 * one + 0.1 * two, 0.1 * one + 0.9 * two])
    swapped = leaky.copy()
    swapped[:, 5 * RATE : 7 * RATE] = swapped[::-1, 5 * RATE : 7 * RATE]
    rows = _turns(
        [scoring.Separation("leaky", leaky), scoring.Separation("swapped", swapped)], talk
    )
    assert rows["leaky"]["wrong_output"] == 0
    assert rows["leaky"]["wrong_level"] == pytest.approx(20 * np.log10(0.1 / 0.9), abs=0.01)
    ratio = [10 * np.log10(81 * np.sum(a**2) / np.sum(b**2)) for a, b in _overlap(talk)]
    # Two seconds of seven, in which the levels are the other way round.
    assert rows["swapped"]["wrong_output"] == pytest.approx(100 * 2 / 7, abs=1e-6)
    energy = [np.sum(x**2) for x in (one[: 3 * RATE], two[4 * RATE : 8 * RATE])]
    moved = np.sum(two[5 * RATE : 7 * RATE] ** 2)
    right = 0.81 * (sum(energy) - moved) + 0.01 * moved
    wrong = 0.01 * (sum(energy) - moved) + 0.81 * moved
    expected = 10 * np.log10(wrong / right)
    assert rows["swapped"]["wrong_level"] == pytest.approx(expected, abs=0.01)
    for name in ("leaky", "swapped"):
        assert rows[name]["overlap_si_sdr"] == pytest.approx(np.mean(ratio), abs=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_diarisation_error_is_pyannotes(seed):
    pyannote = pytest.importorskip("pyannote.core")
    diarization = pytest.importorskip("pyannote.metrics.diarization")
    rng = np.random.default_rng(seed)
    reference, found = (np.repeat(rng.random((2, 40)) < 0.4, 5, axis=1) for _ in range(2))
    found[:, :100] = reference[::-1, :100]

    def annotation(active):
        result = pyannote.Annotation()
        for voice, row in enumerate(active):
            for start, end in np.flatnonzero(np.diff(np.pad(row.astype(int), 1))).reshape(-1, 2):
                result[pyannote.Segment(start / 10, end / 10), f"{voice} {start}"] = voice
        return result

    expected = diarization.DiarizationErrorRate()(annotation(reference), annotation(found))
    assert turn_taking.diarization_error(reference, found) == pytest.approx(expected)


def test_the_true_turns_have_no_diarisation_error(talk):
    truth = scoring.Separation("truth", talk.voices[::-1].copy())
    rows = _turns([truth], talk)
    assert rows["truth"]["diarization_error"] == 0
    # Both outputs speak whenever one voice does: 7 of 9 seconds of speech are false alarms.
    assert rows["mixture"]["diarization_error"] == pytest.approx(100 * 7 / 9, abs=2)


def _overlap(talk):
    """Each voice and the other where both talk."""
    one, two = talk.voices[:, 3 * RATE : 4 * RATE]
    return (one, two), (two, one)


def test_solo_is_the_weaker_over_the_stronger_output(folder):
    (mixture, *_) = _read(folder, "solo")
    leak = np.stack([0.05 * mixture.waveform, 0.95 * mixture.waveform])
    nothing = np.stack([mixture.waveform, 0 * mixture.waveform])
    rows = turn_taking.score_solo(
        mixture,
        [scoring.Separation("leak", leak), scoring.Separation("nothing", nothing)],
        turn_taking.SOLO_METRICS,
    )
    found = {row["system"]: row["weaker_level"] for row in rows}
    assert found["mixture"] == 0
    assert found["leak"] == pytest.approx(20 * np.log10(0.05 / 0.95), abs=1e-4)
    assert found["nothing"] == -100
    # No figure is of the silent voice.
    assert all("si_sdr" not in row for row in rows)


def test_all_conditions_in_one_report(saved, folder, tmp_path, capsys):
    out = tmp_path / "report"
    settings = {
        "metric_names": ("si_sdr",), "workers": 1, "max_mixtures": 3, "audio": False,
        "conditions": conditions.NAMES,
    }  # fmt: skip
    summary = evaluate.evaluate([str(saved.run)], [str(folder)], str(out), **settings)
    assert [data["condition"] for data in summary["datasets"]] == list(conditions.NAMES)
    assert [data["mixtures"] for data in summary["datasets"]] == [3, 3, 3, 1, 3]
    by_name = {data["condition"]: data["systems"] for data in summary["datasets"]}
    assert by_name["noise"]["oracle IBM"]["si_sdr_improvement"]["all"]["mean"] > 3
    assert by_name["turns"]["mixture"]["wrong_output"]["all"]["mean"] == pytest.approx(50)
    assert by_name["turns"]["oracle IBM"]["wrong_output"]["all"]["mean"] < 2
    assert list(by_name["solo"]) == ["mixture", "run", "run, export.separate"]
    assert "run, export.separate" in by_name["turns"]
    assert "run, export.separate" not in by_name["room"]
    assert by_name["solo"]["mixture"]["weaker_level"]["all"]["mean"] == 0
    table = evaluate.screen(summary).split("All conditions")[1]
    for condition in conditions.NAMES:
        assert f"| tones, {condition}" in table
    page = (out / "report.html").read_text()
    assert "Table of all conditions" in page
    assert json.loads((out / "results.json").read_text()) == summary
    assert evaluate.evaluate([str(saved.run)], [str(folder)], str(out), **settings) is None
    with pytest.raises(errors.UserError, match="other settings"):
        evaluate.evaluate(
            [str(saved.run)], [str(folder)], str(out), **{**settings, "conditions": ("clean",)}
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"names": ("clean", "rain")}, "--conditions: rain is unknown; known are clean, noise"),
        ({"names": ()}, "nothing is unknown"),
        ({"names": ("clean",), "noise_dir": "n"}, "--noise_dir is for --conditions=noise"),
        ({"names": ("noise",), "room_dir": "r"}, "--room_dir is for --conditions=room"),
    ],
)
def test_what_cannot_be_made_is_refused(folder, given, message):
    with pytest.raises(errors.UserError, match=message):
        conditions.open_all({"tones": str(folder)}, "test", **given)
