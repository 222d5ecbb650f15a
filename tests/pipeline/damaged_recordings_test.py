"""Hundreds of damaged recordings among good ones: each is reported with a reason."""

import csv
import dataclasses
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from pipeline import schema
from pipeline.audio import sphere

RATE = 8000
ODD_NAMES = (
    "two words", "  lead and trail  ", "it's", 'say "a"', "a,b;c", "line\nbreak", "tab\tand\rfeed",
    "naïve", "日本語", "ünï\u0308", "emoji 🎙", "right\u202eleft", "line\u2028separator", "%s %d",
    "star * [x] ?", "back\\slash", "-rf", "$HOME `id`", "#hash", "a=b&c", "x" * 200, "1", "nan",
)  # fmt: skip
# What a reason must not contain: Python's own terms, and characters that forge lines.
PROGRAMMERS = re.compile(
    r"Error\b|Exception|Traceback|None\b|0x[0-9a-f]{6}|<.*object|invalid literal|could not convert"
    r"|[\x00-\x1f]"
)
CUT, HEADER, NO_AUDIO = r"cut short|promises", r"header|promises|cut short", r"not audio"


@dataclasses.dataclass(frozen=True)
class Case:
    """One damaged file: its class, its name without ending, its bytes, and the expected message."""

    kind: str
    name: str
    data: bytes
    reason: str


def encode(samples, kind="WAV", subtype="PCM_16", rate=RATE, **settings):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype, **settings)
    return file.getvalue()


def put(data, place, form, *values):
    """Replaces bytes by values packed with `struct`."""
    new = struct.pack(form, *values)
    return data[:place] + new + data[place + len(new) :]


def formats(samples):
    """Returns the same recording in every supported format, by name."""
    codes = np.rint(samples * 32767).astype(np.int16)
    kinds = [
        ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("AU", "ULAW"), ("CAF", "PCM_16"),
        ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
        ("NIST", "ULAW"),
    ]  # fmt: skip
    made = {f"{kind}-{subtype}": encode(samples, kind, subtype) for kind, subtype in kinds}
    made["RIFX"] = encode(samples, endian="BIG")
    made["SPHERE"] = sphere.encode(codes, RATE, "vmh0_sx116", "TIMIT")
    return made


def with_field(data, field, value):
    """Returns a SPHERE file with another line for the field in its header, or none."""
    head, rest = data[:1024], data[1024:]
    line = b"" if value is None else b"%s -i %s\n" % (field.encode(), value.encode())
    head = re.sub(rb"%s -\S+ .*?\n" % field.encode(), b"", head)
    head = head.replace(b"end_head", line + b"end_head").rstrip(b" ")
    return head.ljust(1024)[:1024] + rest


def cut_files(whole):
    """Cuts within the header, at its end, within the samples, and a byte before their end."""
    for name, data in whole.items():
        for place in (1, 3, 4, 8, 11, 20, 27, 36, 43, 60):
            # The reason is different if not even the format is recognisable.
            reason = rf"{CUT}|header|not audio|decoded|damaged|no samples|without|RIFF file"
            yield Case("cut in the header", f"{name} at {place}", data[:place], reason)
        for share in (0.3, 0.5, 0.8, 0.97):
            reason = rf"{CUT}|damaged|decoded"
            yield Case("cut", f"{name} at {share}", data[: int(share * len(data))], reason)


def lying_files(whole):
    """Lengths that promise more, or far less, than there is."""
    wav, samples = whole["WAV-PCM_16"], whole["SPHERE"]
    place = wav.index(b"data") + 4
    # From 0x7FFFF000 on, a length means that it is unknown, and is not wrong.
    for number in (0, 2, 1000, len(wav) * 2, 10**6, 10**9, 2**31 - 5000):
        reason = r"promises \d+ bytes"
        yield Case("lying size", f"wav {number}", put(wav, place, "<I", number), reason)
    for number in (0, 1, 500, 10**5, 10**9, 10**18, 10**30):
        data = with_field(samples, "sample_count", str(number))
        yield Case("lying size", f"sphere {number}", data, r"promises \d+ bytes|damaged")
    rf64 = whole["RF64-PCM_16"]
    place = rf64.index(b"ds64") + 16
    for number in (10**6, 2**40, 2**63, 2**64 - 1):
        data = put(rf64, place, "<Q", number)
        yield Case("lying size", f"rf64 {number}", data, "promises|hours")
    flac = whole["FLAC-PCM_16"]
    fields = int.from_bytes(flac[18:26], "big") >> 36 << 36
    for number in (10, 10**5, 2**31, 2**36 - 1):
        data = put(flac, 18, ">Q", fields | number)
        yield Case("lying size", f"flac {number}", data, "promises|checksum|hours")
    for name, place, form in (("AU-PCM_16", 8, ">I"), ("AIFF-PCM_16", None, ">I")):
        data = whole[name]
        place = data.index(b"SSND") + 4 if place is None else place
        for number in (100, 10**6, 2**30):
            bad = put(data, place, form, number)
            yield Case("lying size", f"{name} {number}", bad, "promises|decoded")


def absurd_files(whole):
    """Rates, channels and widths that no real recording has."""
    wav, samples = whole["WAV-PCM_16"], whole["SPHERE"]
    for rate in (0, 1, 10, 999, 768_001, 10**7, 2**31 - 1, 2**31, 2**32 - 1):
        reason = r"samples a second|decoded"
        yield Case("rate", f"wav {rate}", put(wav, 24, "<I", rate), reason)
        data = with_field(samples, "sample_rate", str(rate))
        yield Case("rate", f"sphere {rate}", data, r"samples a second")
    for channels in (0, 65, 1000, 65535):
        reason = r"channels|decoded|promises"
        yield Case("channels", f"wav {channels}", put(wav, 22, "<H", channels), reason)
        data = with_field(samples, "channel_count", str(channels))
        yield Case("channels", f"sphere {channels}", data, "channels")
    for bits in (0, 1, 3, 33, 99, 65535):
        yield Case("width", f"wav {bits}", put(wav, 34, "<H", bits), r"decoded|promises|header")
    for coding in (0, 0x1234, 0xBEEF):
        yield Case("coding", f"wav {coding:x}", put(wav, 20, "<H", coding), "decoded")


def huge_headers(whole):
    """Headers whose length exceeds the file, or memory."""
    wav, samples, flac = whole["WAV-PCM_16"], whole["SPHERE"], whole["FLAC-PCM_16"]
    for number in (5_000_000, 999_999_999):
        data = put(wav[:12] + b"LIST" + bytes(4) + wav[12:300], 16, "<I", number)
        yield Case("huge header", f"wav {number}", data, "cut short")
    for text in (b"9999999", b"8388608", b" 500000"):
        data = b"NIST_1A\n" + text + b"\n" + samples[16:2000]
        yield Case("huge header", f"sphere {text.decode()}", data, "cut short|promises")
    data = b"fLaC\x04\xff\xff\xff" + flac[8:100]
    yield Case("huge header", "flac", data, "decoded|damaged|cut short")
    yield Case("huge header", "id3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(50), "cut short")
    yield Case("huge header", "ogg", b"OggS" + b"\xff" * 300, "cut short|damaged")
    # Eight channels of digital silence compress a hundred megabytes to a few kilobytes.
    bomb = encode(np.zeros((3_000_000, 8), np.int16), "FLAC")
    yield Case("small file, much audio", "flac", bomb, "silent")


def broken_sphere(data):
    """SPHERE files with each header field broken in each way, and the two lines before them."""
    for field in ("sample_count", "sample_rate", "channel_count", "sample_n_bytes"):
        for value in ("abc", "", "-5", "0", "9" * 400, "1e999", "nan", "0x10", "٣"):
            value = value.encode().decode("latin-1") if not value.isascii() else value
            bad = with_field(data, field, value)
            yield Case("sphere field", f"{field} {value[:9]}", bad, r"header|promises|channels")
    for field in ("sample_count", "sample_rate"):
        yield Case("sphere field", f"no {field}", with_field(data, field, None), "header")
    for value in ("pcm,embedded-shorten-v2.00", "pcm,embedded-wavpack", "mp2", "xyz"):
        bad = with_field(data, "sample_coding", value)
        yield Case("sphere field", f"coding {value}", bad, "sph2pipe|decoded|header")
    for value in ("11", "0", "3210", "x"):
        bad = with_field(data, "sample_byte_format", value)
        yield Case("sphere field", f"byte format {value}", bad, "decoded|header")
    for line in (b"   abcd", b"  -1024", b"      0", b"     16", b"      7"):
        bad = b"NIST_1A\n" + line + b"\n" + data[16:]
        yield Case("sphere field", f"length {line.decode().strip()}", bad, "SPHERE header")
    bad = data.replace(b"end_head", b"dne_head")
    yield Case("sphere field", "no end", bad, "SPHERE header")
    yield Case("sphere field", "NIST_1B", data.replace(b"1A", b"1B", 1), NO_AUDIO)


def no_recordings(samples):
    """Files that are not audio, and audio that is silent."""
    for number in (1, 2, 44, 5000):
        yield Case("zeros", f"{number}", bytes(number), NO_AUDIO)
    yield Case("empty", "no bytes", b"", "empty")
    for kind in ("WAV", "FLAC", "AIFF", "AU", "CAF", "W64"):
        yield Case("empty", kind, encode(samples[:0], kind), r"empty|no samples|decoded")
    texts = {
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9,
        "json": b'{"error": "access denied"}',
        "csv": b"path,speaker\na.wav,anna\n",
        "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "utf-16": "not a recording".encode("utf-16"),
        "script": b"#!/bin/sh\nrm -rf /\n",
        "riff as text": b"RIFF is a file format" * 50,
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "zip": b"PK\x03\x04" + bytes(100),
        "escape": b"\x1b[2J\x1b[31mboo\n" * 9,
    }
    for name, data in texts.items():
        yield Case("text", name, data, r"not audio|not a WAVE")
    for value in (np.nan, np.inf, -np.inf):
        for subtype in ("FLOAT", "DOUBLE"):
            for place in (0, len(samples) // 2, -1):
                bad = samples.astype(np.float64)
                bad[place] = value
                name = f"{value} {subtype} {place}"
                yield Case("no number", name, encode(bad, subtype=subtype), "NaN or infinite")
    bad = np.full(len(samples), 1e300)
    bad[::2] *= -1
    yield Case("no number", "1e300", encode(bad, subtype="DOUBLE"), "NaN|larger")
    for value in (0.0, 0.5, -1.0):
        data = encode(np.full(len(samples), value, np.float32))
        yield Case("one value", str(value), data, r"silent|one value")


def flipped(whole):
    """Files with some bits flipped in the middle, protected by a checksum."""
    random = np.random.default_rng(0)
    for name in ("FLAC-PCM_16", "FLAC-PCM_24", "OGG-VORBIS", "OGG-OPUS"):
        for number in range(5):
            data = bytearray(whole[name])
            data[int(random.integers(len(data) // 3, len(data) - 200))] ^= 1 << number
            yield Case("flipped bit", f"{name} {number}", bytes(data), "damaged|cut short|promises")


@pytest.fixture(scope="module")
def cases(voice):
    whole = formats(voice(0, 1.3, RATE))
    makers = (cut_files, lying_files, absurd_files, huge_headers, flipped)
    found = [case for maker in makers for case in maker(whole)]
    found += broken_sphere(whole["SPHERE"])
    found += no_recordings(voice(1, 1.3, RATE))
    found += [Case("odd name", name, b"no audio", NO_AUDIO) for name in ODD_NAMES]
    return found


@dataclasses.dataclass(frozen=True)
class Done:
    """The job's results: reasons by path, first voices of the records, peak memory in MB."""

    folder: pathlib.Path
    wanted: dict[str, Case]
    good: set[str]
    reasons: dict[str, str]
    voices: list[str]
    peak_mb: float
    said: str


# VmHWM is reset when a program starts; getrusage's figure includes the parent process.
_PROGRAM = """
import re, runpy, sys
sys.argv = ["preprocess", *sys.argv[1:]]
try:
    runpy.run_module("pipeline.preprocess", run_name="__main__")
finally:
    print("peak", int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory, cases, voice):
    """Runs the job on a folder of speakers and a manifest, with damaged files among good ones."""
    base = tmp_path_factory.mktemp("damaged")
    corpus, listed = base / "corpus", base / "listed"
    wanted, good = {}, set()
    speakers = [corpus / f"speaker {n}, the 'n\"th'" for n in range(4)]
    for speaker in (*speakers, listed / "audio"):
        speaker.mkdir(parents=True)
    for number, case in enumerate(cases):
        own = case.name if case.kind == "odd name" else f"{number:03d}"
        path = speakers[number % 4] / f"bad {own}.wav"
        path.write_bytes(case.data)
        wanted[str(path)] = case
    for number, speaker in enumerate(speakers):
        names = [*formats(voice(0, 1.0)), *ODD_NAMES] if number == 0 else ODD_NAMES[::4]
        whole = formats(voice(number, 1.2 + 0.1 * number, RATE))
        for name in names:
            (speaker / f"{name}.wav").write_bytes(whole.get(name, whole["WAV-PCM_16"]))
            good.add(f"corpus/{speaker.name}/{name}")
    add_links(speakers[1], corpus, wanted)
    rows = [("audio/one.flac", "eva"), ("./audio/../audio/two, too.wav", "eva")]
    for path, data in (("one.flac", whole["FLAC-PCM_16"]), ("two, too.wav", whole["RIFX"])):
        (listed / "audio" / path).write_bytes(data)
    good |= {"listed/audio/one", "listed/audio/two, too"}
    outside = [
        "../corpus/x.wav", "audio/../../corpus/x.wav", "/etc/passwd", "/dev/zero", "s3://b/x.wav",
        "file:///etc/passwd", "..", ".", f"{listed}x/a.wav", f"{listed}/../corpus/a.wav",
    ]  # fmt: skip
    for path in outside:
        rows.append((path, "eva"))
        wanted[path] = Case("path traversal", path, b"", "leaves the manifest's folder")
    for path in ("audio/absent.wav", "audio", "audio/one.flac/x.wav"):
        rows.append((path, "eva"))
        reason = r"no such file|is a folder|no folder"
        wanted[str(listed / path)] = Case("not there", path, b"", reason)
    with open(listed / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "speaker"), *rows])
    command = [
        f"--input_dir={corpus}", f"--manifest={listed}/list.csv", f"--output_dir={base}/out",
        "--max_bad_fraction=1", "--num_shards=2", "--valid_fraction=0",
    ]  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    with open(base / "out" / schema.REJECTED_FILE, newline="") as file:
        rejected = list(csv.DictReader(file))
    reasons = {row["path"]: row["reason"] for row in rejected}
    assert len(reasons) == len(rejected), "a file is rejected twice"
    peak = float(re.search(r"peak ([\d.]+)", ended.stdout)[1])
    voices = first_voices(base / "out")
    return Done(base / "out", wanted, good, reasons, voices, peak, ended.stdout)


def add_links(folder, corpus, wanted):
    """Adds dangling and circular links, a pipe, a device, and a name that is not valid text."""
    (folder / "self.wav").symlink_to("self.wav")
    (folder / "ping.wav").symlink_to("pong.wav")
    (folder / "pong.wav").symlink_to("ping.wav")
    (folder / "upwards").symlink_to(corpus, target_is_directory=True)
    (folder / "nowhere.wav").symlink_to("/nonexistent/x.wav")
    (folder / "device.wav").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.wav")
    (pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav"))).write_bytes(b"x")
    for name in ("self.wav", "ping.wav", "pong.wav", "upwards"):
        wanted[str(folder / name)] = Case("link loop", name, b"", "circle")
    wanted[str(folder / "nowhere.wav")] = Case("dangling link", "nowhere", b"", "link to nowhere")
    for name in ("device.wav", "pipe.wav"):
        wanted[str(folder / name)] = Case("no file", name, b"", "not a plain file")
    wanted[str(folder / "caf\\udce9.wav")] = Case("no text", "café", b"", "UTF-8; rename it")


def first_voices(folder):
    found = []
    for path in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            feature = tf.train.Example.FromString(record).features.feature
            found.append(feature["utterance_ids"].bytes_list.value[0].decode())
    return found


def test_every_damaged_file_is_named_and_nothing_else(done):
    assert len(done.wanted) > 500
    missing = {path: case.kind for path, case in done.wanted.items() if path not in done.reasons}
    assert not missing, missing
    assert set(done.reasons) == set(done.wanted)


def test_reasons_are_for_people(done):
    wrong = {}
    for path, case in done.wanted.items():
        reason = done.reasons.get(path, "")
        plain = 4 < len(reason) < 200 and not PROGRAMMERS.search(reason)
        if not plain or not re.search(case.reason, reason):
            wrong[f"{case.kind}: {case.name}"] = reason
    assert not wrong, "\n".join(f"{k}: {v}" for k, v in wrong.items())


def test_every_good_file_is_in_the_shards_once(done):
    assert len(done.good) > 40
    assert sorted(done.voices) == sorted(done.good)


def test_memory_stays_bounded(done):
    assert done.peak_mb < 400


def test_the_summary_counts_them(done):
    info = json.loads((done.folder / schema.INFO_FILE).read_text())
    assert info["counts"]["rejected"] == len(done.wanted)
    assert f"{len(done.wanted)} unusable" in done.said
