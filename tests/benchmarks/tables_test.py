from benchmarks import measure, tables

RESULT = {
    "date": "2026-11-22",
    "command": "python -m benchmarks.step --save",
    "machine": {"processor": "P", "cores": 2, "load_before": [0.1, 0, 0]},
    "unit": {"a lstm": "s", "b lstm": "MB"},
    "medians": {"a lstm": 0.25, "b lstm": 12.0},
    "runs": {"a lstm": [0.2, 0.25, 0.5], "b lstm": [12.0]},
    "ratios": {"a / b": 2.0},
}
PAGE = "x\n<!-- step: a -->\nold\n<!-- end of step: a -->\ny\n<!-- none -->\n<!-- end of none -->\n"


def test_table_takes_the_rows_that_its_place_names():
    text = tables.fill(PAGE, {"step": RESULT})
    assert "| a lstm | 0.25 | s | 0.2 to 0.5 |" in text
    assert "| a / b | 2 |" in text
    assert "b lstm" not in text
    assert "old" not in text
    assert "busy" not in text
    assert "<!-- none -->\nNot measured yet.\n<!-- end of none -->" in text


def test_filling_again_changes_nothing():
    once = tables.fill(PAGE, {"step": RESULT})
    assert tables.fill(once, {"step": RESULT}) == once


def test_busy_machine_is_said():
    busy = {**RESULT, "machine": {**RESULT["machine"], "load_before": [2.0, 0, 0]}}
    assert "machine was busy" in tables.markdown(busy)


def test_ratios_that_moved_by_more_than_a_fifth_are_named():
    lines = measure.moved({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.1, "b": 0.7, "d": 5.0})
    assert lines == ["moved: b was 1, is 0.7"]
