"""Facts compared with soundfile, soxr and a formula; a reason for each kind of bad recording."""

import hashlib
import os

import numpy as np
import pytest
import soundfile
import soxr

from pipeline import errors, inspection
from pipeline.audio import decoding, limits
from pipeline.corpora import corpus
from pipeline.io import storage

RATE = 16000


def utterance(path):
    return corpus.Utterance("id", str(path), "speaker")


def noise(num_samples=RATE):
    return (np.random.default_rng(0).standard_normal(num_samples) * 0.05).astype(np.float32)


def write(tmp_path, samples, name="a.wav", **settings):
    path = tmp_path / name
    soundfile.write(path, samples, RATE, **settings)
    return path


def reason(path):
    found = inspection.inspect(utterance(path), 8000)
    assert isinstance(found, corpus.Rejection)
    assert found.path == str(path)
    return found.reason


def test_the_facts_of_a_tone(tmp_path):
    time = np.arange(2 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 500 * time)
    path = write(tmp_path, np.stack([tone, tone], axis=1), subtype="FLOAT")
    facts = inspection.inspect(utterance(path), 8000)
    assert facts.utterance == utterance(path)
    assert facts.num_samples == RATE
    assert facts.peak == pytest.approx(0.5, abs=0.01)
    assert facts.active_level_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.file_bytes == os.path.getsize(path)
    assert facts.file_rate == RATE


def test_pauses_do_not_lower_the_active_level(tmp_path):
    loud = noise(256 * 40)
    quiet = np.zeros(256 * 200, np.float32)
    with_pause = inspection.inspect(
        utterance(write(tmp_path, np.concatenate([loud, quiet]), "a.wav", subtype="FLOAT")), RATE
    )
    without = inspection.inspect(utterance(write(tmp_path, loud, "b.wav", subtype="FLOAT")), RATE)
    assert with_pause.active_level_db == pytest.approx(without.active_level_db, abs=1e-6)


@pytest.mark.recordings
def test_facts_of_real_recordings(recordings):
    timit = corpus.read_folder(str(recordings / "timit_sample")).utterances[::32]
    speech = corpus.read_manifest(str(recordings / "speech" / "manifest.csv")).utterances[::900]
    for item in (*timit, *speech):
        facts = inspection.inspect(item, 8000)
        samples, rate = soundfile.read(item.path, dtype="float32")
        samples = soxr.resample(samples, rate, 8000, quality="HQ")
        assert facts.num_samples == len(samples)
        assert facts.peak == pytest.approx(np.abs(samples).max(), abs=1e-6)
        # All frames within 40 dB of the loudest, one by one.
        frames = [samples[i : i + 256].astype(float) for i in range(0, len(samples), 256)]
        power = [np.mean(frame**2) for frame in frames]
        loud = [f for f, p in zip(frames, power, strict=True) if p >= max(power) * 1e-4]
        level = 10 * np.log10(np.mean(np.concatenate(loud) ** 2))
        assert facts.active_level_db == pytest.approx(level, abs=1e-6)


def test_silence_and_one_value(tmp_path):
    assert reason(write(tmp_path, np.zeros(RATE))) == "silent"
    assert reason(write(tmp_path, np.zeros(RATE), "a.flac")) == "silent"
    assert reason(write(tmp_path, np.full(RATE, 0.25))) == "the one value 0.25 throughout"
    assert reason(write(tmp_path, noise() * 1e-7, subtype="FLOAT")) == "silent"
    opposite = np.stack([noise(), -noise()], axis=1)
    assert reason(write(tmp_path, opposite, subtype="FLOAT")) == "silent"


def test_numbers_that_are_none(tmp_path):
    samples = noise()
    samples[100] = np.nan
    assert "NaN" in reason(write(tmp_path, samples, subtype="FLOAT"))
    assert "32-bit" in reason(write(tmp_path, noise() * 1e39, subtype="DOUBLE"))
    huge = noise().astype(np.float64) * 1e45
    assert "NaN or infinite" in reason(write(tmp_path, huge, subtype="DOUBLE"))


def test_files_that_hold_no_whole_recording(tmp_path):
    path = write(tmp_path, noise())
    whole = path.read_bytes()
    path.write_bytes(b"")
    assert "empty" in reason(path)
    path.write_bytes(whole[:-1000])
    assert "cut short" in reason(path)
    path.write_bytes(b"%PDF-1.4 this is no audio")
    assert "not audio" in reason(path)
    assert "empty" in reason(write(tmp_path, np.zeros(0)))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    assert reason(tmp_path / "absent.wav") == "no such file"
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    assert reason(tmp_path / "link.wav") == "a link to nowhere"
    (tmp_path / "folder.wav").mkdir()
    assert reason(tmp_path / "folder.wav") == "is a folder"


def test_the_name_is_not_believed(tmp_path):
    path = write(tmp_path, noise(), "a.flac")
    path.rename(tmp_path / "b.WAV")
    assert isinstance(inspection.inspect(utterance(tmp_path / "b.WAV"), 8000), inspection.Facts)


def test_one_sample_is_short_but_not_bad(tmp_path):
    # A single sample has one value throughout; two samples differ.
    facts = inspection.inspect(utterance(write(tmp_path, np.array([0.1, -0.2]))), RATE)
    assert facts.num_samples == 2


@pytest.mark.parametrize("cause", [storage.Cause.PASSING, storage.Cause.SETTING])
def test_a_recording_is_not_rejected_for_what_is_not_its_fault(tmp_path, monkeypatch, cause):
    path = write(tmp_path, noise())

    def fail(path):
        raise storage.ReadError(path, "cannot be read: Input/output error", cause)

    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(errors.UserError, match=r"a\.wav: cannot be read: Input/output"):
        inspection.inspect(utterance(path), RATE)


def test_a_decoder_that_is_missing_is_not_the_recordings_fault(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise limits.MissingDecoderError("PyAV is not installed: pip install av")

    monkeypatch.setattr(decoding, "decode", fail)
    with pytest.raises(errors.UserError, match=r"a\.wav: PyAV is not installed"):
        inspection.inspect(utterance(write(tmp_path, noise())), RATE)


def test_what_was_assumed_is_noted(tmp_path):
    path = write(tmp_path, noise())
    data = path.read_bytes()
    place = data.index(b"data") + 4
    path.write_bytes(data[:4] + bytes(4) + data[8:place] + bytes(4) + data[place + 4 :])
    facts = inspection.inspect(utterance(path), RATE)
    assert facts.num_samples == RATE
    assert ["leaves the length open" in note for note in facts.notes] == [True]


def test_speech_is_read_at_a_rate_or_the_file_is_named(tmp_path):
    samples = noise()
    path = write(tmp_path, samples)
    assert len(inspection.read_speech(str(path), RATE // 2)) == len(samples) // 2
    with pytest.raises(errors.UserError, match=rf"a\.wav has {RATE} Hz; 48000 are needed"):
        inspection.read_speech(str(path), RATE, least=48000)
    for name, content in (("text.wav", b"no audio at all"), ("gone.wav", None)):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(errors.UserError, match=name):
            inspection.read_speech(str(tmp_path / name), RATE)
