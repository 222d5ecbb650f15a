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


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
@pytest.mark.parametrize(
    ("subtype", "name", "others"),
    [
        ("PCM_16", "pcm", ("PCM", "linear")),
        ("PCM_24", "pcm", ("linear",)),
        ("PCM_32", "pcm", ("linear",)),
        ("ULAW", "ulaw", ("mu-law", "pculaw", "ULAW")),
        ("ALAW", "alaw", ("a-law", "pcalaw")),
    ],
)
def test_other_names_of_codings_and_orders_of_bytes(endian, subtype, name, others):
    stream = io.BytesIO()
    soundfile.write(stream, SAMPLES, 16000, format="NIST", subtype=subtype, endian=endian)
    expected, _ = soundfile.read(io.BytesIO(stream.getvalue()), dtype="float32")
    header, samples = stream.getvalue()[:1024], stream.getvalue()[1024:]
    width = len(samples) // len(SAMPLES)
    order = "01" if endian == "LITTLE" else "10"
    whole = "0123"[:width] if endian == "LITTLE" else "3210"[-width:]
    for other in (name, *others):
        changed = header.replace(
            f"sample_coding -s{len(name)} {name}".encode(),
            f"sample_coding -s{len(other)} {other}".encode(),
        )
        for digits in (order, whole):
            now = changed.replace(
                f"sample_byte_format -s{width} {order}".encode(),
                f"sample_byte_format -s{len(digits)} {digits}".encode(),
            )
            decoded, _ = decoding.decode(now[:1024].ljust(1024) + samples)
            np.testing.assert_array_equal(decoded, expected)
