"""The command and the function: files and folders in, voices out, one line for what goes wrong."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import tqdm

from export import separate
from export.conversations import conversation, file_separation
from export.separation import jobs, pictures, plots
from pipeline import errors
from pipeline.audio import decoding

# What the model gives, and nothing else.
PLAIN = {"band": "model", "gate": False}


def write(path, samples, rate=8000, subtype="PCM_16"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def separate_one(bands, tmp_path):
    """Separates one file into `out`, and reads the voices: `[source, sample, channel]`, rate."""

    def run(path, plot=False, label="", **settings):
        done = file_separation.separate_file(
            jobs.Job(path, tmp_path / "out" / path.stem),
            bands,
            conversation.Options(**PLAIN | settings),
            plot=plot,
            label=label,
        )
        voices = [soundfile.read(f, always_2d=True) for f in done.files if f.suffix == ".wav"]
        return done, np.stack([v for v, _ in voices]), voices[0][1]

    return run


class TestFile:
    @pytest.mark.parametrize("subtype", ["PCM_16", "PCM_U8", "ULAW", "PCM_24", "FLOAT"])
    def test_bits(self, separate_one, tmp_path, speechlike, subtype):
        path = write(tmp_path / "mix.wav", speechlike(9000, level=0.1), subtype=subtype)
        mixture, _ = soundfile.read(path, always_2d=True)
        done, voices, rate = separate_one(path)
        fine = subtype in ("PCM_24", "FLOAT")
        assert {soundfile.info(f).subtype for f in done.files} == {"FLOAT" if fine else "PCM_16"}
        assert rate == 8000
        # Each of two voices is rounded by itself.
        np.testing.assert_allclose(voices.sum(0), mixture, atol=1e-6 if fine else 1.01 / 32768)

    def test_beyond_full_scale_is_kept_in_float(self, separate_one, tmp_path):
        """A clipped mixture whose parts are louder than full scale are."""
        time = np.arange(8000) / 8000
        loud = np.clip(3 * np.sin(2 * np.pi * 300 * time), -1, 32767 / 32768)
        done, voices, _ = separate_one(write(tmp_path / "clipped.wav", loud))
        assert np.abs(voices).max() > 1
        assert {soundfile.info(f).subtype for f in done.files} == {"FLOAT"}
        mixture, _ = soundfile.read(tmp_path / "clipped.wav", always_2d=True)
        np.testing.assert_allclose(voices.sum(0), mixture, atol=1e-6)

    @pytest.mark.parametrize(
        ("name", "rate", "channels"),
        [("a.wav", 48000, 2), ("b.flac", 44100, 1), ("c.ogg", 16000, 1), ("d.aiff", 11025, 3)],
    )
    def test_formats_rates_channels(self, separate_one, tmp_path, name, rate, channels):
        samples = 0.1 * np.random.default_rng(0).standard_normal((12345, channels))
        soundfile.write(tmp_path / name, samples, rate)
        mixture, _ = soundfile.read(tmp_path / name, always_2d=True, dtype="float32")
        done, voices, found_rate = separate_one(tmp_path / name)
        assert found_rate == rate
        assert voices.shape == (2, 12345, channels)
        assert done.seconds == pytest.approx(12345 / rate)
        heard = decoding.resample(decoding.resample(mixture, rate, 8000), 8000, rate)
        middle = slice(600, 12345 - 600)
        np.testing.assert_allclose(voices.sum(0)[middle], heard[middle], atol=1e-4)

    def test_sphere(self, separate_one, tmp_path, speechlike):
        soundfile.write(tmp_path / "x.sph", speechlike(5000), 8000, format="NIST")
        assert separate_one(tmp_path / "x.sph")[1].shape == (2, 5000, 1)

    @pytest.mark.parametrize("length", [1, 800])
    def test_short(self, separate_one, tmp_path, length):
        path = write(tmp_path / "short.wav", np.full(length, 0.25), 44100)
        assert separate_one(path)[1].shape == (2, length, 1)

    @pytest.mark.parametrize("known", [True, False])
    def test_progress_on_a_terminal(self, separate_one, tmp_path, speechlike, monkeypatch, known):
        """Also of a FLAC that was written into a pipe: it does not say how long it is."""
        path = tmp_path / "mix.flac"
        soundfile.write(path, speechlike(40000), 8000)
        if not known:
            data = bytearray(path.read_bytes())
            data[21] &= 0xF0  # 36 bits of the stream's first block.
            data[22:26] = bytes(4)
            path.write_bytes(data)
        bar, shown = tqdm.tqdm, io.StringIO()
        monkeypatch.setattr(
            tqdm, "tqdm", lambda **settings: bar(**{**settings, "disable": False, "file": shown})
        )
        _, voices, _ = separate_one(path, label="mix.flac")
        assert voices.shape == (2, 40000, 1)
        assert "mix.flac" in shown.getvalue()
        assert ("/5 s of audio" in shown.getvalue()) == known
        assert "0 s of audio" in shown.getvalue().replace("0/5", "0")

    def test_silence_is_said(self, separate_one, tmp_path):
        done, voices, _ = separate_one(write(tmp_path / "none.wav", np.zeros(4000)))
        assert not voices.any()
        assert "silent" in done.note

    def test_in_pieces_as_from_python(self, separate_one, bands, tmp_path, speechlike):
        samples = np.stack([speechlike(90000, 1), speechlike(90000, 2)], axis=1)
        path = write(tmp_path / "long.wav", samples, 22050, "FLOAT")
        settings = {"chunk_seconds": 2.0, "overlap_seconds": 0.5}
        _, voices, _ = separate_one(path, **settings)
        expected = separate.separate(samples, 22050, bands, **settings, **PLAIN)
        np.testing.assert_allclose(voices, expected, atol=1e-5)

    def test_picture(self, separate_one, tmp_path, speechlike):
        from matplotlib import image

        path = write(tmp_path / "$m_i^x$.wav", speechlike(24000 * 8, level=0.1))
        done, _, _ = separate_one(path, plot=True, chunk_seconds=4, overlap_seconds=1)
        picture = image.imread(done.files[-1])
        assert picture.shape[0] >= 800
        assert picture.shape[1] >= 1200
        # Colours of the two voices are on it.
        for colour in ("#0072b2", "#d55e00"):
            wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
            assert (np.abs(picture[..., :3] - wanted).max(-1) < 0.01).sum() > 100

    def test_a_picture_of_a_name_that_is_not_utf_8(self, tmp_path, speechlike):
        voices = np.stack([speechlike(9000), speechlike(9000, 2)])
        path = tmp_path / os.fsdecode(b"caf\xe9_voices.png")
        plots.draw_separation(path, voices.sum(axis=0), voices, 8000, path.name)
        assert path.read_bytes().startswith(b"\x89PNG")

    def test_shares_are_those_of_the_bands(self, bands, speechlike):
        masks = pictures.shares(bands.separate(speechlike(8000)[np.newaxis])[0])
        assert masks.shape == (2, 126, 129)
        np.testing.assert_allclose(masks.sum(axis=0), 1, atol=1e-5)
        assert masks[0, :, 2:30].mean() > 0.9
        assert masks[1, :, 36:].mean() > 0.9

    def test_a_folder_in_the_way_leaves_all_as_it_was(self, separate_one, tmp_path, speechlike):
        path = write(tmp_path / "mix.wav", speechlike(900))
        write(tmp_path / "out" / "mix_voice1.wav", np.zeros(9))
        (tmp_path / "out" / "mix_voice2.wav").mkdir()
        with pytest.raises(errors.UserError, match=r"mix_voice2\.wav is a folder"):
            separate_one(path)
        assert soundfile.info(tmp_path / "out" / "mix_voice1.wav").frames == 9
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "mix_voice1.wav", "mix_voice2.wav",
        ]  # fmt: skip

    def test_what_a_killed_run_left_behind_is_removed(self, separate_one, tmp_path, speechlike):
        """Not while its process lives, though, and not what may be somebody else's."""
        path = write(tmp_path / "mix.wav", speechlike(900))
        (tmp_path / "out" / ".voices-mine").mkdir(parents=True)
        program = (
            "import pathlib, sys, time\n"
            "from export.conversations import file_separation\n"
            "with file_separation._unfinished(pathlib.Path(sys.argv[1])) as folder:\n"
            "    (folder / 'mix_voice1.wav').write_bytes(bytes(9))\n"
            "    print(folder, flush=True)\n"
            "    time.sleep(300)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "out"], stdout=subprocess.PIPE, text=True
        ) as process:
            folder = process.stdout.readline().strip()
            os.utime(folder, (0, 0))
            separate_one(path)
            assert os.listdir(folder)
            process.kill()
        assert os.listdir(folder)
        os.utime(folder, (0, 0))
        separate_one(path)
        assert sorted(os.listdir(tmp_path / "out")) == [
            ".voices-mine", "mix_voice1.wav", "mix_voice2.wav",
        ]  # fmt: skip

    @pytest.mark.parametrize("damage", ["cut", "NaN", "empty", "text", "no bytes"])
    def test_bad_recordings_leave_nothing(self, separate_one, tmp_path, speechlike, damage):
        path = write(tmp_path / "bad.wav", speechlike(60000), subtype="FLOAT")
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:150000])
        elif damage == "NaN":
            samples = speechlike(60000)
            samples[50000] = np.nan
            write(path, samples, subtype="FLOAT")
        elif damage == "empty":
            write(path, np.zeros(0))
        else:
            path.write_bytes(b"dear diary, today" if damage == "text" else b"")
        with pytest.raises(errors.UserError) as caught:
            separate_one(path, chunk_seconds=2, overlap_seconds=0.5)
        assert "bad.wav" in str(caught.value)
        assert names(tmp_path) == ["bad.wav"]


class TestFunction:
    def test_one_channel(self, bands, speechlike):
        samples = speechlike(5000)
        voices = separate.separate(samples, 8000, bands, **PLAIN)
        assert voices.dtype == np.float32
        np.testing.assert_array_equal(voices, bands.separate(samples[np.newaxis])[0])

    def test_integers_have_their_full_scale(self, bands, speechlike):
        samples = np.round(speechlike(5000, level=0.1) * 32768).astype(np.int16)
        voices = separate.separate(samples, 8000, bands)
        expected = separate.separate(samples / 32768, 8000, bands)
        np.testing.assert_allclose(voices, expected, atol=1e-7)

    def test_nothing(self, bands):
        assert separate.separate(np.zeros(0), 16000, bands).shape == (2, 0)
        assert separate.separate(np.zeros((0, 2)), 8000, bands).shape == (2, 0, 2)

    def test_a_path_is_a_model(self, saved, speechlike):
        samples = speechlike(4000)
        voices = separate.separate(samples, 8000, saved.saved_model, **PLAIN)
        np.testing.assert_allclose(voices, saved.separator(samples[None])[0], atol=1e-5)

    def test_in_pieces_as_in_one(self, saved, speechlike):
        """The network's memory and the level of a piece are its own: close, not the same."""
        samples = speechlike(30 * 8000)
        whole = separate.separate(samples, 8000, saved.saved_model, **PLAIN)
        parts = separate.separate(
            samples, 8000, saved.saved_model, chunk_seconds=8, overlap_seconds=2, **PLAIN
        )
        for one, other in zip(whole, parts, strict=True):
            error = np.square(one - other).sum() / np.square(one).sum()
            assert 10 * np.log10(error) < -30

    def test_short_pieces_overlap_by_half(self, bands, speechlike):
        samples = speechlike(9 * 8000)
        voices = separate.separate(samples, 8000, bands, chunk_seconds=3, **PLAIN)
        expected = separate.separate(
            samples, 8000, bands, chunk_seconds=3, overlap_seconds=1.5, **PLAIN
        )
        np.testing.assert_array_equal(voices, expected)

    @pytest.mark.parametrize("samples", [np.zeros((2, 3, 4)), np.zeros(9, np.uint8), np.float32(1)])
    def test_other_arrays_are_refused(self, bands, samples):
        with pytest.raises(ValueError, match="samples are"):
            separate.separate(samples, 8000, bands)

    def test_bad_values_are_refused(self, bands):
        with pytest.raises(errors.UserError, match="NaN"):
            separate.separate(np.array([0.0, np.inf]), 8000, bands)
        with pytest.raises(errors.UserError, match="samples a second"):
            separate.separate(np.zeros(9), 0, bands)
        with pytest.raises(errors.UserError, match="48000 channels"):
            separate.separate(np.zeros((2, 48000)), 8000, bands)


class TestCommand:
    def test_files_and_folders(self, saved, run_command, tmp_path, speechlike):
        write(tmp_path / "in" / "a.wav", speechlike(9000, 1))
        write(tmp_path / "in" / "deep" / "b.flac", speechlike(9000, 2), 16000)
        write(tmp_path / "in" / "bad.wav", speechlike(9000)).write_bytes(b"RIFF....WAVEfmt")
        write(tmp_path / "silent.wav", np.zeros(900))
        done = run_command(
            "export.separate", tmp_path / "in", tmp_path / "silent.wav", tmp_path / "absent.wav",
            f"--model={saved.saved_model}", f"--output_dir={tmp_path}/out", "--nogate",
            "--band=model",
        )  # fmt: skip
        assert done.returncode == 1
        assert names(tmp_path / "out") == [
            "a_voice1.wav", "a_voice2.wav", "deep/b_voice1.wav", "deep/b_voice2.wav",
            "silent_voice1.wav", "silent_voice2.wav",
        ]  # fmt: skip
        lines = done.stderr.splitlines()
        assert [line.split(":")[0] for line in lines[:3]] == ["error", "error", "note"]
        assert "absent.wav" in lines[0]
        assert "bad.wav" in lines[1]
        assert "silent.wav" in lines[2]
        assert lines[3].startswith("2 not separated")
        assert "3 separated" in done.stdout
        found, _ = soundfile.read(tmp_path / "out" / "a_voice1.wav", dtype="float32")
        mixture, _ = soundfile.read(tmp_path / "in" / "a.wav", dtype="float32")
        expected = np.asarray(saved.separator(mixture[None]))[0, 0]
        np.testing.assert_allclose(found, expected, atol=0.6 / 32768)

    @pytest.mark.parametrize("verbose", [False, True])
    def test_a_fault_does_not_stop_the_others(self, saved, tmp_path, speechlike, verbose):
        for name in ("a.wav", "b.wav"):
            write(tmp_path / name, speechlike(9000))
        program = (
            "import runpy, sys\n"
            "from export.conversations import file_separation\n"
            "separate_file = file_separation.separate_file\n"
            "def fails_once(job, *arguments, **options):\n"
            "    if job.source.name == 'a.wav':\n"
            "        raise ValueError('no such shape')\n"
            "    return separate_file(job, *arguments, **options)\n"
            "file_separation.separate_file = fails_once\n"
            "runpy.run_module('export.separate', run_name='__main__', alter_sys=True)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, tmp_path / "a.wav", tmp_path / "b.wav",
             f"--model={saved.saved_model}", f"--output_dir={tmp_path / 'out'}",
             f"--verbosity={int(verbose)}"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 1
        assert names(tmp_path / "out") == ["b_voice1.wav", "b_voice2.wav"]
        assert "1 separated" in done.stdout
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(told) == 1
        assert f"{tmp_path / 'a.wav'}: " in told[0]
        assert "ValueError: no such shape" in told[0]
        assert ("in fails_once" in done.stderr) == verbose

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["--model=m"], 2, "at least one recording"),
            (["absent.wav", "--model=m"], 1, "no such file or folder: absent.wav"),
            (["a.wav", "--model=m"], 1, "no such model: m"),
            (["a.wav", "--model=m", "--chunk_seconds=1"], 2, "chunk_seconds"),
            (
                ["a.wav", "--model=m", "--overlap_seconds=40"],
                2,
                "--overlap_seconds=40 is more than half of --chunk_seconds=60",
            ),
            (["a.wav", "--model=m", "--chunk_seconds=2"], 1, "no such model: m"),
            (
                ["a.wav", "--model=m", "--chunk_seconds=inf"],
                2,
                "chunk_seconds=inf is not a finite number",
            ),
            (["a.wav", "--model=m", "--modle=n"], 2, "modle"),
            (["a.wav", "--model=m", "--output_dir=/dev/null/x"], 1, "/dev/null is no folder"),
        ],
    )
    def test_mistakes(self, run_command, tmp_path, arguments, code, words):
        write(tmp_path / "a.wav", np.zeros(900))
        arguments = [str(tmp_path / a) if a == "a.wav" else a for a in arguments]
        done = run_command("export.separate", f"--output_dir={tmp_path}/out", *arguments)
        assert done.returncode == code
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_a_full_disk(self, saved, tmp_path, speechlike):
        """A limit on the size of files stands in for it; these flags need no temporary file."""
        write(tmp_path / "a.wav", speechlike(200000))
        program = (
            "import resource, runpy, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000))\n"
            f"sys.argv = ['x', {str(tmp_path / 'a.wav')!r}, '--model={saved.saved_model}',"
            f" '--output_dir={tmp_path}/out', '--band=model', '--nogate']\n"
            "runpy.run_module('export.separate', run_name='__main__', alter_sys=True)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(
            f"error: {tmp_path}/out/a_voice1.wav: cannot be written whole; "
        )
        assert "free some space" in done.stderr.lower()
        assert names(tmp_path) == ["a.wav"]
