"""Decoding, compared with soundfile and parsers written here; writing; damage of all kinds."""

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import wave

import numpy as np
import pytest
import soundfile
from scipy.io import wavfile

from pipeline.audio import decoding, limits, ogg

RATE = 16000


def signal(num_samples=4000, num_channels=1, seed=0):
    generator = np.random.default_rng(seed)
    samples = (generator.standard_normal((num_samples, num_channels)) * 0.1).clip(-1, 1)
    return (np.rint(samples * 32767) / 32768).astype(np.float32)


def encode(kind, subtype=None, samples=None, **settings):
    file = io.BytesIO()
    samples = signal() if samples is None else samples
    soundfile.write(file, samples, RATE, format=kind, subtype=subtype, **settings)
    return file.getvalue()


def sphere(samples, drop=(), header_bytes=1024, **fields):
    """Makes SPHERE as on TIMIT's disc, without sample_coding and without libsndfile."""
    all_fields = {
        "database_id": "TIMIT",
        "channel_count": samples.shape[1],
        "sample_count": len(samples),
        "sample_rate": RATE,
        "sample_n_bytes": 2,
        "sample_byte_format": "01",
        **fields,
    }
    lines = ["NIST_1A", f"{header_bytes:7d}"]
    for name, value in all_fields.items():
        if name not in drop:
            kind = "i" if isinstance(value, int) else f"s{len(value)}"
            lines.append(f"{name} -{kind} {value}")
    header = ("\n".join([*lines, "end_head"]) + "\n").encode().ljust(header_bytes)
    order = ">i2" if all_fields["sample_byte_format"] == "10" else "<i2"
    return header + (samples * 32768).astype(order).tobytes()


def with_data_bytes(wav, number):
    place = wav.index(b"data") + 4
    return wav[:place] + struct.pack("<I", number) + wav[place + 4 :]


def with_flac_count(flac, number):
    fields = int.from_bytes(flac[18:26], "big")
    return flac[:18] + (fields >> 36 << 36 | number).to_bytes(8, "big") + flac[26:]


@pytest.mark.parametrize(
    "data",
    [
        encode("WAV", "PCM_16"),
        encode("WAV", "PCM_24"),
        encode("WAV", "FLOAT"),
        encode("WAV", "PCM_16", endian="BIG"),
        encode("WAVEX", "PCM_16"),
        encode("RF64", "PCM_16"),
        encode("W64", "PCM_16"),
        encode("FLAC", "PCM_16"),
        encode("FLAC", "PCM_24"),
        encode("AIFF", "PCM_16"),
        encode("AU", "PCM_16"),
        encode("CAF", "PCM_16"),
        sphere(signal()),
        sphere(signal(), sample_byte_format="10"),
        sphere(signal(), sample_coding="pcm"),
        sphere(signal(), header_bytes=2048),
    ],
    ids=lambda data: repr(data[:4]),
)
def test_lossless_formats_give_the_samples_that_were_written(data):
    samples, rate = decoding.decode(data)
    assert rate == RATE
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, signal()[:, 0])


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_is_what_libsndfile_decodes(subtype):
    data = encode("OGG", subtype)
    samples, rate = decoding.decode(data)
    expected, expected_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert rate == expected_rate
    np.testing.assert_array_equal(samples, expected)


def test_flac_of_8_and_24_bits_passes_its_checksum():
    for subtype in ("PCM_S8", "PCM_24"):
        data = encode("FLAC", subtype, signal(5000, 2))
        expected = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0]
        np.testing.assert_array_equal(decoding.decode_channels(data)[0], expected)


def test_rifx_and_riff_hold_the_same():
    big = encode("WAV", "PCM_16", endian="BIG")
    assert big[:4] == b"RIFX"
    np.testing.assert_array_equal(decoding.decode(big)[0], decoding.decode(encode("WAV"))[0])


def test_the_mean_of_the_channels():
    samples = signal(1000, 3)
    data = encode("WAV", "FLOAT", samples)
    np.testing.assert_allclose(decoding.decode(data)[0], samples.mean(axis=1), atol=1e-7)
    channels, rate = decoding.decode_channels(data)
    assert rate == RATE
    np.testing.assert_array_equal(channels, samples)


def test_ulaw_sphere_follows_g711():
    codes = np.arange(256, dtype=np.uint8)
    header = sphere(
        np.zeros((256, 1)), sample_coding="ulaw", sample_n_bytes=1, sample_byte_format="1"
    )[:1024]
    # ITU-T G.711, from the definition: sign, three bits of exponent, four of mantissa.
    inverted = ~codes
    magnitude = ((inverted & 15).astype(int) * 8 + 132 << (inverted >> 4 & 7)) - 132
    expected = np.where(inverted & 128, -magnitude, magnitude) / 32768
    np.testing.assert_allclose(decoding.decode(header + codes.tobytes())[0], expected, atol=1e-7)


@pytest.mark.recordings
def test_timit_is_what_a_hand_parse_gives(recordings):
    paths = sorted((recordings / "timit_sample" / "TRAIN").glob("DR*/*/*.WAV"))
    assert len(paths) == 160
    for path in paths[::16]:
        data = path.read_bytes()
        fields = dict(re.findall(rb"(\w+) -i (-?\d+)", data[:1024]))
        codes = np.frombuffer(data, "<i2", offset=1024)
        samples, rate = decoding.decode(data)
        assert rate == int(fields[b"sample_rate"])
        assert len(samples) == int(fields[b"sample_count"])
        assert codes.min() == int(fields[b"sample_min"])
        np.testing.assert_array_equal(samples * 32768, codes)


@pytest.mark.recordings
def test_real_flac_and_vorbis_are_what_soundfile_gives(recordings):
    folder = recordings / "speech" / "audio"
    paths = [*sorted(folder.rglob("*.ogg"))[::700], *sorted(folder.rglob("*.flac"))[::40]]
    assert len(paths) > 8
    for path in paths:
        expected, rate = soundfile.read(path, dtype="float32")
        samples, own_rate = decoding.decode(path.read_bytes())
        assert own_rate == rate
        np.testing.assert_array_equal(samples, expected)


WHOLE = {
    "riff": encode("WAV", "PCM_16"),
    "float": encode("WAV", "FLOAT"),
    "rifx": encode("WAV", "PCM_16", endian="BIG"),
    "rf64": encode("RF64", "PCM_16"),
    "aiff": encode("AIFF", "PCM_16"),
    "flac": encode("FLAC", "PCM_16", signal(20000)),
    "vorbis": encode("OGG", "VORBIS", signal(40000)),
    "opus": encode("OGG", "OPUS", signal(40000)),
    "sphere": sphere(signal()),
}


@pytest.mark.parametrize("share", [0.05, 0.5, 0.999])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_recording_that_is_cut_short_is_none(kind, share):
    data = WHOLE[kind]
    decoding.decode(data)
    with pytest.raises(decoding.AudioError):
        decoding.decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["flac", "vorbis", "opus"])
def test_damage_in_the_middle_is_noticed(kind):
    data = bytearray(WHOLE[kind])
    for place in range(len(data) // 2, len(data) // 2 + 40, 7):
        data[place] ^= 0x55
    with pytest.raises(decoding.AudioError, match=r"damaged|cut short"):
        decoding.decode(bytes(data))


FEW_SAMPLES = encode("WAV", "PCM_16", signal(4000))
LIES = {
    "sphere promises more": (sphere(signal(), sample_count=99999), "promises 199998 bytes"),
    "sphere promises fewer": (sphere(signal(), sample_count=100), "promises 200 bytes .* 8000"),
    "riff promises more": (with_data_bytes(FEW_SAMPLES, 100000), "cut short"),
    "riff promises fewer": (with_data_bytes(FEW_SAMPLES, 100), "promises 100 bytes .* 8000"),
    "riff promises none": (with_data_bytes(FEW_SAMPLES, 0), "promises 0 bytes"),
    "flac promises more": (with_flac_count(WHOLE["flac"], 30000), "30000 samples, 20000 are there"),
    "flac promises fewer": (with_flac_count(WHOLE["flac"], 100), "promises 100 samples, but more"),
    "flac promises years": (with_flac_count(WHOLE["flac"], 2**36 - 1), "hours"),
    "no sphere rate": (sphere(signal(), drop=["sample_rate"]), "damaged: it has no sample_rate"),
    "sphere at 0 Hz": (sphere(signal(), sample_rate=0), "0 samples a second"),
    "sphere at 2 GHz": (sphere(signal(), sample_rate=2 * 10**9), "2000000000 samples a second"),
    "sphere of 5000 channels": (sphere(signal(), channel_count=5000), "5000 channels"),
    "sphere of 0 channels": (sphere(signal(), channel_count=0), "0 channels"),
    "sphere of 8-byte samples": (sphere(signal(), sample_n_bytes=8), "8 bytes"),
    "negative count": (sphere(signal(), sample_count=-5), "promises -10 bytes"),
    "half a sphere header": (sphere(signal())[:60], "cut short within"),
    "sphere without length": (b"NIST_1A\nabcd\n" * 9, "header is damaged"),
    "wav at 10 Hz": (
        FEW_SAMPLES[:24] + struct.pack("<II", 10, 20) + FEW_SAMPLES[32:],
        "10 samples a second",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_lie(name):
    data, reason = LIES[name]
    with pytest.raises(decoding.AudioError, match=reason):
        decoding.decode(data)


def test_shorten_says_what_to_do():
    data = sphere(signal(), sample_coding="pcm,embedded-shorten-v2.00")
    with pytest.raises(decoding.AudioError, match=r"shorten-v2\.00.*sph2pipe"):
        decoding.decode(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty: it has no bytes"),
        (bytes(5000), "begins with zeros"),
        (b"<!DOCTYPE html><html>" * 50, "not audio: .* an HTML page"),
        (b"RIFF\x10\0\0\0WXYZLIST" * 9, "not a WAVE"),
        (encode("WAV", samples=np.zeros((0, 1))), "no samples"),
        (encode("FLAC")[:42], "4000 samples, 0 are there"),
        (sphere(np.zeros((0, 1))), "no samples"),
        (WHOLE["riff"][:36] + b"junk" + bytes(50), "without any"),
    ],
    ids=["empty", "zeros", "html", "avi", "wav", "flac", "sphere", "no data chunk"],
)
def test_what_is_no_recording(data, reason):
    with pytest.raises(decoding.AudioError, match=reason):
        decoding.decode(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(value):
    samples = signal()
    samples[1234] = value
    with pytest.raises(decoding.AudioError, match="NaN or infinite"):
        decoding.decode(encode("WAV", "FLOAT", samples))


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF - 37])
def test_lengths_left_open_by_a_pipe_are_no_lie(length):
    samples, _ = decoding.decode(with_data_bytes(WHOLE["riff"], length))
    np.testing.assert_array_equal(samples, signal()[:, 0])
    samples, _ = decoding.decode(with_flac_count(WHOLE["flac"], 0))
    np.testing.assert_array_equal(samples, signal(20000)[:, 0])


def test_chunks_and_tags_after_the_samples_are_no_lie():
    tagged = WHOLE["riff"] + b"LIST" + struct.pack("<I", 4) + b"INFO" + b"odd tagger's rest"
    np.testing.assert_array_equal(decoding.decode(tagged)[0], signal()[:, 0])


def test_a_recording_too_large_to_decode_is_refused(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODED_BYTES", 4 * 3000)
    with pytest.raises(decoding.AudioError, match="cut it into pieces"):
        decoding.decode(WHOLE["riff"])
    with pytest.raises(decoding.AudioError, match="cut it into pieces"):
        decoding.decode(with_flac_count(WHOLE["flac"], 0))


@pytest.mark.parametrize("kind", WHOLE)
def test_random_damage_raises_nothing_else(kind, capfd):
    generator = np.random.default_rng(list(kind.encode()))
    for _ in range(100):
        data = np.frombuffer(WHOLE[kind], np.uint8).copy()
        span = generator.choice([64, 256, len(data)])
        places = generator.integers(0, span, generator.integers(1, 9))
        data[places] = generator.integers(0, 256, len(places))
        try:
            samples, rate = decoding.decode(data.tobytes())
        except decoding.AudioError:
            continue
        assert len(samples)
        assert np.isfinite(samples).all()
        assert limits.MIN_RATE <= rate <= limits.MAX_RATE
    assert "Traceback" not in capfd.readouterr().err


def test_ogg_checksum_is_the_one_of_the_rfc():
    # RFC 3533: polynomial 0x04c11db7, initial value and final inversion 0, bit by bit.
    page = bytes(np.random.default_rng(0).integers(0, 256, 300, dtype=np.uint8))
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    assert ogg.crc(page) == register


def test_the_level_of_a_tone_survives_resampling():
    time = np.arange(RATE * 2) / RATE
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    half = decoding.resample(tone, RATE, 8000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(RATE) / 8000)
    assert len(half) == RATE
    np.testing.assert_allclose(half[200:-200], expected[200:-200], atol=1e-4)


def test_a_tone_above_the_band_is_gone():
    tone = np.sin(2 * np.pi * 6000 * np.arange(RATE) / RATE).astype(np.float32)
    assert np.abs(decoding.resample(tone, RATE, 8000)[200:-200]).max() < 1e-4


def test_resampling_to_the_same_rate_changes_nothing():
    samples = signal()[:, 0]
    assert decoding.resample(samples, 8000, 8000) is samples


@pytest.mark.parametrize(("from_rate", "to_rate"), [(44100, 8000), (8000, 48000), (8000, 8000)])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_blocks_have_no_seams(from_rate, to_rate, num_channels):
    samples = signal(30001, num_channels)
    blocks = [samples[start : start + 777] for start in range(0, len(samples), 777)]
    joined = np.concatenate(list(decoding.resample_blocks(blocks, from_rate, to_rate)))
    whole = decoding.resample(samples, from_rate, to_rate)
    assert joined.shape == whole.shape
    np.testing.assert_allclose(joined, whole, atol=1e-6)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_reader_gives_the_recording_block_by_block(kind, tmp_path):
    path = tmp_path / "recording.of_no_known_kind"
    path.write_bytes(WHOLE[kind])
    whole, rate = decoding.decode_channels(WHOLE[kind])
    with decoding.Reader(path) as reader:
        assert (reader.rate, reader.num_channels) == (rate, 1)
        assert reader.num_samples == len(whole)
        blocks = list(reader.blocks(997))
    assert {len(block) for block in blocks[:-1]} == {997}
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_hours_are_read_in_bounded_memory(tmp_path):
    path = tmp_path / "three_hours.wav"
    num_samples = 3 * 3600 * 8000
    data_bytes = struct.pack("<I", 2 * num_samples)
    path.write_bytes(WHOLE["riff"][:40] + data_bytes)
    os.truncate(path, 44 + 2 * num_samples)  # zeros that take no space on disk
    done = 0
    tracemalloc.start()
    with decoding.Reader(path) as reader:
        for block in reader.blocks():
            done += len(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done == num_samples
    assert peak < 8e6


def test_a_reader_names_its_file(tmp_path):
    path = tmp_path / "half.flac"
    path.write_bytes(WHOLE["flac"][:-500])
    with (
        pytest.raises(decoding.AudioError, match=r"half\.flac: cut short"),
        decoding.Reader(path) as r,
    ):
        for _ in r.blocks(1000):
            pass
    with pytest.raises(FileNotFoundError):
        decoding.Reader(tmp_path / "absent.wav")


def test_16_bits_are_read_back_to_the_bit(tmp_path):
    codes = np.arange(-32768, 32768, dtype=np.int16)
    for number, samples in enumerate((codes, (codes / 32768).astype(np.float32))):
        path = tmp_path / f"{number}.wav"
        decoding.write_wav(path, samples, RATE)
        with wave.open(str(path)) as file:  # the standard library's reader, not libsndfile
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
            read = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        np.testing.assert_array_equal(read, codes)


def test_16_bits_are_rounded_to_the_nearest(tmp_path):
    values = np.array([0.4, 0.6, -0.4, -0.6, 100.49, -100.51], np.float32) / 32768
    decoding.write_wav(tmp_path / "a.wav", values, RATE)
    codes, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(codes, [0, 1, 0, -1, 100, -101])


def test_floats_keep_what_exceeds_full_scale(tmp_path):
    samples = signal(1000, 2) * 30
    decoding.write_wav(tmp_path / "a.wav", samples, RATE, "FLOAT")
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], samples)
    with pytest.raises(ValueError, match="full scale"):
        decoding.write_wav(tmp_path / "b.wav", samples, RATE)
    with pytest.raises(ValueError, match="full scale"):
        decoding.write_wav(tmp_path / "b.wav", np.full(9, np.nan, np.float32), RATE)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_the_same_samples_give_the_same_bytes_at_another_time(tmp_path, monkeypatch):
    decoding.write_wav(tmp_path / "a.wav", signal(), RATE, "FLOAT")
    written = (tmp_path / "a.wav").read_bytes()
    place = written.index(b"PEAK") + 12
    assert written[place : place + 4] == bytes(4)
    np.testing.assert_array_equal(decoding.decode(written)[0], signal()[:, 0])


def test_pcm_that_spells_peak_is_left_alone(tmp_path):
    codes = np.frombuffer(b"PEAKPEAKPEAKPEAKPEAK", "<i2")
    decoding.write_wav(tmp_path / "a.wav", codes, RATE)
    np.testing.assert_array_equal(
        decoding.decode((tmp_path / "a.wav").read_bytes())[0] * 32768, codes
    )


def test_a_writer_grows_block_by_block(tmp_path):
    samples = signal(10000, 2)
    with decoding.Writer(tmp_path / "a.wav", RATE, 2) as writer:
        for start in range(0, len(samples), 999):
            writer.write(samples[start : start + 999])
            assert not (tmp_path / "a.wav").exists()
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav", dtype="float32")[0], samples)


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"before")

    def fail():
        with decoding.Writer(tmp_path / "a.wav", RATE) as writer:
            writer.write(signal())
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == ["a.wav"]
    assert (tmp_path / "a.wav").read_bytes() == b"before"


def test_new_files_have_the_permissions_that_others_have(tmp_path):
    decoding.write_wav(tmp_path / "a.wav", signal(), RATE)
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_more_than_4_gb_become_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "_MAX_WAV_BYTES", 6000)
    with decoding.Writer(tmp_path / "a.wav", RATE, num_samples=4000) as writer:
        writer.write(signal())
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    np.testing.assert_array_equal(
        decoding.decode((tmp_path / "a.wav").read_bytes())[0], signal()[:, 0]
    )
    with (
        pytest.raises(decoding.AudioError, match="4 GB"),
        decoding.Writer(tmp_path / "b.wav", RATE, num_samples=10) as writer,
    ):
        writer.write(signal())
    assert os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
@pytest.mark.parametrize("limit", [6000, 2**32])
def test_an_unknown_length_may_become_any(tmp_path, monkeypatch, subtype, limit):
    """A stream of unknown length: RF64 if it is too long for a WAV, otherwise a standard WAV."""
    monkeypatch.setattr(decoding, "_MAX_WAV_BYTES", limit)
    samples = signal(4001)
    with decoding.Writer(tmp_path / "a.wav", RATE, subtype=subtype) as writer:
        for block in np.array_split(samples, 7):
            writer.write(block)
    data = (tmp_path / "a.wav").read_bytes()
    assert data[:4] == (b"RF64" if limit == 6000 else b"RIFF")
    np.testing.assert_array_equal(decoding.decode(data)[0], samples[:, 0])
    if limit > 6000:
        rate, found = wavfile.read(tmp_path / "a.wav")
        assert rate == RATE
        scale = 32768 if subtype == "PCM_16" else 1
        np.testing.assert_array_equal(found / np.float32(scale), samples[:, 0])
        assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_a_full_disk_leaves_nothing(tmp_path):
    # A limit on the size of files simulates the full disk, which needs a process of its own.
    program = (
        "import resource, signal, sys, numpy as np\n"
        "from pipeline.audio import decoding; from pipeline import errors\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "try:\n"
        "    decoding.write_wav(sys.argv[1], np.zeros(100000, np.float32), 8000)\n"
        "except errors.UserError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.wav")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "a.wav: cannot be written whole; is the disk full?" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_missing_folder_is_pythons_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        decoding.write_wav(tmp_path / "absent" / "a.wav", signal(), RATE)
