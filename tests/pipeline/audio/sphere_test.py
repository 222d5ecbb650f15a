"""SPHERE files compared with TIMIT's own bytes, with libsndfile, and with our reader."""

import io

import numpy as np
import pytest
import soundfile

from pipeline.audio import decoding, sphere

SAMPLES = (np.random.default_rng(0).standard_normal(1000) * 3000).astype(np.int16)


def test_a_file_of_the_disc_encoded_again_is_the_same_byte_for_byte(recordings):
    paths = sorted((recordings / "timit_sample" / "TRAIN").glob("DR1/*/*.WAV"))
    assert paths
    for path in paths:
        samples, rate = soundfile.read(path, dtype="int16")
        utterance_id = f"{path.parent.name[1:]}_{path.stem}".lower()
        assert sphere.encode(samples, rate, utterance_id, "TIMIT") == path.read_bytes()


def test_libsndfile_and_our_reader_give_the_samples_back():
    data = sphere.encode(SAMPLES, 16000, "aaa0_sx1", "TEST")
    read, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 16000
    np.testing.assert_array_equal(read, SAMPLES)
    decoded, rate = decoding.decode(data)
    assert rate == 16000
    np.testing.assert_array_equal(decoded * 32768, SAMPLES)


@pytest.mark.parametrize(
    ("samples", "utterance_id"),
    [
        (SAMPLES.astype(np.float32), "a"),
        (SAMPLES.reshape(2, -1), "a"),
        (SAMPLES[:0], "a"),
        (SAMPLES, "a" * 1000),
        (SAMPLES, "ä"),
    ],
)
def test_what_does_not_fit_is_refused(samples, utterance_id):
    with pytest.raises(ValueError):  # noqa: PT011 (UnicodeEncodeError is one too)
        sphere.encode(samples, 16000, utterance_id, "TEST")
