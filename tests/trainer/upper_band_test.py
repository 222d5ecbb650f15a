"""The recordings of trainer.upper_band are checked before anything is computed."""

import numpy as np
import soundfile


def test_unusable_recordings_are_refused(tmp_path, run_command):
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000)
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "x.wav", samples, 16000)
    command = ("trainer.upper_band", f"--recordings={tmp_path}", "--separator=none")
    alone = run_command(*command)
    assert alone.returncode == 1
    assert alone.stderr.endswith(f"error: {tmp_path} has fewer than two speakers\n")
    (tmp_path / "a" / "y.wav").write_bytes(b"no audio at all")
    damaged = run_command(*command)
    assert damaged.returncode == 1
    assert "y.wav: not audio" in damaged.stderr
