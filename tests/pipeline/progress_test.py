"""In a log a line says how far the work is."""

import time

from pipeline import progress


def test_lines_in_a_log(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.02)
    path = tmp_path / "done"
    with progress.Bar(str(path), 3, "write", "mixtures"):
        time.sleep(0.1)
        path.write_bytes(b"..")
        time.sleep(0.1)
        path.write_bytes(b".....")  # A runner has repeated a step.
        time.sleep(0.1)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "write: 0 of 3 mixtures"
    assert "write: 2 of 3 mixtures" in lines
    assert lines[-1] == "write: 3 of 3 mixtures"
