"""Full band, routing and channels, with models whose outputs are known."""

import contextlib

import numpy as np
import pytest
import scipy.signal
import soundfile

from export import separate
from export.conversations import channels, conversation, file_separation, routing
from export.separation import jobs, long_audio, spool
from pipeline import errors
from pipeline.audio import decoding


def run(samples, rate, model, block=30000, **options):
    blocks = [samples[i : i + block] for i in range(0, len(samples), block)]
    talk = conversation.Conversation(lambda: blocks, rate, model, conversation.Options(**options))
    return np.concatenate(list(talk.pieces()), axis=1), talk


class TestFullBand:
    @pytest.mark.parametrize(("rate", "num_channels"), [(16000, 1), (44100, 2), (48000, 3)])
    def test_voices_add_up_to_all_of_the_recording(self, bands, rate, num_channels):
        samples = 0.1 * np.random.default_rng(0).standard_normal((3 * rate + 7, num_channels))
        samples = samples.astype(np.float32)
        voices, _ = run(samples, rate, bands, gate=False, channels="mix")
        assert voices.shape == (2, *samples.shape)
        np.testing.assert_allclose(voices.sum(axis=0), samples, atol=1e-6)
        # Below the model's band they are what the model gives.
        plain, _ = run(samples, rate, bands, gate=False, band="model", channels="mix")
        low = [decoding.resample(np.ascontiguousarray(v[0]), rate, 6000) for v in (voices, plain)]
        middle = slice(500, len(low[0]) - 500)
        assert np.square(low[0] - low[1])[middle].mean() < 0.01 * np.square(low[1]).mean()

    def test_what_sounds_above_goes_to_the_voice_that_hisses_below(self, bands):
        rate, random = 16000, np.random.default_rng(0)
        turns = np.arange(4 * rate) < 2 * rate
        hiss = scipy.signal.butter(6, 2500, "high", fs=rate, output="sos")
        hiss = scipy.signal.sosfilt(hiss, random.standard_normal(4 * rate)) * turns
        buzz = scipy.signal.butter(6, 800, "low", fs=rate, output="sos")
        buzz = scipy.signal.sosfilt(buzz, random.standard_normal(4 * rate))
        samples = (0.1 * (hiss + buzz)).astype(np.float32)[:, np.newaxis]
        voices, _ = run(samples, rate, bands, gate=False)
        high = scipy.signal.butter(8, 4500, "high", fs=rate, output="sos")
        powers = np.square(scipy.signal.sosfilt(high, voices[..., 0])).mean(axis=1)
        assert powers[1] > 10 * powers[0]

    def test_without_band_and_gate_it_is_what_the_model_gives(self, bands, speechlike):
        samples = np.stack([speechlike(90000, 1), speechlike(90000, 2)], axis=1)
        settings = {"chunk_seconds": 2.0, "overlap_seconds": 0.5}
        found, _ = run(samples, 22050, bands, band="model", gate=False, **settings)
        expected = list(long_audio.voices_of([samples], 22050, bands, **settings))
        np.testing.assert_array_equal(found, np.concatenate(expected, axis=1))

    def test_three_voices(self, make_stub):
        model = make_stub(lambda w: np.stack([0.5 * w, 0.3 * w, 0.2 * w], axis=1), 3)
        samples = 0.1 * np.random.default_rng(0).standard_normal((20000, 1)).astype(np.float32)
        voices, _ = run(samples, 16000, model)
        np.testing.assert_allclose(voices.sum(axis=0), samples, atol=1e-6)

    def test_progress_and_listeners(self, bands, speechlike):
        told, heard = [], []
        samples = speechlike(90000)[:, np.newaxis]
        talk = conversation.Conversation(
            lambda: [samples[:50000], samples[50000:]], 16000, bands,
            listeners=[lambda mixture, voices: heard.append((mixture, voices))],
            progress=lambda stage, done: told.append((stage, done)),
        )  # fmt: skip
        voices = np.concatenate(list(talk.pieces()), axis=1)
        assert voices.shape == (2, 90000, 1)
        stages = dict(told)
        assert list(stages) == ["separating", "writing"]
        assert set(stages.values()) == {90000}
        mixture = np.concatenate([m for m, _ in heard])
        parts = np.concatenate([v for _, v in heard], axis=1)
        assert 45000 <= len(mixture) < 45100
        np.testing.assert_allclose(parts.sum(axis=0), mixture, atol=1e-6)

    def test_a_recording_that_changes_is_an_error(self, bands, speechlike):
        lengths = [50000, 50000, 40000]
        talk = conversation.Conversation(
            lambda: [speechlike(lengths.pop(0))[:, np.newaxis]], 16000, bands,
            conversation.Options(),
        )  # fmt: skip
        with pytest.raises(errors.UserError, match="changed"):
            list(talk.pieces())

    @pytest.mark.parametrize("option", [{"band": "wide"}, {"channels": "left"}])
    def test_unknown_options(self, option):
        with pytest.raises(ValueError, match="is one of"):
            conversation.Options(**option)


class TestRouting:
    def test_states_and_fades(self):
        plan = routing.Routing(
            np.array([0, 1, 2, 3]),
            np.array(
                [routing.STRAIGHT, routing.SWAPPED, routing.ALL_TO_FIRST, routing.ALL_TO_SECOND]
            ),
        )
        voices = np.stack([np.full((4000, 1), 3.0), np.full((4000, 1), 5.0)]).astype(np.float32)
        blocks = [plan.route(voices[:, i : i + 300], i, 1000) for i in range(0, 4000, 300)]
        found = np.concatenate(blocks, axis=1)[..., 0]
        np.testing.assert_allclose(found.sum(axis=0), 8, rtol=1e-6)
        for second, expected in enumerate([(3, 5), (5, 3), (8, 0), (0, 8)]):
            inside = found[:, 1000 * second + 10 : 1000 * second + 990]
            np.testing.assert_array_equal(inside, np.repeat(np.array([expected]).T, 980, axis=1))
        np.testing.assert_allclose(found, plan.route(voices, 0, 1000)[..., 0], atol=1e-6)


class TestSpool:
    def test_reads_what_was_appended(self):
        samples = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
        with spool.Spool() as kept:
            for first in range(0, 1000, 70):
                kept.append(samples[first : first + 70])
            np.testing.assert_array_equal(kept.read(0, 1000), samples)
            np.testing.assert_array_equal(kept.read(123, 456), samples[123:456])
            padded = np.pad(samples, ((20, 30), (0, 0)))
            np.testing.assert_array_equal(kept.read(-20, 1030), padded)
            assert not kept.read(2000, 2010).any()
            assert kept.read(2000, 2010).shape == (10, 3)

    def test_a_pipe_is_read_once(self):
        blocks = iter([np.ones((5, 1), np.float32), np.zeros((3, 1), np.float32)])
        with contextlib.ExitStack() as stack:
            again = conversation.spooled(blocks, stack)
            for _ in range(2):
                assert np.concatenate(list(again())).sum() == 5


@pytest.fixture(scope="module")
def talkers():
    """Two speakers who take turns, with pauses, `[2, sample]` at 16 kHz."""
    random = np.random.default_rng(4)
    voices = np.zeros((2, 16000 * 12))
    for index, start in enumerate(range(0, 11 * 16000, 20000)):
        part = random.standard_normal(18000) * np.hanning(18000)
        voices[index % 2, start : start + 18000] += 0.2 * scipy.signal.lfilter([1], [1, -0.8], part)
    # Once they speak at the same time.
    voices[:, 16000 * 10 : 16000 * 11] += 0.1 * random.standard_normal((2, 16000))
    return voices


def decibels(values):
    return 10 * np.log10(np.square(values).mean())


class TestChannels:
    def call(self, talkers, crosstalk):
        other = scipy.signal.lfilter(crosstalk, [1], talkers[::-1], axis=1)
        noise = 1e-4 * np.random.default_rng(0).standard_normal(talkers.shape)
        return np.ascontiguousarray((talkers + other + noise).T, np.float32)

    @pytest.mark.parametrize("crosstalk", [[0.05], [0, 0, 0, 0.04, 0.02, -0.02, 0.01]])
    def test_a_call_is_freed_of_crosstalk(self, talkers, make_stub, crosstalk):
        model = make_stub(lambda waveform: pytest.fail("no model is needed"))
        samples = self.call(talkers, crosstalk)
        voices, talk = run(samples, 16000, model)
        assert talk.mode == "separate"
        assert "a speaker on each channel" in talk.notes[0]
        np.testing.assert_allclose(voices.sum(axis=0), samples, atol=1e-6)
        for own in (0, 1):
            before = decibels(samples[:, own] - talkers[own])
            assert decibels(voices[own, :, own] - talkers[own]) < before - 8

    def test_a_clean_call_stays_as_it_is(self, talkers, bands):
        samples = self.call(talkers, [0])
        voices, talk = run(samples, 16000, bands)
        assert "as they are" in talk.notes[0]
        for own in (0, 1):
            np.testing.assert_array_equal(voices[own, :, own], samples[:, own])
            assert not voices[own, :, 1 - own].any()

    def test_stereo_is_no_call(self, talkers):
        """Microphones that stand apart; the same on both; one channel; a person on one alone."""
        late = np.pad(talkers, ((0, 0), (9, 0)))[:, : talkers.shape[1]]
        mono = talkers.sum(axis=0)
        hiss = 1e-5 * np.random.default_rng(0).standard_normal(len(mono))
        for left, right in (
            (talkers[0] + 0.7 * late[1], 0.7 * late[0] + talkers[1]),
            (talkers[0] + 0.4 * talkers[1], 0.4 * talkers[0] + talkers[1]),
            (mono, mono),
            (mono, 0 * mono),
            (talkers[0], 0.05 * talkers[0]),
            (0 * mono, 0 * mono),
            # Speech with digital silence in its pauses, and the noise of an unused input.
            (mono * (np.abs(mono) > 1e-3), hiss),
        ):
            samples = np.stack([left, right], axis=1).astype(np.float32)
            assert channels.examine([samples], 16000, wanted=False) is None

    def test_what_is_wanted_is_done(self, talkers, bands):
        samples = np.stack([talkers[0] + 0.4 * talkers[1], talkers[1]], axis=1).astype(np.float32)
        voices, talk = run(samples, 16000, bands, channels="separate")
        assert talk.mode == "separate"
        np.testing.assert_allclose(voices.sum(axis=0), samples, atol=1e-6)
        # Nothing is claimed that was not found.
        _, talk = run(samples * np.float32([1, 0]), 16000, bands, channels="separate")
        assert "there does not seem to be a speaker on each channel" in talk.notes[0]
        _, talk = run(self.call(talkers, [0.05]), 16000, bands, channels="mix")
        assert talk.mode == "mix"
        with pytest.raises(errors.UserError, match="two channels, not 1"):
            run(samples[:, :1], 16000, bands, channels="separate")

    def test_two_channels_are_not_three_voices(self, make_stub):
        model = make_stub(lambda w: np.stack([w / 3] * 3, axis=1), 3)
        samples = np.zeros((8000, 2), np.float32)
        with pytest.raises(errors.UserError, match="two voices, and the model has 3"):
            run(samples, 8000, model, channels="separate")

    def test_nothing_is_said_of_a_model_that_is_not_used(self, talkers, bands, tmp_path):
        source = tmp_path / "call.wav"
        samples = self.call(talkers, [0]) * np.float32([1, 0.01])
        soundfile.write(source, samples, 16000, subtype="FLOAT")
        done = file_separation.separate_file(jobs.Job(source, tmp_path / "call"), bands)
        assert done.mode == "separate"
        assert "the model finds" not in done.note

    def test_listeners_hear_a_single_sample(self, bands):
        heard = []
        samples = np.array([[0.5, 0.25]], np.float32)
        talk = conversation.Conversation(
            lambda: [samples], 44100, bands, conversation.Options(channels="separate"),
            listeners=[lambda mixture, voices: heard.append(voices)],
        )  # fmt: skip
        voices = np.concatenate(list(talk.pieces()), axis=1)
        np.testing.assert_array_equal(voices.sum(axis=0), samples)
        assert np.concatenate(heard, axis=1).shape[1] > 0

    def test_from_python_blocks_leave_no_seams(self, talkers, bands, monkeypatch):
        samples = self.call(talkers, [0.05])
        expected, _ = run(samples, 16000, bands, block=len(samples), channels="mix")
        monkeypatch.setattr(separate, "_BLOCK", 10007)
        found = separate.separate(samples, 16000, bands, channels="mix")
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_from_python(self, talkers, bands):
        samples = self.call(talkers, [0.05])
        assert separate.separate(samples, 16000, bands).shape == (2, *samples.shape)
