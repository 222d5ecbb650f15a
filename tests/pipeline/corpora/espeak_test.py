"""The synthesiser is repeatable, uses the given voices, and reports what is missing."""

import builtins

import numpy as np
import pytest

from pipeline.corpora import espeak

SENTENCE = "The juice of lemons makes fine punch."


@pytest.fixture(scope="module", autouse=True)
def _library():
    try:
        espeak.version()
    except espeak.EspeakError as error:
        pytest.skip(str(error))


def test_the_same_calls_in_the_same_order_give_the_same_samples():
    def speak():
        with espeak.Synthesizer({"someone": "pitch 90 130\nflutter 5"}, seed=3) as synthesizer:
            return [synthesizer.say(SENTENCE, "en-us+someone") for _ in range(2)]

    first = speak()
    with espeak.Synthesizer({"other": "klatt 4\npitch 180 220"}, seed=4) as synthesizer:
        synthesizer.say("Something else between the two.", "en+other")
    second = speak()
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_voices_and_rate_are_obeyed(median_pitch):
    voices = {"low": "pitch 90 130", "high": "pitch 180 240"}
    with espeak.Synthesizer(voices, seed=0) as synthesizer:
        low = synthesizer.say(SENTENCE, "en-us+low")
        high = synthesizer.say(SENTENCE, "en-us+high")
        fast = synthesizer.say(SENTENCE, "en-us+low", rate=300)
        assert 90 < median_pitch(low, synthesizer.rate) < 130
        assert 180 < median_pitch(high, synthesizer.rate) < 240
    assert fast.size < 0.75 * low.size


def test_an_accent_that_is_not_there_is_named():
    with (
        espeak.Synthesizer({}, seed=0) as synthesizer,
        pytest.raises(espeak.EspeakError, match="no voice 'xx-unknown'"),
    ):
        synthesizer.say(SENTENCE, "xx-unknown")


def test_two_at_once_are_refused_and_a_closed_one_does_not_speak():
    with espeak.Synthesizer({}, seed=0) as synthesizer:
        with pytest.raises(RuntimeError, match="close"):
            espeak.Synthesizer({}, seed=0)
        synthesizer.close()
        with pytest.raises(RuntimeError, match="closed"):
            synthesizer.say(SENTENCE, "en")


@pytest.fixture
def no_wheel(monkeypatch):
    real_import = builtins.__import__

    def without_loader(name, *args, **kwargs):
        if name == "espeakng_loader":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_loader)
    espeak._find.cache_clear()
    yield
    espeak._find.cache_clear()


def test_without_wheel_and_library_the_message_says_what_to_install(no_wheel, monkeypatch):
    monkeypatch.setattr(espeak.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(espeak.EspeakError, match=r"pip install 'voices-apart\[demo\]'"):
        espeak.Synthesizer({}, seed=0)


def test_without_the_wheel_the_library_of_the_system_is_taken(no_wheel, monkeypatch, median_pitch):
    import importlib

    loader = importlib.import_module("espeakng_loader")
    # Simulates a system's library, whose data path was fixed when it was compiled.
    monkeypatch.setattr(espeak.ctypes.util, "find_library", lambda n: loader.get_library_path())
    monkeypatch.setenv("ESPEAK_DATA_PATH", loader.get_data_path())
    with espeak.Synthesizer({"low": "pitch 90 130"}, seed=0) as synthesizer:
        samples = synthesizer.say(SENTENCE, "en-us+low")
        assert 90 < median_pitch(samples, synthesizer.rate) < 130
