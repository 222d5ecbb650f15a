"""`export.separate --stream` as a person runs it, in pipes that open, close and break off."""

import fcntl
import functools
import io
import os
import resource
import signal
import subprocess
import sys
import termios
import time

import numpy as np
import pytest
import soundfile

from export import pretrained
from export.separation import loading, stdio, stream, wav_stream
from pipeline import errors, features

RATE = 8000


@pytest.fixture
def begin(saved):
    """Starts the command; returns the process, whose pipes hold bytes."""
    processes = []

    def start(*flags, model=saved.saved_model):
        command = [sys.executable, "-m", "export.separate", "--stream", f"--model={model}", *flags]
        processes.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"},
            )
        )  # fmt: skip
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read(file, num_bytes):
    data = b""
    while len(data) < num_bytes and (more := file.read1(num_bytes - len(data))):
        data += more
    return data


def test_voices_come_before_the_input_ends_and_an_interrupt_ends_it(begin, saved, speechlike):
    samples = speechlike(9000)
    process = begin("--stdin=f32le", "--stdout=f32le", "--gain_db=-6")
    process.stdin.write(samples.tobytes())
    process.stdin.flush()
    # Whole blocks of 128 samples (16 ms) less the delay; the input is open still.
    data = read(process.stdout, 8 * (9000 // 128 * 128 - 192))
    process.send_signal(signal.SIGINT)
    rest, notes = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in notes
    assert notes.startswith(b"lstm: 2 voices, 192 samples (24 ms) behind, in blocks of 128 (16 ms)")
    found = np.frombuffer(data + rest, "<f4").reshape(-1, 2).T
    expected = np.asarray(saved.separator(samples[np.newaxis], gain_db=-6.0))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_reader_that_goes_away_ends_it_without_a_word(begin, speechlike):
    process = begin("--stdin=s16le")
    samples = (speechlike(RATE) * 32767).astype("<i2").tobytes()
    process.stdin.write(samples)
    process.stdin.flush()
    assert len(read(process.stdout, 1000)) == 1000
    process.stdout.close()
    try:
        for _ in range(200):  # It has to notice at some time.
            process.stdin.write(samples)
            process.stdin.flush()
        process.stdin.close()
    except BrokenPipeError:
        pass
    assert process.wait(timeout=60) == 0
    assert process.stderr.read().count(b"\n") == 1


def test_files_of_voices_and_an_input_that_breaks_off(begin, tmp_path, speechlike):
    file = io.BytesIO()
    soundfile.write(file, speechlike(16000), 2 * RATE, format="WAV", subtype="PCM_16")
    process = begin(f"--output_dir={tmp_path / 'out'}")
    output, notes = process.communicate(file.getvalue()[:-1], timeout=60)
    assert process.returncode == 1
    names = [str(tmp_path / "out" / f"voice{i}.wav") for i in (1, 2)]
    assert output.decode().split() == names
    assert b"resampled from 16000 Hz to 8000 and back" in notes
    lines = notes.decode().splitlines()
    assert lines[-1] == "error: standard input ended in the middle of a sample: 1 of 2 bytes"
    voices = [soundfile.read(name) for name in names]
    assert [(len(samples), rate) for samples, rate in voices] == [(15999, 16000)] * 2
    assert sorted(os.listdir(tmp_path / "out")) == ["voice1.wav", "voice2.wav"]


def test_terminating_it_keeps_the_files_of_the_voices(begin, tmp_path, speechlike):
    samples = speechlike(9000)
    process = begin("--stdin=f32le", f"--output_dir={tmp_path / 'out'}")
    assert process.stderr.readline().startswith(b"lstm: 2 voices")
    process.stdin.write(samples.tobytes())
    process.stdin.flush()
    # Once the pipe is empty, the command has read everything.
    while int.from_bytes(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, notes = process.communicate(timeout=60)
    assert process.returncode == 143, notes
    files = [str(tmp_path / "out" / f"voice{i}.wav") for i in (1, 2)]
    assert output.decode().split() == files
    summed = sum(soundfile.read(file)[0] for file in files)
    np.testing.assert_allclose(summed, samples, atol=1e-5)


@pytest.fixture(scope="module")
def load():
    return functools.cache(loading.load)


class TestRun:
    """In this process, with other standard streams."""

    @pytest.fixture
    def run(self, saved, monkeypatch, load):
        monkeypatch.setattr(loading, "load", load)

        class Terminal:
            def isatty(self):
                return True

        def run_with(data=None, model=saved.saved_model, **settings):
            output = io.BytesIO()
            streams = Terminal(), Terminal()
            if data is not None:
                streams = io.TextIOWrapper(io.BytesIO(data)), io.TextIOWrapper(output)
            monkeypatch.setattr(sys, "stdin", streams[0])
            monkeypatch.setattr(sys, "stdout", streams[1])
            chosen = {
                "gain_db": 0.0, "kind": "f32le", "rate": None, "num_channels": 1,
                "block_seconds": 0.016, "band": "full", "output": "f32le", "output_dir": None,
                **settings,
            }  # fmt: skip
            code = stdio.run(str(model), **chosen)
            return code, np.frombuffer(output.getvalue(), "<f4").reshape(-1, 2).T

        return run_with

    def test_to_the_end(self, run, saved, speechlike, capsys):
        samples = speechlike(3001)
        code, found = run(samples.tobytes(), gain_db=-12.0)
        assert code == 0
        expected = np.asarray(saved.separator(samples[np.newaxis], gain_db=-12.0))[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert capsys.readouterr().err.count("\n") == 1

    def test_nothing_comes(self, run):
        code, found = run(b"")
        assert (code, found.shape) == (0, (2, 0))

    def test_a_sample_that_is_no_number_ends_the_input(self, run, saved, speechlike, capsys):
        samples = speechlike(3001)
        samples[2000] = np.nan
        code, found = run(samples.tobytes(), gain_db=-12.0)
        assert code == 1
        assert capsys.readouterr().err.splitlines()[-1] == (
            "error: standard input holds samples that are NaN or infinite"
        )
        expected = np.asarray(saved.separator(samples[np.newaxis, :2000], gain_db=-12.0))[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_a_full_disk_keeps_what_is_written(self, run, tmp_path, speechlike, capsys):
        """A limit on the size of files stands for it."""
        samples = speechlike(60000)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, limits[1]))
            code, _ = run(samples.tobytes(), output_dir=tmp_path / "out", block_seconds=0.1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert code == 1
        assert "voice1.wav: cannot be written whole; is the disk full?" in capsys.readouterr().err
        assert sorted(os.listdir(tmp_path / "out")) == ["voice1.wav", "voice2.wav"]
        voices = [soundfile.read(tmp_path / "out" / f"voice{i}.wav")[0] for i in (1, 2)]
        shortest = min(map(len, voices))
        assert 20000 < shortest < 150_000 / 4
        summed = voices[0][:shortest] + voices[1][:shortest]
        np.testing.assert_allclose(summed, samples[:shortest], atol=1e-5)

    def test_a_model_that_fails_keeps_what_is_written(self, run, tmp_path, speechlike, capsys):
        """The model gives numbers for ten of its blocks, and then no more."""
        samples = speechlike(6000)
        step, calls = loading.LoadedModel.stream, []

        def fails_later(model, *arguments):
            voices, state = step(model, *arguments)
            calls.append(voices)
            return (voices if len(calls) < 12 else voices * np.nan), state

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wav_stream, "_READ_BYTES", 4 * 128)
            patch.setattr(loading.LoadedModel, "stream", fails_later)
            code, _ = run(samples.tobytes(), output_dir=tmp_path / "out")
        assert code == 1
        assert "the model gives values that are no numbers" in capsys.readouterr().err
        assert len(calls) == 12
        voices = [soundfile.read(tmp_path / "out" / f"voice{i}.wav")[0] for i in (1, 2)]
        # The first call only builds the graph.
        length = 10 * 128 - 192
        assert [len(voice) for voice in voices] == [length] * 2
        np.testing.assert_allclose(voices[0] + voices[1], samples[:length], atol=1e-5)

    def test_a_level_far_from_the_trained_one_is_said(self, run, speechlike, capsys):
        samples = speechlike(RATE) * np.float32(0.01)
        level = features.active_level_db(samples)
        run(samples.tobytes())
        assert f"--gain_db={-26 - level:.0f} would fit" in capsys.readouterr().err

    def test_terminals_are_no_pipes(self, run):
        with pytest.raises(errors.UserError, match="standard input: arecord"):
            run()

    def test_a_model_that_hears_what_comes_later(self, run):
        with pytest.raises(errors.UserError, match=r"two-voices-8khz.*--model_arg=causal=true"):
            run(b"1234", model=pretrained.path())


class TestFlags:
    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--stream", "--plot"), "--plot is not for --stream"),
            (("--stream", "a.wav"), "--stream reads standard input, not a.wav"),
            (("a.wav", "--gain_db=3"), "--gain_db is for --stream"),
            (("--stream", "--stdout=wav", "--output_dir=x"), "two ways out"),
        ],
    )
    def test_ways_that_do_not_go_together(self, run_command, flags, message):
        done = run_command("export.separate", *flags, stdin="")
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_level_is_that_of_the_whole(speechlike):
    """To the tenth of a dB that its steps are, and in any blocks."""
    for seed, level in ((1, 0.3), (2, 1e-4)):
        samples = speechlike(256 * 400, seed, level)
        samples[: 256 * 150] *= 1e-3  # A pause, which does not count.
        meter = stdio.Level()
        for block in np.split(samples, [1, 1000, 1003, 70000]):
            meter.add(block)
        assert meter.active_db() == pytest.approx(features.active_level_db(samples), abs=0.1)
    assert stdio.Level().active_db() is None


def test_what_is_said_of_a_model(saved):
    follower = stream.Stream(saved.saved_model, gain_db=0, rate=44100, block_seconds=0.05)
    assert stdio.describe(follower) == (
        "lstm: 2 voices, 192 samples (24 ms) behind, in blocks of 384 (48 ms), "
        "resampled from 44100 Hz to 8000 and back"
    )


def test_a_constant_offset_is_found():
    samples = 0.05 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for constant, expected in ((0.4, pytest.approx(0.4, abs=0.01)), (0.0, None)):
        level = stdio.Level()
        for block in np.array_split(samples + np.float32(constant), 7):
            level.add(block)
        assert level.offset() == expected
    assert stdio.Level().offset() is None
