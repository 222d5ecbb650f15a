"""Samples in pipes: headers as other programs write them, and what they read of ours."""

import io
import os
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from export.separation import wav_stream
from pipeline.audio import decoding


class Trickle(io.BytesIO):
    """A pipe that gives few bytes at a time."""

    def read1(self, size=-1):
        return super().read1(min(size, 7))


def wav(samples, data_bytes, *, form=1, bits=16, extra=b"", riff=b"RIFF"):
    """A WAV with a header by hand: what programs write who do not know the length."""
    order = ">" if riff == b"RIFX" else "<"
    channels = samples.shape[1]
    width = bits // 8
    fields = struct.pack(
        f"{order}HHIIHH", form, channels, 8000, 8000 * width * channels, width * channels, bits
    )
    kind = {(1, 16): "i2", (3, 32): "f4", (1, 32): "i4"}[form, bits]
    scale = 1 if form == 3 else 2 ** (bits - 1)
    data = np.round(samples * scale) if form == 1 else samples
    return (
        riff + struct.pack(f"{order}I", 0xFFFFFFFF) + b"WAVE"
        + b"fmt " + struct.pack(f"{order}I", 16) + fields + extra
        + b"data" + struct.pack(f"{order}I", data_bytes) + data.astype(order + kind).tobytes()
    )  # fmt: skip


@pytest.fixture
def samples():
    return np.random.default_rng(0).uniform(-0.9, 0.9, (501, 1))


def read(data, kind="wav", rate=None, channels=None, file=Trickle):
    source = wav_stream.Source(file(data), kind, rate, channels)
    return np.concatenate([np.zeros(0), *source.blocks()]), source


class TestSource:
    @pytest.mark.parametrize(
        ("data_bytes", "extra"),
        [
            (0xFFFFFFFF, b"LIST\x1a\0\0\0INFOISFT\x0d\0\0\0Lavf60.16.100\0"),  # ffmpeg
            (0x80000000, b""),  # arecord
            (0x7FFFF000, b""),  # SoX
            (0, b""),  # GStreamer
            (1002, b"odd \x03\0\0\0abc\0"),
        ],
    )
    def test_headers_of_pipes(self, samples, data_bytes, extra):
        found, source = read(wav(samples, data_bytes, extra=extra))
        assert (source.rate, source.num_channels) == (8000, 1)
        np.testing.assert_allclose(found, samples[:, 0], atol=0.51 / 32768)

    @pytest.mark.parametrize("whole", [36, 36 + 8 + 26])
    def test_zero_samples_are_not_known_unless_chunks_follow(self, samples, whole):
        """GStreamer's wavenc: the whole is 36 bytes, too; an empty file with tags is longer."""
        head = wav(samples[:0], 0)
        head = head[:4] + struct.pack("<I", whole) + head[8:]
        known = whole > 36
        rest = b"LIST\x1a\0\0\0INFOISFT\x0d\0\0\0Lavf60.16.100\0" if known else b""
        assert len(read(head + rest)[0]) == 0
        found, _ = read(head + samples.astype("<f4").tobytes()[:1000])
        assert len(found) == (0 if known else 500)

    @pytest.mark.parametrize(("form", "bits", "riff"), [(3, 32, b"RIFF"), (1, 16, b"RIFX")])
    def test_codings(self, samples, form, bits, riff):
        found, _ = read(wav(samples, 0xFFFFFFFF, form=form, bits=bits, riff=riff))
        np.testing.assert_allclose(found, samples[:, 0], atol=0.51 / 32768)

    @pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW"])
    @pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
    def test_files_of_libsndfile(self, samples, subtype, form):
        file = io.BytesIO()
        stereo = np.concatenate([samples, 0.5 * samples], axis=1)
        soundfile.write(file, stereo, 16000, subtype=subtype, format=form)
        expected, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")
        found, source = read(file.getvalue())
        assert (source.rate, source.num_channels) == (16000, 2)
        np.testing.assert_allclose(found, expected.mean(axis=1), atol=1e-6)

    @pytest.mark.parametrize(
        ("kind", "dtype", "scale"), [("s16le", "<i2", 2**15), ("f32le", "<f4", 1)]
    )
    def test_raw(self, samples, kind, dtype, scale):
        stereo = np.concatenate([samples, -0.5 * samples], axis=1)
        data = (stereo * scale).astype(dtype)
        found, source = read(data.tobytes(), kind, 11025, 2)
        assert source.rate == 11025
        np.testing.assert_allclose(found, data.mean(axis=1) / scale, atol=1e-6)

    def test_what_follows_the_samples_is_none(self, samples):
        found, _ = read(wav(samples, 1002) + b"LIST\x04\0\0\0abcd")
        assert len(found) == 501
        long = io.BytesIO()
        soundfile.write(long, samples, 16000, subtype="PCM_16", format="RF64")
        found, _ = read(long.getvalue() + b"LIST\x04\0\0\0abcd")
        assert len(found) == 501
        with pytest.raises(decoding.AudioError, match="promises 10 samples more"):
            read(long.getvalue()[:-20])

    @pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
    @pytest.mark.parametrize("cut", [0, 1])
    def test_a_recorder_that_died_gets_the_answer_of_a_file(self, samples, length, cut):
        data = wav(samples, length)
        if not length:
            data = data[:4] + bytes(4) + data[8:]
        data = data[: len(data) - cut]
        found, source = read(data)
        with decoding.Reader(io.BytesIO(data)) as reader:
            np.testing.assert_array_equal(found, np.concatenate(list(reader.blocks()))[:, 0])
        assert len(found) == 501 - cut
        said = [f"standard input: {note}" for note in reader.notes]
        # That a program leaves the length open which writes into a pipe is no news.
        assert source.notes == (said if not length or cut else [])

    def test_bw64(self, samples):
        file = io.BytesIO()
        soundfile.write(file, samples, 16000, subtype="PCM_16", format="RF64")
        found, _ = read(b"BW64" + file.getvalue()[4:])
        assert len(found) == 501

    def test_a_second_recording_is_not_lost_in_silence(self, samples):
        one = wav(samples, 1002)
        source = wav_stream.Source(Trickle(one + one), "wav", None, None)
        found = []
        with pytest.raises(decoding.AudioError, match="goes on with 1046 bytes"):
            found.extend(source.blocks())
        assert sum(map(len, found)) == 501
        noise = np.random.default_rng(0).integers(128, 255, 5000).astype(np.uint8).tobytes()
        with pytest.raises(decoding.AudioError, match="goes on with 5000 bytes"):
            read(one + noise)

    @pytest.mark.parametrize("cut", [1, 3])
    def test_an_end_within_a_sample_is_said_when_all_is_given(self, samples, cut):
        data = samples.astype("<f4").tobytes()[:-cut]
        blocks = wav_stream.Source(Trickle(data), "f32le", 8000, 1).blocks()
        found = []
        with pytest.raises(decoding.AudioError, match=f"middle of a sample: {4 - cut} of 4 bytes"):
            found.extend(blocks)
        np.testing.assert_allclose(np.concatenate(found), samples[:-1, 0], atol=1e-6)

    @pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
    def test_no_number_ends_it_when_all_before_is_given(self, samples, wrong):
        stereo = np.concatenate([samples, samples], axis=1).astype("<f4")
        stereo[400, 1] = wrong
        blocks = wav_stream.Source(io.BytesIO(stereo.tobytes()), "f32le", 8000, 2).blocks()
        found = []
        with pytest.raises(decoding.AudioError, match=r"standard input.*NaN or infinite"):
            found.extend(blocks)
        np.testing.assert_allclose(np.concatenate(found), samples[:400, 0], atol=1e-6)

    def test_fewer_samples_than_promised(self, samples):
        with pytest.raises(decoding.AudioError, match="promises 9 samples more"):
            read(wav(samples, 1020))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "empty"),
            (b"fLaC1234567890", "no WAV.*--stdin=s16le"),
            (b"RIFF\xff\xff\xff\xffWAVE", "without samples"),
            (b"RIFF\xff\xff\xff\xffWAVEjunk\xff\xff\xff\x7f", "without samples"),
            (b"RIFF\xff\xff\xff\xffWAVEdata\xff\xff\xff\xff1234", "standard input: "),
            (wav(np.zeros((4, 100)), 0xFFFFFFFF), "100 channels"),
            (wav(np.zeros((4, 1)), 0xFFFFFFFF).replace(b"\x02\0\x10\0", b"\0\0\x10\0"), "bits"),
        ],
    )
    def test_no_wav(self, data, message):
        with pytest.raises(decoding.AudioError, match=message):
            read(data)

    def test_compressed(self):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(1000), 8000, subtype="IMA_ADPCM", format="WAV")
        with pytest.raises(decoding.AudioError, match="IMA_ADPCM"):
            read(file.getvalue())

    def test_another_rate_than_told(self, samples):
        with pytest.raises(decoding.AudioError, match="8000 Hz by its header, not the 16000"):
            read(wav(samples, 1002), rate=16000)
        with pytest.raises(decoding.AudioError, match="1 channels by its header, not the 2"):
            read(wav(samples, 1002), channels=2)


class TestPipe:
    @pytest.fixture
    def voices(self):
        return np.random.default_rng(1).uniform(-0.9, 0.9, (2, 300)).astype(np.float32)

    def write(self, file, kind, voices):
        out = wav_stream.Pipe(file, kind, 8000, len(voices))
        for first in range(0, voices.shape[1], 77):
            out.write(voices[:, first : first + 77])
        out.finish()
        return out

    def test_into_a_program(self, voices):
        """What `cat` hands on is a WAV whose length nobody knew."""
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self.write(process.stdin, "wav", voices)
            data = process.communicate()[0]
        assert data[40:44] == b"\xff\xff\xff\xff"
        with decoding.Reader(io.BytesIO(data)) as reader:
            assert (reader.rate, reader.num_channels, reader.subtype) == (8000, 2, "PCM_16")
        found = np.frombuffer(data[44:], "<i2").reshape(-1, 2).T / 32768
        np.testing.assert_allclose(found, voices, atol=0.51 / 32768)

    def test_into_a_file(self, voices, tmp_path):
        """Where one can go back, the header says the length."""
        with open(tmp_path / "out.wav", "wb") as file:
            self.write(file, "wav", voices)
        found, rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
        np.testing.assert_allclose(found.T, voices, atol=0.51 / 32768)
        assert rate == 8000
        assert os.path.getsize(tmp_path / "out.wav") == 44 + 300 * 4

    def test_appended(self, voices, tmp_path):
        """`>> file` must not change what was there."""
        (tmp_path / "both").write_bytes(b"before")
        with open(tmp_path / "both", "ab") as file:
            self.write(file, "wav", voices)
        data = (tmp_path / "both").read_bytes()
        assert data[:10] == b"beforeRIFF"
        assert len(data) == 6 + 44 + 300 * 4

    @pytest.mark.parametrize(
        ("kind", "dtype", "scale"), [("s16le", "<i2", 2**15), ("f32le", "<f4", 1)]
    )
    def test_raw(self, voices, kind, dtype, scale):
        file = io.BytesIO()
        self.write(file, kind, voices)
        found = np.frombuffer(file.getvalue(), dtype).reshape(-1, 2).T / scale
        np.testing.assert_allclose(found, voices, atol=0.51 / 32768 if scale > 1 else 0)

    def test_what_16_bits_cannot_hold_is_cut_and_counted(self):
        loud = np.array([[1.0, 32767 / 32768, -1.0, -1.1, 0.5]], np.float32)
        file = io.BytesIO()
        assert self.write(file, "s16le", loud).clipped == 2
        assert list(np.frombuffer(file.getvalue(), "<i2")) == [32767, 32767, -32768, -32768, 16384]
