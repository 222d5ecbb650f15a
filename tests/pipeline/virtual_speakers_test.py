"""Virtual speakers: pitch and formants by librosa, and the copies that the command writes."""

import csv
import resource
import subprocess
import sys

import librosa
import numpy as np
import pytest
import soundfile

from pipeline import errors, virtual_speakers
from pipeline.corpora import corpus

pytest.importorskip("parselmouth")
RATE = 8000


def _vowel(pitch_hz, formants_hz, seconds=1.0):
    """Pulses through two resonances, float32 `[sample]`."""
    import scipy.signal

    pulses = np.zeros(round(seconds * RATE))
    pulses[:: round(RATE / pitch_hz)] = 1
    for hz in formants_hz:
        radius = np.exp(-np.pi * 80 / RATE)
        poles = [1, -2 * radius * np.cos(2 * np.pi * hz / RATE), radius**2]
        pulses = scipy.signal.lfilter([1], poles, pulses)
    return (0.3 * pulses / np.abs(pulses).max()).astype(np.float32)


def _pitch_hz(samples):
    return np.nanmedian(librosa.pyin(samples, fmin=70, fmax=500, sr=RATE)[0])


def _formants_hz(samples):
    """The two strongest resonances of a linear prediction of order 6."""
    roots = np.roots(librosa.lpc(samples[2000:6000].astype(np.float64), order=6))
    roots = roots[roots.imag > 0.01]
    strongest = roots[np.argsort(-np.abs(roots))[:2]]
    return np.sort(np.angle(strongest) * RATE / (2 * np.pi))


@pytest.mark.parametrize(("formants", "pitch"), [(1.12, 1.0), (0.9, 1.0), (1.0, 1.3), (1.1, 0.8)])
def test_pitch_and_formants_move_independently(formants, pitch):
    voice = _vowel(125, (700, 1900))
    made = virtual_speakers.change(voice, RATE, formants, pitch)
    assert made.shape == voice.shape
    assert _pitch_hz(made) == pytest.approx(pitch * _pitch_hz(voice), rel=0.03)
    np.testing.assert_allclose(_formants_hz(made), formants * _formants_hz(voice), rtol=0.05)
    assert np.std(made) == pytest.approx(np.std(voice), rel=0.02)


def test_what_has_no_pitch_stays_finite():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    made = virtual_speakers.change(noise, RATE, 1.1, 1.2, 0.9)
    assert np.isfinite(made).all()
    assert np.std(made) == pytest.approx(np.std(noise), rel=0.02)


def test_copies_of_a_speaker_differ_and_stay_the_same_person():
    drawn = [virtual_speakers.draw(name, copy, 0) for name in ("ANN", "BEN") for copy in (1, 2)]
    assert len({one["pitch"] for one in drawn}) == 4
    assert virtual_speakers.draw("ANN", 1, 0) == drawn[0]
    assert virtual_speakers.draw("ANN", 1, 1) != drawn[0]
    many = [virtual_speakers.draw("ANN", copy, 0) for copy in range(300)]
    formants, pitch = (np.array([one[name] for one in many]) for name in ("formants", "pitch"))
    assert 1 / 1.15 < formants.min() < 0.92 < 1.08 < formants.max() < 1.15
    assert 2 ** (-5 / 12) < pitch.min() < 0.8 < 1.25 < pitch.max() < 2 ** (5 / 12)
    assert 0.3 < np.corrcoef(formants, pitch)[0, 1] < 0.95


@pytest.fixture
def manifest(tmp_path):
    rows = [("path", "speaker", "split")]
    for speaker, split in (("ANN", "train"), ("BEN", ""), ("CAT", "test")):
        soundfile.write(tmp_path / f"{speaker}.wav", _vowel(150, (600, 1500)), RATE)
        rows.append((f"{speaker}.wav", speaker, split))
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    rows.append(("bad.wav", "ANN", "train"))
    with open(tmp_path / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return tmp_path / "manifest.csv"


def test_the_command_copies_speakers_of_train(run_command, manifest, tmp_path):
    arguments = ["pipeline.virtual_speakers", f"--manifest={manifest}", "--copies=2"]
    done = run_command(*arguments, f"--output_dir={tmp_path / 'one'}")
    assert done.returncode == 0, done.stderr
    assert "1 recordings are left out, such as" in done.stderr
    assert "bad.wav" in done.stderr
    table = corpus.read(manifests=[str(tmp_path / "one" / "manifest.csv")]).utterances
    assert {u.speaker for u in table} == {"ANN~1", "ANN~2", "BEN~1", "BEN~2"}
    assert {u.split for u in table} == {"train"}
    sounds = [soundfile.read(utterance.path) for utterance in table]
    for samples, rate in sounds:
        assert (len(samples), rate) == (RATE, RATE)
        assert np.std(samples) == pytest.approx(np.std(_vowel(150, (600, 1500))), rel=0.02)
    assert len({samples.tobytes() for samples, _ in sounds}) == 4
    again = run_command(*arguments, f"--output_dir={tmp_path / 'two'}")
    assert again.returncode == 0
    for utterance, (samples, _) in zip(table, sounds, strict=True):
        other, _ = soundfile.read(utterance.path.replace("/one/", "/two/"))
        np.testing.assert_array_equal(other, samples)


def test_a_full_disk_is_one_line(manifest, tmp_path):
    given = [f"--manifest={manifest}", f"--output_dir={tmp_path / 'copies'}", "--copies=1"]
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.virtual_speakers", *given],
        capture_output=True,
        text=True,
        # A limit on the size of files simulates the full disk.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000)),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'copies'}: File too large"
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_refusals_leave_everything_as_it_was(run_command, manifest, tmp_path):
    table = corpus.read(manifests=[str(manifest)])
    settings = {"copies": 1, "sample_rate": RATE, "seed": 0}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(errors.UserError, match="holds something else"):
        virtual_speakers.write(table, str(tmp_path / "."), **settings)
    assert sorted(tmp_path.iterdir()) == before
    assert virtual_speakers.write(table, str(tmp_path / "copies"), **settings) == 2
    with pytest.raises(errors.UserError, match="--overwrite replaces it"):
        virtual_speakers.write(table, str(tmp_path / "copies"), **settings)
    assert virtual_speakers.write(table, str(tmp_path / "copies"), overwrite=True, **settings) == 2
    done = run_command("pipeline.virtual_speakers", "--output_dir=x")
    assert done.returncode == 2
    assert "--input_dir or --manifest is needed" in done.stderr
