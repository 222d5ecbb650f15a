"""Synthetic speakers are all different, within human ranges, and sound as they were drawn."""

import collections

import numpy as np
import pytest

from pipeline import features
from pipeline.corpora import espeak, harvard, synthetic_speakers

SENTENCES = harvard.SENTENCES[:40]


@pytest.fixture(scope="module")
def readings():
    """Eight speakers with two recordings each."""
    try:
        espeak.version()
    except espeak.EspeakError as error:
        pytest.skip(str(error))
    drawn = [synthetic_speakers.draw(1, "train", index) for index in range(8)]
    return [(speaker, synthetic_speakers.read(speaker, SENTENCES, 2)) for speaker in drawn]


def long_term_spectrum_db(samples):
    """Returns the mean power in dB in 8 bands of the active part."""
    power = np.abs(features.stft(samples.astype(np.float32) / 32768)) ** 2
    bands = power.mean(axis=0)[1:].reshape(8, 16).mean(axis=1)
    levels = 10 * np.log10(bands)
    return levels - levels.max()


def test_a_speaker_depends_on_seed_split_and_index_alone():
    assert synthetic_speakers.draw(3, "train", 5) == synthetic_speakers.draw(3, "train", 5)
    others = [(4, "train", 5), (3, "test", 5), (3, "train", 7)]
    assert all(
        synthetic_speakers.draw(*other) != synthetic_speakers.draw(3, "train", 5)
        for other in others
    )


def test_no_two_speakers_are_alike_and_all_are_human():
    drawn = [synthetic_speakers.draw(0, s, i) for s in ("train", "test") for i in range(300)]
    assert len({(s.voice, s.pitch_hz, s.tract_ratio) for s in drawn}) == len(drawn)
    assert len({s.voice for s in drawn}) == len(drawn)
    women = [s.pitch_hz for s in drawn if s.sex == "f"]
    men = [s.pitch_hz for s in drawn if s.sex == "m"]
    assert len(women) == len(men)
    # The usual values for adults reading aloud are 200 and 115 Hz.
    assert 185 < np.mean(women) < 220
    assert 105 < np.mean(men) < 130
    assert min(men) > 70
    assert max(women) < 300
    # Each accent is equally frequent for both sexes; 300 is not a multiple of 16.
    accents = collections.Counter((s.sex, s.accent) for s in drawn)
    assert set(accents.values()) <= {36, 38}
    # The library uses these for whispers and creaks.
    assert all("breath" not in s.voice and "echo" not in s.voice for s in drawn)


def test_recordings_hold_new_sentences_and_are_long_and_loud_enough(readings):
    for speaker, recordings in readings:
        said = [sentence for sentences, _ in recordings for sentence in sentences]
        assert len(set(said)) == len(said)
        assert set(said) <= set(SENTENCES)
        for _, samples in recordings:
            assert samples.dtype == np.int16
            assert 2.5 < samples.size / synthetic_speakers.RATE < 7.5
            level = features.active_level_db(samples / 32768)
            assert abs(level - speaker.level_db) < 4
            assert np.abs(samples.astype(int)).max() < 32767


def test_pitch_is_heard_as_drawn(readings, median_pitch):
    for speaker, recordings in readings:
        heard = median_pitch(recordings[0][1], synthetic_speakers.RATE)
        assert heard == pytest.approx(speaker.pitch_hz, rel=0.25), speaker


def test_sentences_take_as_long_as_people_take(readings):
    for _, recordings in readings:
        words = sum(len(sentence.split()) for said, _ in recordings for sentence in said)
        seconds = sum(samples.size for _, samples in recordings) / synthetic_speakers.RATE
        assert 2 < words / seconds < 5


def test_speakers_differ_more_than_recordings_of_one(readings):
    spectra = np.array(
        [[long_term_spectrum_db(samples) for _, samples in r] for _, r in readings]
    )  # [speaker, recording, band]
    within = np.abs(spectra[:, 0] - spectra[:, 1]).mean()
    between = np.mean(
        [
            np.abs(spectra[i, 0] - spectra[j, 0]).mean()
            for i in range(len(spectra))
            for j in range(i)
            if readings[i][0].sex == readings[j][0].sex
        ]
    )
    assert between > 1.5 * within


def test_the_same_speaker_reads_the_same_samples_whoever_spoke_before(readings):
    speaker, first = readings[0]
    again = synthetic_speakers.read(speaker, SENTENCES, 2)
    assert [said for said, _ in again] == [said for said, _ in first]
    for (_, one), (_, other) in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_equalizer_has_the_gain_that_was_asked_for():
    gains = (0.0, 0.0, 3.0, -4.0, 2.0, 0.0, 0.0)
    time = np.arange(8000) / synthetic_speakers.RATE
    for hertz, gain in [(400, 3.0), (1000, -4.0), (2500, 2.0)]:
        tone = np.sin(2 * np.pi * hertz * time)
        inner = slice(2000, 6000)
        ratio = synthetic_speakers._equalize(tone, gains)[inner].std() / tone[inner].std()
        assert 20 * np.log10(ratio) == pytest.approx(gain, abs=0.1)


def test_too_few_sentences_are_refused():
    with pytest.raises(ValueError, match="up to 6 sentences"):
        synthetic_speakers.read(synthetic_speakers.draw(0, "train", 0), SENTENCES[:5], 3)
