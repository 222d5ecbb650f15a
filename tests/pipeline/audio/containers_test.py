"""Containers whose headers are incomplete or wrong."""

import io
import struct

import numpy as np
import pytest
import soundfile

from pipeline.audio import decoding, recognition

RATE = 16000


def signal(num_samples=20000, num_channels=1, seed=0):
    generator = np.random.default_rng(seed)
    codes = generator.integers(-9000, 9000, (num_samples, num_channels))
    return (codes / 32768).astype(np.float32)


def encode(kind, subtype=None, samples=None, rate=RATE, **settings):
    file = io.BytesIO()
    samples = signal() if samples is None else samples
    soundfile.write(file, samples, rate, format=kind, subtype=subtype, **settings)
    return file.getvalue()


def read(data):
    """Returns float32 `[sample, channel]` and the notes."""
    with decoding.Reader(io.BytesIO(data)) as reader:
        return np.concatenate(list(reader.blocks())), reader.notes


def put(data, place, new):
    return data[:place] + new + data[place + len(new) :]


def id3(num_bytes):
    size = bytes(num_bytes >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + b"p" * num_bytes


WHOLE = {
    "wav": encode("WAV", "PCM_16"),
    "rf64": encode("RF64", "PCM_16"),
    "aiff": encode("AIFF", "PCM_16"),
    "au": encode("AU", "PCM_16"),
    "caf": encode("CAF", "PCM_16"),
    "w64": encode("W64", "PCM_16"),
    "flac": encode("FLAC", "PCM_16"),
    "vorbis": encode("OGG", "VORBIS"),
    "mp3": encode("MP3"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_tag_in_front_costs_nothing(kind):
    expected, _ = read(WHOLE[kind])
    for tag in (id3(10), id3(100_000), id3(300) + id3(50)):
        found, notes = read(tag + WHOLE[kind])
        np.testing.assert_array_equal(found, expected)
        assert not notes


def test_nothing_behind_a_tag():
    with pytest.raises(decoding.AudioError, match="ID3"):
        decoding.decode(id3(100))


def left_open(kind, length):
    """Returns a file as left by a program that died or wrote into a pipe: lengths 0 or all ones."""
    data, short = WHOLE[kind], length.to_bytes(4, "little" if kind == "wav" else "big")
    if kind == "rf64":
        return put(data, data.index(b"ds64") + 8, bytes(24))
    if kind == "wav":
        return put(put(data, 4, short), data.index(b"data") + 4, short)
    if kind == "aiff":
        data = put(put(data, 4, short), data.index(b"SSND") + 4, short)
        return put(data, data.index(b"COMM") + 10, bytes(4))
    if kind == "au":
        return put(data, 8, short)
    if kind == "caf":
        return put(data, data.index(b"data") + 4, b"\xff" * 8 if length else bytes(8))
    place = data.index(b"data\xf3\xac\xd3\x11") + 16
    return put(data, place, b"\xff" * 7 + b"\x7f" if length else bytes(8))


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", ["wav", "rf64", "aiff", "au", "caf", "w64"])
def test_lengths_that_were_left_open(kind, length):
    whole = left_open(kind, length)
    found, notes = read(whole)
    np.testing.assert_array_equal(found, signal())
    assert len(notes) == 1
    assert "leaves the length open; all 40000 bytes that follow are taken" in notes[0]
    # A crash may cut the file anywhere.
    found, notes = read(whole[:-2001])
    np.testing.assert_array_equal(found, signal()[:-1001])
    assert "but the last 1, which are no whole sample" in notes[0]


def test_a_wave_without_samples_but_with_tags_is_empty():
    data = encode("WAV", "PCM_16", np.zeros((0, 1)))
    tags = b"LIST\x1a\0\0\0INFOISFT\x0d\0\0\0Lavf60.16.100\0"
    data = put(data + tags, 4, struct.pack("<I", len(data) + len(tags) - 8))
    with pytest.raises(decoding.AudioError, match="no samples"):
        decoding.decode(data)


@pytest.mark.parametrize("kind", ["wav", "rf64", "aiff", "au", "caf", "w64", "flac"])
def test_a_second_recording_is_not_lost_in_silence(kind):
    with pytest.raises(decoding.AudioError, match=r"promises|another begins at byte"):
        decoding.decode(WHOLE[kind] + WHOLE[kind])


@pytest.mark.parametrize("kind", ["wav", "aiff", "au", "caf", "w64"])
def test_samples_that_no_header_names(kind):
    with pytest.raises(decoding.AudioError, match="promises"):
        decoding.decode(WHOLE[kind] + signal().tobytes())


def test_a_flac_that_promises_too_few_samples_and_has_no_checksum():
    data = WHOLE["flac"]
    fields = int.from_bytes(data[18:26], "big") >> 36 << 36
    data = put(data, 18, (fields | 12000).to_bytes(8, "big") + bytes(16))
    with pytest.raises(decoding.AudioError, match="promises 12000 samples, but more follow"):
        decoding.decode(data)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_gives_all_of_it(subtype):
    parts = [encode("OGG", subtype, signal(size, seed=size)) for size in (30000, 7000, 16000)]
    expected = np.concatenate([read(part)[0] for part in parts])
    found, _ = read(b"".join(parts))
    assert len(found) == 53000
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(decoding.AudioError, match="cut short"):
        decoding.decode(b"".join(parts)[:-10])


def test_chained_ogg_of_two_rates_is_refused():
    parts = [encode("OGG", "VORBIS", rate=rate) for rate in (16000, 8000)]
    with pytest.raises(decoding.AudioError, match=f"another begins at byte {len(parts[0])}"):
        decoding.decode(b"".join(parts))


def test_a_page_of_no_stream_is_damage():
    data = WHOLE["vorbis"]
    last = data.rindex(b"OggS")
    with pytest.raises(decoding.AudioError, match="belongs to no stream"):
        decoding.decode(data + data[last:])


@pytest.mark.parametrize("tag", [b"", id3(64)])
def test_joined_mp3s_give_both(tag):
    parts = [encode("MP3", samples=signal(size, seed=size)) for size in (30000, 17000)]
    expected = np.concatenate([read(part)[0] for part in parts])
    found, notes = read(tag.join(parts))
    assert len(found) == 47000
    np.testing.assert_array_equal(found, expected)
    assert notes == ["2 recordings in one file, taken as one"]


@pytest.mark.parametrize("kind", ["mp3", "flac"])
def test_tags_at_the_end_are_no_sound(kind):
    expected, _ = read(WHOLE[kind])
    header, footer = (
        b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 40, 1, flags) + bytes(8)
        for flags in (0xA0000000, 0x80000000)
    )
    id3v1 = b"TAG" + bytes(125)
    for tag in (id3v1, bytes(500), header + b"i" * 40 + footer, footer[:12] + b"\x20" + bytes(19)):
        for more in (b"", id3v1):
            found, notes = read(WHOLE[kind] + tag + more)
            np.testing.assert_array_equal(found, expected)
            assert not notes


def test_a_cut_mp3_with_a_count_is_refused():
    with pytest.raises(decoding.AudioError, match="cut short: its header promises"):
        decoding.decode(WHOLE["mp3"][: len(WHOLE["mp3"]) // 2])


def test_bw64_is_rf64_by_another_name():
    data = WHOLE["rf64"]
    np.testing.assert_array_equal(read(b"BW64" + data[4:])[0], signal())


def test_a_sphere_header_with_numbers_written_as_reals():
    lines = ["NIST_1A", "   1024", "channel_count -i 1", "sample_count -i 20000"]
    lines += ["sample_rate -r 16000.0", "sample_n_bytes -i 2", "sample_byte_format -s2 01"]
    header = ("\n".join([*lines, "end_head"]) + "\n").encode().ljust(1024)
    data = header + (signal() * 32768).astype("<i2").tobytes()
    samples, rate = decoding.decode(data)
    assert rate == 16000
    np.testing.assert_array_equal(samples, signal()[:, 0])
    with pytest.raises(decoding.AudioError):
        decoding.decode(data.replace(b"-r 16000.0", b"-r 16000.5"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7\n" + bytes(100), "a PDF document"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "a JPEG picture"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"#EXTM3U\nsong.mp3\n", "a playlist"),
        (b"MThd\0\0\0\x06" + bytes(100), "MIDI"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        ("naïve text".encode(), "text, which begins with 'naïve text'"),
        (bytes(range(1, 200)) * 9, "as no format that is known here"),
    ],
)
def test_what_is_no_audio_is_named_in_words(data, words):
    with pytest.raises(decoding.AudioError, match=f"^not audio: .*{words}") as caught:
        decoding.decode(data)
    assert "\\x" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("mp4", b"\0\0\0\x1cftypM4A "), ("matroska", b"\x1aE\xdf\xa3\x9f"), ("amr", b"#!AMR\n"),
        ("asf", bytes.fromhex("3026b2758e66cf11")), ("avi", b"RIFF\0\0\0\0AVI LIST"),
        ("wavpack", b"wvpk"), ("flv", b"FLV\x01\x04"), ("id3", b"ID3\x04"), ("ogg", b"OggS"),
    ],
)  # fmt: skip
def test_kinds(kind, head):
    assert recognition.kind_of(head.ljust(4096, b"\0")) == kind
    assert recognition.kind_of(bytes(4096)) is None
