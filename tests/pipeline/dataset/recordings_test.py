"""A worker's cache of recordings."""

import functools
import hashlib

import numpy as np
import pytest
import soundfile

from pipeline import errors, inspection
from pipeline.audio import compressed, decoding, limits
from pipeline.corpora import corpus
from pipeline.dataset import inspection_cache, recordings

RATE = 8000


def test_short_recordings_are_decoded_once_and_long_ones_are_not_kept(tmp_path, voice):
    kept = {}
    for name, seconds in (("short", 2.0), ("long", 61.0)):
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, np.stack([voice(310, seconds), voice(311, seconds)], axis=1), 16000)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        recording = recordings.Recording(str(path), "a", "", sha256)
        expected = decoding.resample(*decoding.decode(path.read_bytes()), RATE)
        for length in (1000, len(expected) + 1):
            found = recordings.load(recording, RATE, length)
            np.testing.assert_array_equal(found, expected[:length])
            with pytest.raises(ValueError, match="read-only"):
                found[0] = 1
        path.unlink()
        kept[name] = recording, expected
    recording, expected = kept["short"]
    np.testing.assert_array_equal(recordings.load(recording, RATE, 5000), expected[:5000])
    # The cache does not apply to another rate.
    with pytest.raises(errors.UserError, match=r"short\.wav: no such file"):
        recordings.load(recording, 2 * RATE, 5000)
    with pytest.raises(errors.UserError, match=r"long\.wav: no such file"):
        recordings.load(kept["long"][0], RATE, 5000)
    recordings.forget()
    with pytest.raises(errors.UserError, match=r"short\.wav: no such file"):
        recordings.load(recording, RATE, 5000)


@pytest.mark.parametrize("rate", [RATE, 16000])
def test_what_was_inspected_is_not_decoded_again(tmp_path, voice, rate, monkeypatch):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([voice(310, 2.0), voice(311, 2.0)], axis=1), 16000)
    utterance = corpus.Utterance("a", str(path), "a")
    keep = functools.partial(
        recordings.keep, sample_rate=rate, path=str(path), stamp=inspection_cache.stamp(str(path))
    )
    facts = inspection.inspect(utterance, rate, keep)
    recording = recordings.Recording(str(path), "a", "", facts.sha256)
    kept = recordings.load(recording, rate, facts.num_samples)
    recordings.forget()
    np.testing.assert_array_equal(kept, recordings.load(recording, rate, facts.num_samples))
    recordings.forget()
    inspection.inspect(utterance, rate, keep)
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "Reader", None)
        np.testing.assert_array_equal(kept, recordings.load(recording, rate, facts.num_samples))
    # A file that has changed since then is noticed.
    soundfile.write(path, voice(312, 2.0), 16000)
    with pytest.raises(errors.UserError, match="has changed since it was inspected"):
        recordings.load(recording, rate, facts.num_samples)
    path.unlink()
    with pytest.raises(errors.UserError, match="no such file"):
        recordings.load(recording, rate, facts.num_samples)


def test_a_missing_decoder_is_reported_with_the_recording(tmp_path, monkeypatch):
    # As on a worker without PyAV, if another worker has inspected the recording.
    def missing(*_):
        raise limits.MissingDecoderError("PyAV is not installed: pip install av")

    monkeypatch.setattr(compressed, "Source", missing)
    path = tmp_path / "voice.amr"
    path.write_bytes(b"#!AMR\n" + bytes(100))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(errors.UserError, match=r"voice\.amr: PyAV is not installed"):
        recordings.load(recordings.Recording(str(path), "a", "", sha256), RATE, 1000)
