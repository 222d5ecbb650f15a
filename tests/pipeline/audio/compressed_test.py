"""Decoding by FFmpeg's libraries, compared with the ffmpeg program and with the encoded samples."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from pipeline.audio import decoding, limits

av = pytest.importorskip("av")

RATE = 16000
ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg program")


def tones(num_samples=4 * RATE, num_channels=1):
    """Returns a different tone in each channel."""
    times = np.arange(num_samples)[:, np.newaxis] / RATE
    frequencies = 300.0 * np.arange(1, num_channels + 1)
    return (0.5 * np.sin(2 * np.pi * frequencies * times)).astype(np.float32)


def encode(form, codec, samples=None, rate=RATE, layout="mono"):
    """Encodes float32 `[sample, channel]` with PyAV."""
    samples = tones() if samples is None else samples
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":
            stream.bit_rate = 32000
        formats = [f.name for f in stream.codec_context.codec.audio_formats]
        form_of_samples = next((f for f in formats if f.startswith("s16")), formats[0])
        stream.codec_context.format = form_of_samples
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        resampler = av.AudioResampler(form_of_samples, layout, rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
        frame.sample_rate = RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return file.getvalue()


def by_program(data, tmp_path, num_channels=1):
    """Decodes the file with the ffmpeg program to float32 `[sample, channel]`."""
    path = tmp_path / "recording"
    path.write_bytes(data)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:a:0", "-f", "f32le", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4").reshape(-1, num_channels)


def program(samples, tmp_path, *arguments, layout=None):
    """Encodes float32 `[sample, channel]` with the ffmpeg program."""
    path = tmp_path / "made"
    given = ["-f", "f32le", "-ar", str(RATE), "-ac", str(samples.shape[1])]
    given += ["-channel_layout", layout] if layout else []
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", *given, "-i", "-", *arguments, path]
    subprocess.run(command, input=samples.tobytes(), check=True)
    return path.read_bytes()


CASES = {
    "m4a": ("ipod", "aac"),
    "3gp": ("3gp", "aac"),
    "mov": ("mov", "alac"),
    "matroska": ("matroska", "aac"),
    "adts": ("adts", "aac"),
    "wma": ("asf", "wmav2"),
    "wavpack": ("wv", "wavpack"),
    "tta": ("tta", "tta"),
    "ac3": ("ac3", "ac3"),
    "mp2": ("mp2", "mp2"),
    "flv": ("flv", "aac"),
    "flv of pcm": ("flv", "pcm_s16le"),
    "voc": ("voc", "pcm_s16le"),
    "ts": ("mpegts", "mp2"),
    "avi": ("avi", "mp2"),
    "caf": ("caf", "alac"),
    "opus in webm": ("webm", "libopus"),
    "wav of mp2": ("wav", "mp2"),
}


def rate_of(name):
    """Returns a rate that the codec supports."""
    return {"opus in webm": 48000, "ac3": 32000, "flv of pcm": 22050}.get(name, RATE)


@ffmpeg
@pytest.mark.parametrize("name", CASES)
def test_length_and_samples_are_those_of_the_program(name, tmp_path):
    form, codec = CASES[name]
    rate = str(rate_of(name))
    data = program(tones(), tmp_path, "-ar", rate, "-b:a", "32k", "-c:a", codec, "-f", form)
    samples, found = decoding.decode_channels(data)
    expected = by_program(data, tmp_path)
    assert found == rate_of(name)
    assert samples.shape == expected.shape
    np.testing.assert_allclose(samples, expected, atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_what_was_encoded_comes_out(name):
    rate = rate_of(name)
    samples, found = decoding.decode(encode(*CASES[name], rate=rate))
    assert found == rate
    # Codecs pad to whole frames; the WMA encoder omits the last one.
    assert abs(len(samples) - 4 * rate) <= 2 * 2048
    spectrum = np.abs(np.fft.rfft(samples[rate : 2 * rate]))
    assert spectrum.argmax() == 300
    assert np.square(samples[rate : 2 * rate]).mean() == pytest.approx(0.125, rel=0.1)


@pytest.mark.parametrize(("form", "codec"), [("mov", "alac"), ("wv", "wavpack"), ("tta", "tta")])
def test_lossless_codecs_give_every_sample(form, codec):
    samples = np.rint(tones() * 32767).astype(np.float32) / 32768
    np.testing.assert_array_equal(
        decoding.decode_channels(encode(form, codec, samples))[0], samples
    )


LAYOUTS = {2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


@ffmpeg
@pytest.mark.parametrize("num_channels", LAYOUTS)
@pytest.mark.parametrize(
    ("form", "codec"),
    [
        ("ipod", "aac"), ("matroska", "flac"), ("wv", "wavpack"), ("ogg", "libopus"),
        ("ogg", "libvorbis"), ("ogg", "flac"), ("flac", "flac"), ("wav", "pcm_s16le"),
    ],
)  # fmt: skip
def test_channels_are_in_the_order_of_the_program(form, codec, num_channels, tmp_path):
    more = ["-mapping_family", "1"] if codec == "libopus" else []
    data = program(
        tones(RATE, num_channels), tmp_path, "-c:a", codec, *more, "-f", form,
        layout=LAYOUTS[num_channels],
    )  # fmt: skip
    expected = by_program(data, tmp_path, num_channels)
    samples, rate = decoding.decode_channels(data)
    # libsndfile decodes Opus at the recording's original rate, the program at 48,000 Hz.
    samples = decoding.resample(samples, rate, RATE if codec != "libopus" else 48000)
    size = min(len(samples), len(expected))
    assert size >= 0.9 * RATE
    np.testing.assert_allclose(samples[:size], expected[:size], atol=5e-2)


def mp3(**settings):
    file = io.BytesIO()
    soundfile.write(file, tones(), RATE, format="MP3", **settings)
    return file.getvalue()


def without_xing(data):
    """Removes an MP3's first frame, which has no sound but the number of frames that follow."""
    place = data.index(b"Info") if b"Info" in data[:200] else data.index(b"Xing")
    start = data.rindex(b"\xff", 0, place)
    return data[data.index(data[start : start + 2], place) :]


@ffmpeg
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_count_is_as_long_as_the_program_decodes(mode, tmp_path):
    data = without_xing(mp3(bitrate_mode=mode))
    samples, rate = decoding.decode_channels(data)
    expected = by_program(data, tmp_path)
    assert rate == RATE
    assert samples.shape == expected.shape
    assert len(samples) >= 4 * RATE
    np.testing.assert_allclose(samples, expected, atol=1e-4)


@ffmpeg
def test_mp3_in_riff(tmp_path):
    data = program(tones(), tmp_path, "-ar", "44100", "-c:a", "libmp3lame", "-f", "wav")
    samples, rate = decoding.decode_channels(data)
    assert rate == 44100
    assert len(samples) == len(by_program(data, tmp_path)) >= 4 * 44100


@ffmpeg
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_opus_keeps_no_samples_of_the_encoders_delay(rate, tmp_path):
    """Also if the container gives a rate other than 48,000 Hz, in which Opus counts."""
    data = program(tones(), tmp_path, "-ar", str(rate), "-c:a", "libopus", "-f", "webm")
    samples, found = decoding.decode_channels(data)
    assert found == 48000
    expected = by_program(data, tmp_path)
    assert samples.shape == expected.shape == (4 * 48000, 1)
    np.testing.assert_allclose(samples, expected, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["m4a", "wma", "avi", "matroska", "tta", "wavpack", "flv", "flv of pcm", "voc"]
)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_what_is_cut_short_is_refused(name, share):
    data = encode(*CASES[name])
    with pytest.raises(decoding.AudioError, match=r"cut short|damaged"):
        decoding.decode(data[: int(len(data) * share)])


@pytest.mark.parametrize("name", ["m4a", "wma", "avi", "flv", "tta", "voc"])
def test_a_second_recording_behind_the_first_is_not_lost_in_silence(name):
    data = encode(*CASES[name])
    with pytest.raises(decoding.AudioError, match=f"another begins at byte {len(data)}"):
        decoding.decode(data + data)


def test_8svx():
    stream = io.BytesIO()
    soundfile.write(stream, tones(), RATE, format="SVX", subtype="PCM_S8")
    data = stream.getvalue()
    np.testing.assert_allclose(decoding.decode_channels(data)[0], tones(), atol=0.01)
    with pytest.raises(decoding.AudioError, match="cut short"):
        decoding.decode(data[: len(data) // 2])
    with pytest.raises(decoding.AudioError, match=f"another begins at byte {len(data)}"):
        decoding.decode(data + data)


@pytest.mark.parametrize("name", ["matroska", "adts", "ts"])
def test_streams_that_follow_each_other_are_taken_as_one(name):
    data = encode(*CASES[name])
    once, twice = (len(decoding.decode(d)[0]) for d in (data, data + data))
    assert abs(twice - 2 * once) <= 2048


def two_streams():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for number, stream in enumerate(streams):
            values = np.full((1, RATE), 100 * (number + 1), np.int16)
            frame = av.AudioFrame.from_ndarray(values, "s16", "mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return file.getvalue()


def test_of_several_streams_the_first_is_taken_and_it_is_said():
    with decoding.Reader(io.BytesIO(two_streams())) as reader:
        samples = np.concatenate(list(reader.blocks()))
        assert reader.notes == ["has 2 audio streams; the first one is taken"]
    np.testing.assert_array_equal(samples * 32768, np.full((RATE, 1), 100))


def with_video(codec):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        video = container.add_stream(codec, rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        container.mux(video.encode(picture))
        frame = av.AudioFrame.from_ndarray(np.ones((1, RATE), np.int16), "s16", "mono")
        frame.sample_rate = RATE
        container.mux(sound.encode(frame))
        container.mux([*video.encode(None), *sound.encode(None)])
    return file.getvalue()


@pytest.mark.parametrize(("codec", "note"), [("mjpeg", "cover picture"), ("mpeg4", "has video")])
def test_pictures_are_left_out_and_it_is_said(codec, note):
    with decoding.Reader(io.BytesIO(with_video(codec))) as reader:
        assert sum(map(len, reader.blocks())) == RATE
        assert any(note in text for text in reader.notes)


def test_video_without_sound():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
        container.mux(video.encode(frame))
        container.mux(video.encode(None))
    with pytest.raises(decoding.AudioError, match="video, but no sound"):
        decoding.decode(file.getvalue())


def test_a_file_cannot_make_us_read_another(tmp_path):
    """Playlists, lists of files, and movies whose samples are elsewhere, under any name."""
    secret = tmp_path / "secret.wav"
    soundfile.write(secret, tones(), RATE)
    for text in (
        f"#EXTM3U\n#EXTINF:4,\n{secret}\n#EXT-X-ENDLIST\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{secret}\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"ffconcat version 1.0\nfile 'concat:{secret}|{secret}'\n",
        f"<?xml version='1.0'?><MPD><BaseURL>{secret}</BaseURL></MPD>",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\na={secret}\n",
        f"\x7f\x01{secret}",
    ):
        path = tmp_path / "clip.m4a"
        path.write_text(text)
        with pytest.raises(decoding.AudioError, match="not audio"):
            decoding.Reader(path)


def test_a_movie_that_refers_to_another_file_is_not_followed(tmp_path):
    secret = tmp_path / "secret.mov"
    secret.write_bytes(encode("mov", "pcm_s16le"))
    movie = secret.read_bytes()
    # Its data reference, "here", becomes an alias of the file.
    place = movie.index(b"url \0\0\0\x01")
    assert place > 0
    changed = movie[:place] + b"url \0\0\0\0" + movie[place + 8 :]
    opened = []
    sys.addaudithook(lambda event, about: event == "open" and opened.append(about[0]))
    with contextlib.suppress(decoding.AudioError):
        decoding.decode(changed)
    assert str(secret) not in map(str, opened)


def test_hours_are_decoded_in_bounded_memory(tmp_path):
    path = tmp_path / "long.wv"
    path.write_bytes(encode("wv", "wavpack", np.zeros((600 * RATE, 1), np.float32)))
    tracemalloc.start()
    with decoding.Reader(path) as reader:
        count = sum(map(len, reader.blocks(RATE)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 600 * RATE
    # Decoded completely, it would be 38 MB.
    assert peak < 4e6


def test_blocks_are_of_the_size_that_was_asked_for():
    with decoding.Reader(io.BytesIO(encode("ipod", "aac"))) as reader:
        sizes = [len(block) for block in reader.blocks(1000)]
    assert set(sizes[:-1]) == {1000}
    assert 0 < sizes[-1] <= 1000


def test_a_frame_that_cannot_be_converted_is_an_error_of_the_recording(monkeypatch):
    class Resampler:
        def __init__(self, *_):
            pass

        def resample(self, _):
            # PyAV's error if a different layout with the same number of channels follows.
            raise ValueError("Frame does not match AudioResampler setup.")

    data = encode("ipod", "aac")
    monkeypatch.setattr(av, "AudioResampler", Resampler)
    with pytest.raises(limits.AudioError, match="damaged or cut short: Frame does not match"):
        decoding.decode(data)


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    data = encode("ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(limits.MissingDecoderError, match=r"pip install 'voices-apart\[av\]'"):
        decoding.decode(data)
    with pytest.raises(limits.MissingDecoderError, match="pip install av"):
        decoding.decode(without_xing(mp3()))
    # PyAV is not needed for what libsndfile decodes.
    assert len(decoding.decode(mp3())[0]) == 4 * RATE


def test_ordinary_files_do_not_import_pyav(tmp_path):
    for name in ("a.wav", "a.flac", "a.ogg"):
        soundfile.write(tmp_path / name, tones(), RATE)
    code = (
        "import sys; from pipeline.audio import decoding\n"
        "for name in ('a.wav', 'a.flac', 'a.ogg'): decoding.decode(open(name, 'rb').read())\n"
        "sys.exit('av' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


@pytest.mark.parametrize("name", ["m4a", "matroska", "wma", "adts", "wavpack", "avi"])
def test_random_damage_raises_nothing_else(name, capfd):
    whole = encode(*CASES[name], samples=tones(RATE))
    generator = np.random.default_rng(list(name.encode()))
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        span = generator.choice([64, 256, len(data)])
        places = generator.integers(0, span, generator.integers(1, 9))
        data[places] = generator.integers(0, 256, len(places))
        try:
            samples, _ = decoding.decode(data.tobytes())
        except decoding.AudioError:
            continue
        assert np.isfinite(samples).all()
    assert "Traceback" not in capfd.readouterr().err


def test_a_coding_that_nobody_knows():
    data = encode("matroska", "aac").replace(b"A_AAC", b"A_XYZ")
    with pytest.raises(decoding.AudioError, match="its coding is none that FFmpeg knows"):
        decoding.decode(data)
