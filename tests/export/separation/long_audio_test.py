"""One recording to its voices: rates, lengths, channels, and what is said of the outcome."""

import numpy as np
import pytest
import scipy.signal

from export.separation import long_audio
from pipeline import errors
from pipeline.audio import decoding


def run(model, samples, rate, block=5000, **settings):
    """All voices of `samples` `[sample, channel]`, `[source, sample, channel]`."""
    blocks = [samples[i : i + block] for i in range(0, len(samples), block)]
    return np.concatenate(list(long_audio.voices_of(blocks, rate, model, **settings)), axis=1)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 6000])
@pytest.mark.parametrize("length", [1, 37, 800, 30011])
def test_as_many_samples_as_went_in(bands, rate, length):
    samples = np.random.default_rng(0).normal(size=(length, 2)).astype(np.float32)
    assert run(bands, samples, rate).shape == (2, length, 2)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_voices_add_up_to_what_the_model_can_hear(bands, rate):
    """Against a low-pass filter of SciPy's, within the band that neither cuts into."""
    time = np.arange(3 * rate) / rate
    within = sum(np.sin(2 * np.pi * f * time) for f in (200, 900, 1500, 3000))
    above = np.sin(2 * np.pi * 5200 * time)
    samples = (0.1 * (within + above)).astype(np.float32)[:, np.newaxis]
    voices = run(bands, samples, rate)
    np.testing.assert_allclose(voices.sum(axis=0)[200:-200, 0], 0.1 * within[200:-200], atol=2e-3)
    # And each voice is where the split at 1 kHz puts it.
    for voice, frequencies in zip(voices[..., 0], ((200, 900), (1500, 3000)), strict=True):
        density, power = scipy.signal.periodogram(voice, rate)
        loud = density[power > 0.05 * power.max()]
        assert {round(f / 100) * 100 for f in loud} == set(frequencies)


def test_at_the_models_rate_nothing_is_resampled(bands, speechlike):
    samples = speechlike(20000)[:, np.newaxis]
    voices = run(bands, samples, 8000)
    np.testing.assert_array_equal(voices[..., 0], bands.separate(samples.T)[0])


def test_the_same_whatever_the_blocks(bands, speechlike):
    samples = speechlike(30000)[:, np.newaxis]
    whole = run(bands, samples, 16000, 10**6)
    np.testing.assert_allclose(run(bands, samples, 16000, 77), whole, atol=1e-6)


def test_equal_channels_are_separated_as_one(bands, speechlike):
    mono = speechlike(9000)[:, np.newaxis]
    voices = run(bands, np.repeat(mono, 2, axis=1), 8000)
    np.testing.assert_array_equal(voices, np.repeat(run(bands, mono, 8000), 2, axis=2))


class Moody:
    """Splits at 1 kHz, and gives the louder part first: channels come in different orders."""

    def __init__(self, bands):
        self.bands = bands

    def __call__(self, waveform):
        voices = self.bands.separate(waveform)
        louder = np.argsort(-np.square(voices).sum(axis=-1), axis=1)
        return np.take_along_axis(voices, louder[..., np.newaxis], axis=1)


@pytest.mark.parametrize("sign", [1, -1])
def test_each_voice_is_one_in_all_channels(bands, make_stub, sign):
    """The low voice is louder on the left, the high one on the right; also out of phase."""
    time = np.arange(16000) / 8000
    low, high = 0.2 * np.sin(2 * np.pi * 400 * time), 0.2 * np.sin(2 * np.pi * 2000 * time)
    samples = np.stack([low + 0.3 * high, sign * (0.3 * low + 0.9 * high)], axis=1)
    samples = samples.astype(np.float32)
    voices = run(make_stub(Moody(bands)), samples, 8000)
    np.testing.assert_allclose(voices.sum(axis=0), samples, atol=1e-6)
    expected = [[low, sign * 0.3 * low], [0.3 * high, sign * 0.9 * high]]
    if np.square(voices[0, :, 0] - low).mean() > 0.001:
        voices = voices[::-1]
    np.testing.assert_allclose(voices.transpose(0, 2, 1), expected, atol=0.02)


@pytest.mark.parametrize(("channels", "most"), [(1, 4), (2, 12), (16, 17)])
def test_of_many_channels_few_chunks_are_held(make_stub, channels, most):
    random = np.random.default_rng(0)
    calls = []

    def stub(waveform):
        calls.append(waveform.shape[0])
        return np.stack([waveform, 0 * waveform], axis=1)

    sound = random.uniform(-0.5, 0.5, (60000, channels)).astype(np.float32)
    model = make_stub(stub)
    held = []
    pieces = long_audio.voices_of(
        [sound], 8000, model, chunk_seconds=1, overlap_seconds=0.5,
        listeners=[lambda mixture, voices: held.append(sum(calls))],
    )  # fmt: skip
    found = np.concatenate(list(pieces), axis=1)
    np.testing.assert_allclose(found.sum(0), sound, atol=1e-5)
    assert held[0] == most


def test_channels_that_cancel_out_are_separated(bands, speechlike):
    mono = speechlike(9000)
    voices = run(bands, np.stack([mono, -mono], axis=1), 8000)
    np.testing.assert_allclose(voices[..., 0], bands.separate(mono[np.newaxis])[0], atol=1e-6)
    np.testing.assert_allclose(voices[..., 1], -voices[..., 0], atol=1e-6)


def test_voices_that_are_no_numbers_are_an_error(make_stub):
    model = make_stub(lambda w: np.stack([w, w * np.nan], axis=1))
    with pytest.raises(errors.UserError, match="no numbers"):
        run(model, np.ones((500, 1), np.float32), 8000)


def note_of(model, samples):
    tally = long_audio.Tally(model.num_sources)
    for _ in long_audio.voices_of([samples[:, np.newaxis]], 8000, model, listeners=[tally]):
        pass
    return tally.note()


def test_what_is_said_of_the_outcome(bands, make_stub, speechlike):
    mixture = speechlike(16000)
    assert note_of(bands, mixture) == ""
    assert "silent" in note_of(bands, np.zeros(1000, np.float32))

    one = make_stub(lambda w: np.stack([0.99 * w, 0.01 * w], axis=1))
    assert "one voice only" in note_of(one, mixture)
    assert "voice 1" in note_of(one, mixture)
    # A tone below 1 kHz: the splitting model finds nothing in the other band.
    tone = np.sin(2 * np.pi * 500 * np.arange(16000) / 8000).astype(np.float32)
    assert "one voice only" in note_of(bands, tone)
    copies = make_stub(lambda w: np.stack([0.6 * w, 0.4 * w], axis=1))
    assert "the recording itself" in note_of(copies, mixture)


def test_a_quiet_voice_is_a_voice(bands):
    time = np.arange(16000) / 8000
    mixture = np.sin(2 * np.pi * 500 * time) + 0.06 * np.sin(2 * np.pi * 2000 * time)
    assert note_of(bands, mixture.astype(np.float32)) == ""


@pytest.mark.parametrize("rate", [8000, 44100])
def test_long_recordings_in_pieces(bands, speechlike, rate):
    """In pieces of 3 s the same as in one, but for what the filter hears beyond a piece's ends."""
    samples = speechlike(20 * rate)[:, np.newaxis]
    whole = run(bands, samples, rate)
    parts = run(bands, samples, rate, chunk_seconds=3, overlap_seconds=1)
    assert parts.shape == whole.shape
    error = np.square(parts - whole).sum() / np.square(whole).sum()
    assert 10 * np.log10(error) < -35
    # Resampling a whole recording there and back loses its last samples, if not as many as this.
    back = decoding.resample(decoding.resample(samples, rate, 8000), 8000, rate)[
        : len(samples) - 600
    ]
    np.testing.assert_allclose(parts.sum(axis=0)[: len(back)], back, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_a_constant_offset_is_not_heard_and_shared_equally(bands, rate, num_channels):
    generator = np.random.default_rng(0)
    samples = 0.05 * generator.standard_normal((3 * rate, num_channels)).astype(np.float32)
    samples -= samples.mean(axis=0)
    constant = np.array([0.4, -0.2][:num_channels], np.float32)
    offset, blocks = long_audio.find_offset(np.array_split(samples + constant, 5), rate)
    np.testing.assert_allclose(offset, constant, atol=1e-5)
    heard = []
    found = np.concatenate(
        list(
            long_audio.voices_of(
                blocks, rate, bands, offset=offset, listeners=[lambda mix, _: heard.append(mix)]
            )
        ),
        axis=1,
    )
    plain = np.concatenate(list(long_audio.voices_of([samples], rate, bands)), axis=1)
    np.testing.assert_allclose(found, plain + constant / 2, atol=1e-5)
    assert np.abs(np.concatenate(heard).mean(axis=0)).max() < 1e-3
    assert "offset (0.4" in long_audio.offset_notes(offset)[0]


def test_recordings_without_an_offset_are_left_as_they_are():
    generator = np.random.default_rng(0)
    samples = generator.standard_normal((16000, 1)).astype(np.float32)
    for blocks in ([samples], [samples[:100] + 1], []):
        offset, same = long_audio.find_offset(blocks, 8000)
        assert offset is None
        assert all(a is b for a, b in zip(blocks, same, strict=True))
    assert long_audio.offset_notes(None) == ()
