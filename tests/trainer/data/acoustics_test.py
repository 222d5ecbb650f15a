"""Noise and room responses against what they are defined by, and folders that are no use."""

import numpy as np
import pytest
import scipy.signal
import soundfile

from pipeline import errors
from trainer.data import acoustics

RATE = 8000


def test_a_response_begins_with_the_direct_sound_at_the_ratio_asked_for():
    rng = np.random.default_rng(0)
    for seconds, ratio_db in ((0.1, -3.0), (0.4, 3.0), (0.5, 9.0)):
        response = acoustics.room_response(rng, seconds, ratio_db, RATE).astype(np.float64)
        assert len(response) == round(seconds * RATE)
        assert response[0] == 1
        assert not response[1 : 1 + RATE // 1000].any()  # The first reflection takes its time.
        rest = np.square(response[1:]).sum()
        assert 10 * np.log10(1 / rest) == pytest.approx(ratio_db, abs=1e-3)


@pytest.mark.parametrize("seconds", [0.15, 0.45])
def test_a_response_decays_by_60_db_in_its_time(seconds):
    """By Schroeder's backward integration, as reverberation times are measured."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(20):
        response = acoustics.room_response(rng, seconds, 0.0, RATE)[1:].astype(np.float64)
        left = np.cumsum(np.square(response)[::-1])[::-1]
        decay_db = 10 * np.log10(left / left[0])
        time = np.arange(len(decay_db)) / RATE
        part = (decay_db < -5) & (decay_db > -25)
        slope, _ = np.polyfit(time[part], decay_db[part], 1)
        found.append(-60 / slope)
    assert np.mean(found) == pytest.approx(seconds, rel=0.1)


def test_a_voice_comes_when_it_came_and_as_loud():
    rng = np.random.default_rng(2)
    voices = np.zeros((2, 16000), np.float32)
    voices[0, 4000], voices[1, 9000] = 1.0, 0.5
    heard = acoustics.Surroundings(RATE).in_room(rng, voices)
    assert [np.flatnonzero(np.abs(voice) > 1e-6)[0] for voice in heard] == [4000, 9000]
    np.testing.assert_allclose(
        np.square(heard).mean(axis=1), np.square(voices).mean(axis=1), rtol=1e-4
    )
    assert not acoustics.Surroundings(RATE).in_room(rng, np.zeros((2, 800), np.float32)).any()


def test_coloured_noise_falls_with_frequency_as_its_slope_says():
    for seed in range(5):
        slope = np.random.default_rng(seed).uniform(*acoustics._NOISE_SLOPES)
        noise = acoustics.coloured_noise(np.random.default_rng(seed), 64000)
        assert noise.dtype == np.float32
        assert np.mean(np.square(noise, dtype=np.float64)) == pytest.approx(1, rel=0.01)
        frequency, power = scipy.signal.welch(noise, RATE, nperseg=1024)
        part = (frequency > 100) & (frequency < 3900)
        fitted, _ = np.polyfit(np.log(frequency[part]), np.log(power[part]), 1)
        assert -fitted == pytest.approx(slope, abs=0.1)


def test_recorded_responses_begin_at_their_direct_sound(tmp_path):
    response = np.zeros(2000)
    response[700], response[900] = 0.8, 0.4
    soundfile.write(tmp_path / "hall.wav", response, RATE, "FLOAT")
    surroundings = acoustics.Surroundings(RATE, room_dir=str(tmp_path))
    voices = np.zeros((1, 4000), np.float32)
    voices[0, 1000] = 1.0
    heard = surroundings.in_room(np.random.default_rng(0), voices)[0]
    large = np.flatnonzero(np.abs(heard) > 1e-3)
    np.testing.assert_array_equal(large, [1000, 1200])
    assert heard[1200] / heard[1000] == pytest.approx(0.5, rel=1e-3)


def _responses(folder, **files):
    """Impulse responses that tell where they come from: an echo after so many samples a channel."""
    for name, echoes in files.items():
        response = np.zeros((500, len(echoes)))
        response[3] = 0.5
        for channel, echo in enumerate(echoes):
            response[3 + echo, channel] = 0.25
        soundfile.write(folder / f"{name}.wav", response, RATE, "FLOAT")


def _echoes(surroundings, seed, count=2):
    """After how many samples each voice's echo comes."""
    voices = np.zeros((count, 2000), np.float32)
    voices[:, 1000] = 1.0
    heard = surroundings.in_room(np.random.default_rng(seed), voices)
    found = [np.flatnonzero(np.abs(voice) > 1e-3) - 1000 for voice in heard]
    # No average of channels: one echo each, half as loud as the direct sound.
    assert all(len(places) == 2 and places[0] == 0 for places in found)
    for voice, places in zip(heard, found, strict=True):
        assert voice[1000 + places[1]] / voice[1000] == pytest.approx(0.5, rel=1e-3)
    return [int(places[1]) for places in found]


def test_a_mixture_has_one_room_and_each_voice_a_channel_of_it(tmp_path):
    rooms_of = {"hall": (101, 102, 103), "kitchen": (201, 202)}
    _responses(tmp_path, **rooms_of)
    surroundings = acoustics.Surroundings(RATE, room_dir=str(tmp_path))
    pairs = {tuple(_echoes(surroundings, seed)) for seed in range(80)}
    assert pairs == {
        (a, b) for places in rooms_of.values() for a in places for b in places if a != b
    }


def test_places_repeat_where_a_room_has_fewer_than_voices(tmp_path):
    _responses(tmp_path, cellar=(50,), kitchen=(201, 202))
    surroundings = acoustics.Surroundings(RATE, room_dir=str(tmp_path))
    found = {tuple(sorted(_echoes(surroundings, seed, count=3))) for seed in range(30)}
    assert found == {(50, 50, 50), (201, 201, 202), (201, 202, 202)}


def test_noise_takes_two_bytes_a_sample_and_keeps_what_is_faint(tmp_path):
    rng = np.random.default_rng(0)
    recorded = 1e-5 * rng.standard_normal((4000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "faint.wav", recorded, RATE, "FLOAT")
    surroundings = acoustics.Surroundings(RATE, noise_dir=str(tmp_path))
    assert [kept.dtype for kept in surroundings._noises] == [np.int16]
    noise = surroundings.noise(rng, np.ones(4000, np.float32), 0.0)
    start = np.argmax(np.correlate(np.tile(recorded.mean(axis=1), 2), noise, "valid"))
    expected = np.roll(recorded.mean(axis=1), -start)
    expected /= np.sqrt(np.mean(expected**2))
    np.testing.assert_allclose(noise, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["noise_dir", "room_dir"])
def test_what_is_left_out_is_said(tmp_path, kind, caplog):
    soundfile.write(tmp_path / "good.wav", np.full(800, 0.1), RATE, "FLOAT")
    (tmp_path / "cut.flac").write_bytes(b"fLaC")
    soundfile.write(tmp_path / "nan.wav", np.full(800, np.nan), RATE, "FLOAT")
    soundfile.write(tmp_path / "silence.wav", np.zeros(800), RATE)
    with caplog.at_level("WARNING", "absl"):
        acoustics.Surroundings(RATE, **{kind: str(tmp_path)})
    assert f"3 of 4 files in {tmp_path} are left out, such as cut.flac: " in caplog.text
    assert len(caplog.text.splitlines()) == 1


def test_noise_goes_round_where_the_recording_is_short(tmp_path):
    rng = np.random.default_rng(0)
    recorded = rng.uniform(-0.5, 0.5, 3000)
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "street.wav", recorded, RATE, "FLOAT")
    surroundings = acoustics.Surroundings(RATE, noise_dir=str(tmp_path))
    voices = rng.standard_normal(10000).astype(np.float32)
    noise = surroundings.noise(rng, voices, 20.0)
    np.testing.assert_array_equal(noise[3000:6000], noise[:3000])
    ratio_db = 10 * np.log10(np.mean(voices**2) / np.mean(noise**2))
    assert ratio_db == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("kind", ["noise_dir", "room_dir"])
def test_a_folder_of_no_use_is_refused_before_anything_is_mixed(tmp_path, kind):
    with pytest.raises(errors.UserError, match="nowhere"):
        acoustics.Surroundings(RATE, **{kind: str(tmp_path / "nowhere")})
    (tmp_path / "notes.txt").write_text("no recording")
    soundfile.write(tmp_path / "silence.wav", np.zeros(800), RATE)
    with pytest.raises(
        errors.UserError, match=r"no recording that can be used, such as notes\.txt: "
    ):
        acoustics.Surroundings(RATE, **{kind: str(tmp_path)})
