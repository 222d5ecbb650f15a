"""What a benchmark says of the machine and of earlier results."""

import json

from benchmarks import measure


def _report(name, figures, save):
    ratios = {"a / b": ("a", "b")}
    measure.report(name, "s", figures, ratios, {}, save)


def test_another_machine_is_named_and_only_ratios_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    _report("x", {"a": [1.0, 3.0, 2.0], "b": [4.0]}, save=True)
    stored = json.loads((tmp_path / "x.json").read_text())
    assert stored["medians"] == {"a": 2.0, "b": 4.0}
    capsys.readouterr()

    # Twice as fast in everything: nothing has moved.
    _report("x", {"a": [1.0], "b": [2.0]}, save=False)
    printed = capsys.readouterr().out
    assert "moved" not in printed
    assert "only ratios" not in printed

    stored["machine"]["processor"] = "Another Processor 9000"
    (tmp_path / "x.json").write_text(json.dumps(stored))
    _report("x", {"a": [1.0], "b": [1.0]}, save=False)
    printed = capsys.readouterr().out
    assert "measured on Another Processor 9000" in printed
    assert "only ratios are compared" in printed
    assert "moved: a / b was 0.5, is 1" in printed
