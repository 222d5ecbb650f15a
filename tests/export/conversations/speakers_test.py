"""Who is who: with points whose owners are known, and with tones and noise of two voices."""

import numpy as np
import pytest

from export.conversations import routing, segmentation, speakers
from export.separation import spool
from models import speaker


def tone(rng, num_samples, pitch):
    """Harmonics of a pitch, in syllables."""
    time = np.arange(num_samples) / 8000
    sound = sum(np.sin(2 * np.pi * pitch * h * time + rng.uniform(0, 6)) / h for h in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 3 * time + rng.uniform(0, 6)), 0.02, None)
    return 0.05 * envelope * sound + 1e-4 * rng.standard_normal(num_samples)


DIMENSION = len(segmentation.networks().spread)


def segment(start, end, output, point, pause=0.0, two=False):
    return segmentation.Segment(
        round(start * 50),
        round(end * 50),
        two,
        output,
        end - start,
        pause,
        0.0,
        np.atleast_2d(point),
    )


def made(persons, outputs, rng, pauses=None, distance=4.0):
    """Segments of 2 s in which `persons` speak and come out of `outputs`."""
    places = np.zeros((2, DIMENSION))
    places[:, 0] = (-distance / 2, distance / 2)
    pauses = pauses or [0.1] * len(persons)
    return [
        segment(
            2.0 * k, 2.0 * k + 2, output,
            places[person] + 0.7 * rng.standard_normal(DIMENSION), pauses[k],
        )
        for k, (person, output) in enumerate(zip(persons, outputs, strict=True))
    ]  # fmt: skip


class TestDecode:
    def test_outputs_that_are_exchanged_after_a_pause(self):
        """The same two persons, for whom the model changes its order at a pause of 10 minutes."""
        persons = [0, 1] * 12 + [1, 0] * 12
        outputs = [0, 1] * 12 + [0, 1] * 12
        pauses = [0.1] * 24 + [600.0] + [0.1] * 23
        segments = made(persons, outputs, np.random.default_rng(0), pauses)
        states, one = speakers.decode(segments, track=True)
        assert not one
        np.testing.assert_array_equal(np.array(outputs) ^ states, persons)
        states, _ = speakers.decode(segments, track=False)
        assert not states.any()

    def test_one_person_out_of_both_outputs(self):
        rng = np.random.default_rng(1)
        outputs = rng.integers(2, size=40)
        _, one = speakers.decode(made([0] * 40, outputs, rng), track=True)
        assert one

    def test_who_seldom_speaks_is_a_person(self):
        rng = np.random.default_rng(2)
        persons = (rng.uniform(size=200) < 0.08).astype(int)
        segments = made(persons, persons, rng)
        states, one = speakers.decode(segments, track=True)
        assert not one
        found = persons ^ states
        assert min((found != persons).mean(), (found == persons).mean()) < 0.02

    def test_both_at_once_are_two_persons_however_alike(self):
        rng = np.random.default_rng(3)
        segments = [
            segment(2 * k, 2 * k + 2, 0, 0.5 * rng.standard_normal((2, DIMENSION)), two=True)
            for k in range(10)
        ]
        states, one = speakers.decode(segments, track=True)
        assert not one
        assert not states.any() or states.all()


class TestFind:
    rate = 8000

    def outputs(self, turns, seconds, leak_db=-30):
        """Two tones of different pitch that come out of the outputs named; `[sample, 2]`."""
        rng = np.random.default_rng(0)
        kept = np.zeros((seconds * self.rate, 2), np.float32)
        for start, end, pitch, output in turns:
            part = tone(rng, (end - start) * self.rate, pitch)
            place = slice(start * self.rate, end * self.rate)
            kept[place, output] += part
            kept[place, 1 - output] += 10 ** (leak_db / 20) * part
        return kept

    def find(self, kept, **settings):
        with spool.Spool() as store:
            store.append(kept)
            return speakers.find(store, 1, self.rate, **{"gate": True, "track": True} | settings)

    def test_one_tone_is_one_voice(self):
        turns = [(2 * k, 2 * k + 2, 110, k % 3 % 2) for k in range(10)]
        plan = self.find(self.outputs(turns, 20))
        np.testing.assert_array_equal(plan.states, [routing.ALL_TO_FIRST])

    def test_silence_is_left_alone(self):
        plan = self.find(np.zeros((5 * self.rate, 2), np.float32))
        np.testing.assert_array_equal(plan.states, [routing.STRAIGHT])

    def test_each_person_alone_gets_all(self):
        """High and low by turns, out of either output."""
        turns = [
            (3 * k, 3 * k + 2, 105 if k % 2 == 0 else 240, (k // 3 + k) % 2) for k in range(20)
        ]
        kept = self.outputs(turns, 60)
        plan = self.find(kept)
        files = plan.route(kept.T[..., np.newaxis], 0, self.rate)[..., 0]
        np.testing.assert_allclose(files.sum(axis=0), kept.sum(axis=1), atol=1e-6)
        for start, end, pitch, _ in turns:
            inside = slice(int((start + 0.3) * self.rate), int((end - 0.3) * self.rate))
            own = 0 if pitch == 105 else 1
            assert not files[1 - own, inside].any()
            np.testing.assert_allclose(files[own, inside], kept[inside].sum(axis=1), atol=1e-6)

    def test_without_gate_outputs_are_only_exchanged(self):
        turns = [(3 * k, 3 * k + 2, 105 if k % 2 == 0 else 240, k % 2) for k in range(6)]
        plan = self.find(self.outputs(turns, 18), gate=False)
        assert {tuple(s) for s in plan.states} <= {routing.STRAIGHT, routing.SWAPPED}

    @pytest.mark.parametrize("start", [45, 60])
    def test_a_passage_is_judged_alike_anywhere_in_a_long_recording(self, start):
        """Both outputs hold the voice for ten seconds, in the first minute or after it."""
        turns = [
            (2 * k, 2 * k + 2, 105 if k % 2 else 240, k % 2)
            for k in range(35)
            if not start <= 2 * k < start + 10
        ]
        kept = self.outputs(turns, 70)
        kept += self.outputs([(start, start + 10, 105, 0)], 70, leak_db=-3.5)
        with spool.Spool() as store:
            store.append(kept)
            cut = segmentation.cut(store, 1, self.rate)
        seconds = [
            s.seconds
            for s in cut
            if s.two and start <= s.start * segmentation.FRAME_SECONDS < start + 10
        ]
        assert sum(seconds) == 0

    @pytest.mark.parametrize("length", [1, 100, 160, 5000])
    def test_short(self, length):
        self.find(np.full((length, 2), 0.1, np.float32))


def test_features_have_the_level_of_a_tone():
    """A sine of 500 Hz lies in the bin of 500 Hz, 20 dB higher when it is ten times as loud."""
    time = np.arange(8000) / 8000
    sine = np.sin(2 * np.pi * 500 * time)
    found = [speaker.features(gain * sine) for gain in (0.01, 0.1)]
    assert found[0].shape == (50, speaker.NUM_FEATURES)
    assert found[0][25].argmax() == 500 // (8000 / 512) - 2
    np.testing.assert_allclose(found[1][10:40].max(1) - found[0][10:40].max(1), 20, atol=0.01)


def test_networks_are_those_of_keras():
    """The convolutions in NumPy against Keras' own, with the weights that are shipped."""
    import keras

    from trainer import speaker_embedding

    values = np.random.default_rng(0).standard_normal((80, 2 * speaker.NUM_FEATURES))
    inputs, hidden = speaker_embedding.network("overlap", 2 * speaker.NUM_FEATURES)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="dense")(hidden))
    networks = segmentation.networks()
    weights = networks._weights
    for layer in range(3):
        model.get_layer(f"overlap_{layer}").set_weights(
            [weights[f"overlap/{layer}/kernel"], weights[f"overlap/{layer}/bias"]]
        )
    model.get_layer("dense").set_weights([weights["overlap/dense"], weights["overlap/bias"]])
    expected = model(values[np.newaxis].astype(np.float32)).numpy()[0, :, 0]
    found = networks.overlap(values.astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Exchanged voices are the same two voices.
    first, second = (
        speaker.features(np.random.default_rng(k).standard_normal(8000)) for k in (1, 2)
    )
    np.testing.assert_array_equal(
        speaker.overlap_inputs(first, second, 0.0), speaker.overlap_inputs(second, first, 0.0)
    )
