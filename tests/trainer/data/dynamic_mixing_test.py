"""Dynamic mixing: which mixtures come, at what level and pitch, whoever makes them and when."""

import concurrent.futures
import itertools

import keras
import numpy as np
import pytest

from pipeline import features, plan, schema
from trainer.data import acoustics, clean_utterances, dynamic_mixing
from trainer.run import callbacks

RATE = 8000


def _store(waveforms, speakers):
    samples = [np.round(w * schema.FULL_SCALE).astype(np.int16) for w in waveforms]
    levels = [features.active_level_db(s / schema.FULL_SCALE) for s in samples]
    return clean_utterances.Utterances.of(samples, levels, list(speakers))


def _noises(count=4, seconds=6.0, per_speaker=2):
    """Steady noise, so that every part of an utterance has the level of the whole."""
    rng = np.random.default_rng(0)
    waveforms = [
        rng.uniform(0.01, 0.2) * rng.uniform(-1, 1, int(seconds * RATE))
        for _ in range(count * per_speaker)
    ]
    return _store(waveforms, [f"s{i % count}" for i in range(count * per_speaker)])


def _mixer(store=None, surroundings=None, **settings):
    settings = dynamic_mixing.Settings(**{"num_samples": 8000, "batch_size": 3, **settings})
    return dynamic_mixing.Mixer(store or _noises(), settings, surroundings)


def _same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


EVERYTHING = {"speed": 0.1, "noise": 0.5, "rooms": 0.5, "sparse": 0.5}


def test_a_batch_is_a_function_of_seed_and_number():
    numbers = list(range(6))
    mixer = _mixer(**EVERYTHING)
    expected = [mixer.batch(number) for number in numbers]
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        # Another mixer, in other threads, in another order.
        made = threads.map(_mixer(**EVERYTHING).batch, reversed(numbers))
        again = dict(zip(reversed(numbers), made, strict=True))
    for number, batch in zip(numbers, expected, strict=True):
        _same(batch, again[number])
    others = [*expected[1:], _mixer(**EVERYTHING, seed=1).batch(0)]
    assert not any(np.array_equal(expected[0]["sources"], b["sources"]) for b in others)


def test_a_mixture_does_not_hang_on_the_size_of_the_batch():
    large = _mixer(batch_size=6).batch(1)["sources"]
    small = np.concatenate([_mixer(batch_size=2).batch(n)["sources"] for n in (3, 4, 5)])
    np.testing.assert_array_equal(large, small)


@pytest.mark.parametrize("num_sources", [2, 3])
def test_voices_are_of_different_speakers_and_all_of_them_come(num_sources):
    # Speaker s says the constant s + 1, with its own level: what is heard tells who speaks.
    store = _store([np.full(8000, (s + 1) / 10) for s in range(4)], "abcd")
    store = clean_utterances.Utterances(
        store.samples, np.full(4, plan.TARGET_LEVEL_DB), store.by_speaker
    )
    mixer = _mixer(store, num_sources=num_sources, max_snr_db=0.0, num_samples=4000)
    seen = set()
    for number in range(60):
        sources, _ = mixer.mixture(number)
        values = sources[:, 0] / sources[:, 0].min()
        speakers = tuple(np.round(sources[:, 0] * 10).astype(int)) if values.size else ()
        assert len(set(speakers)) == num_sources
        seen.add(frozenset(speakers))
    assert len(seen) == len(list(itertools.combinations(range(4), num_sources)))
    with pytest.raises(ValueError, match=f"at least {num_sources} speakers; there is only 1"):
        _mixer(_noises(1), num_sources=num_sources)


def test_every_second_of_a_speaker_is_as_likely():
    """And drawn as NumPy draws from shares: what a seed gives does not change."""
    rng = np.random.default_rng(0)
    waveforms = [rng.uniform(-0.1, 0.1, length) for length in (500, 3000, 1500, 9999, 1, 4000)]
    store = _store(waveforms, "aabaab")
    mixer = _mixer(store)
    for speaker, own in enumerate(store.by_speaker):
        lengths = np.array([len(store.samples[number]) for number in own], np.float64)
        one, other = np.random.default_rng(speaker), np.random.default_rng(speaker)
        expected = [one.choice(own, p=lengths / lengths.sum()) for _ in range(500)]
        shares = mixer._shares[speaker]
        drawn = [own[shares.searchsorted(other.random(), side="right")] for _ in range(500)]
        np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("num_sources", [2, 3])
def test_levels_are_those_of_the_plan(num_sources):
    mixer = _mixer(num_sources=num_sources, max_snr_db=6.0)
    moves = []
    for number in range(40):
        sources, noise = mixer.mixture(number)
        assert not noise.any()
        assert np.abs(sources.sum(axis=0)).max() <= plan.MAX_PEAK
        levels = [features.active_level_db(source) for source in sources]
        moves.append(np.array(levels) - plan.TARGET_LEVEL_DB)
    moves = np.array(moves)
    assert np.abs(moves).max() <= 3.0 + 0.15  # What a second of the noise differs by itself.
    assert moves.std() > 1.2  # Uniform in ±3: 1.73.
    if num_sources == 2:
        np.testing.assert_allclose(moves.sum(axis=1), 0, atol=0.3)


def test_loud_voices_are_turned_down_together():
    # A few clicks in what is otherwise faint: at the target level they exceed full scale.
    rng = np.random.default_rng(0)
    waveforms = []
    for _ in range(2):
        waveform = 0.003 * rng.standard_normal(32000)
        waveform[::4000] = 0.9
        waveforms.append(waveform)
    mixer = _mixer(_store(waveforms, "ab"), max_snr_db=4.0, num_samples=16000)
    peaks = []
    for number in range(8):
        sources, _ = mixer.mixture(number)
        peaks.append(np.abs(sources.sum(axis=0)).max())
        levels = [features.active_level_db(source) for source in sources]
        assert abs(levels[0] - levels[1]) <= 4.5
    np.testing.assert_allclose(max(peaks), plan.MAX_PEAK, atol=1e-5)
    assert max(peaks) <= plan.MAX_PEAK + 1e-6


def _pitch(voice):
    """Of a harmonic tone, in Hz, by the highest peak of the autocorrelation, interpolated."""
    voice = voice[1000:-1000] - voice.mean()
    spectrum = np.fft.rfft(voice, 2 * len(voice))
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(voice)]
    lags = np.arange(20, 160)
    best = int(lags[correlation[lags].argmax()])
    left, middle, right = correlation[best - 1 : best + 2]
    return RATE / (best + 0.5 * (left - right) / (left - 2 * middle + right))


def test_speed_shifts_the_pitch_by_the_factor():
    time = np.arange(10 * RATE) / RATE
    tones = [
        sum(np.sin(2 * np.pi * f * h * time) / h for h in range(1, 5)) / 20 for f in (100.0, 140.0)
    ]
    store = _store(tones, "ab")
    as_is, shifted = _mixer(store, num_samples=16000), _mixer(store, num_samples=16000, speed=0.2)
    factors = []
    for number in range(20):
        first, _ = as_is.mixture(number)
        pitches = sorted(_pitch(voice) for voice in first)
        np.testing.assert_allclose(pitches, [100.0, 140.0], rtol=2e-3)
        voices, _ = shifted.mixture(number)
        assert np.abs(voices[:, -50:]).max(axis=1).min() > 1e-3  # It fills the window.
        # A factor of up to 1.2 cannot make one of these tones the other: 120 < 112 is never asked.
        for voice in voices:
            pitch = _pitch(voice)
            factors.append(pitch / (100.0 if pitch < 120.0 * 0.99 else 140.0))
    factors = np.array(factors)
    inside = (factors > 0.795) & (factors < 1.205)
    assert inside.all()
    assert factors.std() > 0.05
    np.testing.assert_array_less(0.01, np.abs(np.diff(np.sort(factors))).max())


def test_speed_does_not_change_the_level():
    mixer = _mixer(speed=0.3, max_snr_db=0.0)
    levels = [features.active_level_db(voice) for n in range(6) for voice in mixer.mixture(n)[0]]
    # Resampling up takes off what lies above the band: a little of white noise.
    np.testing.assert_allclose(levels, plan.TARGET_LEVEL_DB, atol=1.8)


def test_short_utterances_follow_one_another():
    rng = np.random.default_rng(1)
    waveforms = [0.1 * rng.uniform(-1, 1, 1500) for _ in range(4)]
    mixer = _mixer(_store(waveforms, "aabb"), num_samples=8000, max_snr_db=0.0)
    for number in range(5):
        for voice in mixer.mixture(number)[0]:
            assert np.abs(voice[-100:]).max() > 0
            assert abs(features.active_level_db(voice) - plan.TARGET_LEVEL_DB) < 0.3
    # However many it takes; the first starts within its first half.
    mixer = _mixer(_store(waveforms, "aabb"), num_samples=48000)
    for voice in mixer.mixture(0)[0]:
        assert voice[-100:].any()


def test_noise_lies_as_far_below_as_asked():
    mixer = _mixer(noise=1.0, noise_snr_db=(3.0, 9.0))
    ratios = []
    for number in range(30):
        sources, noise = mixer.mixture(number)
        mixture = sources.sum(axis=0)
        assert np.abs(mixture + noise).max() <= plan.MAX_PEAK + 1e-6
        ratios.append(10 * np.log10(np.mean(mixture**2) / np.mean(noise**2)))
    assert min(ratios) >= 3 - 1e-3
    assert max(ratios) <= 9 + 1e-3
    assert np.ptp(ratios) > 3
    some = _mixer(noise=0.3)
    heard = [some.mixture(number)[1].any() for number in range(100)]
    assert 15 <= sum(heard) <= 45
    assert set(some.batch(0)) == {"sources", "noise"}
    assert set(_mixer().batch(0)) == {"sources"}


def test_rooms_change_the_voices_and_keep_their_levels():
    dry = _mixer(max_snr_db=0.0)
    wet = _mixer(max_snr_db=0.0, rooms=1.0)
    some = _mixer(max_snr_db=0.0, rooms=0.4)
    for number in range(4):
        before, after = dry.mixture(number)[0], wet.mixture(number)[0]
        assert np.abs(before - after).max() > 0.01
        np.testing.assert_allclose(
            10 * np.log10(np.mean(after**2, axis=1)),
            10 * np.log10(np.mean(before**2, axis=1)),
            atol=0.01,
        )
    changed = [not np.array_equal(dry.mixture(n)[0], some.mixture(n)[0]) for n in range(60)]
    assert 12 <= sum(changed) <= 36


def test_levels_differ_by_up_to_ten_decibels():
    mixer = _mixer(max_snr_db=10.0)
    differences = []
    for number in range(60):
        sources, _ = mixer.mixture(number)
        assert np.abs(sources.sum(axis=0)).max() <= plan.MAX_PEAK + 1e-6
        one, other = (features.active_level_db(source) for source in sources)
        differences.append(one - other)
    assert np.abs(differences).max() <= 10 + 0.3
    assert np.std(differences) > 4.5  # Uniform in ±10: 5.8.


def test_a_share_of_windows_is_sparse():
    def heard(mixer, number):
        # Now and then a sample of the noise itself is zero.
        return (mixer.mixture(number)[0] != 0).mean(axis=1)

    every, some = (_mixer(num_samples=24000, sparse=share) for share in (1.0, 0.4))
    shares = np.array([heard(every, number) for number in range(100)])
    assert shares.max(axis=1).min() > 0.1
    assert (shares.min(axis=1) < 0.99).all()
    assert 20 <= (shares.min(axis=1) == 0).sum() <= 60
    sparse = [heard(some, number).min() < 0.99 for number in range(100)]
    assert 25 <= sum(sparse) <= 55
    for number in range(20):
        alone = np.flatnonzero(shares[number] == 0)
        assert not every.mixture(number)[0][alone].any()


def test_recorded_surroundings_are_used(tmp_path):
    import soundfile

    rng = np.random.default_rng(2)
    hum = np.sin(2 * np.pi * 50 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "hum.wav", 0.1 * hum, 16000)
    (tmp_path / "notes.txt").write_text("no recording")
    surroundings = acoustics.Surroundings(RATE, noise_dir=str(tmp_path))
    noise = surroundings.noise(rng, rng.standard_normal(24000).astype(np.float32), 10.0)
    spectrum = np.abs(np.fft.rfft(noise))
    assert np.fft.rfftfreq(24000, 1 / RATE)[spectrum.argmax()] == pytest.approx(50, abs=0.5)


class _Counting:
    """A mixer whose batches say which they are."""

    def batch(self, number):
        return {"number": np.full((1, 1), number, np.float32)}


class Reading(keras.Model):
    """Gives the number of its batch as loss."""

    def __init__(self):
        super().__init__()
        self.own = self.add_weight(shape=(), initializer="zeros")
        self.built = True

    def call(self, inputs):
        return inputs["number"] + 0 * self.own

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return keras.ops.sum(y_pred)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return {"number": keras.ops.sum(y_pred)}


def numbers_seen(first_epoch, epochs, workers):
    """The numbers of the batches that a run of four steps an epoch gets, in order."""
    seen = []

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(int(logs["number"]))

    batches = dynamic_mixing.Batches(_Counting(), 4, workers)
    model = Reading()
    model.compile("sgd")
    model.fit(
        batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=4, verbose=0,
        shuffle=False, callbacks=[callbacks.NextEpoch(batches), Note()],
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("workers", [1, 3])
def test_keras_gets_each_batch_once_and_in_order(workers):
    assert numbers_seen(0, 3, workers) == list(range(12))
    assert numbers_seen(3, 5, workers) == list(range(12, 20))


def test_warns_where_the_threads_that_mix_have_no_rest(monkeypatch, caplog):
    seconds = itertools.count(0.0, 3.0)
    monkeypatch.setattr(dynamic_mixing.time, "monotonic", lambda: next(seconds))
    batches = dynamic_mixing.Batches(_Counting(), 4, workers=2)
    for index in range(4):
        batches[index]
    # Three seconds each, by two threads.
    assert batches.busy_seconds() == 6.0
    assert batches.busy_seconds() == 0.0
    callback = callbacks.NextEpoch(batches)
    for mixing, epoch_seconds, warned in ((50.0, 100.0, 0), (9.9, 10.0, 0), (95.0, 100.0, 1)):
        clock = iter([0.0, epoch_seconds])
        monkeypatch.setattr(callbacks.time, "monotonic", lambda clock=clock: next(clock))
        callback.on_epoch_begin(0)
        batches._busy_seconds = 2 * mixing
        callback.on_epoch_end(0)
        assert len(caplog.records) == warned
    assert "threads mix for 95 % of the time; give more --workers" in caplog.text
