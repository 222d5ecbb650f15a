"""Summaries against numbers worked out by hand and against the normal distribution."""

import numpy as np
import pytest

from export.evaluation import aggregates, tables


def row(mixture, system, si_sdr, before=0.0, pair="mixed", **more):
    improvement = None if si_sdr is None else si_sdr - before
    return {
        "mixture_id": mixture,
        "system": system,
        "pair": pair,
        "si_sdr": si_sdr,
        "si_sdr_improvement": improvement,
        **more,
    }


def test_interval_is_the_normal_one_where_values_are_normal():
    values = np.random.default_rng(0).normal(3, 2, 400)
    low, high = aggregates.interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - half, abs=0.04)
    assert high == pytest.approx(values.mean() + half, abs=0.04)
    assert aggregates.interval(values) == (low, high)
    assert aggregates.interval(values, seed=1) != (low, high)


def test_interval_of_one_value_and_of_equal_values():
    assert np.isnan(aggregates.interval(np.array([1.0]))).all()
    assert aggregates.interval(np.full(5, 2.5)) == (2.5, 2.5)


def test_summary_by_pair():
    rows = [
        row("a", "m", 1.0, pair="female-female"),
        row("b", "m", -2.0, pair="male-male"),
        row("c", "m", 4.0, pair="male-male"),
        row("d", "m", None, pair="male-male"),
    ]
    table = aggregates.summarise(rows, ["si_sdr"])["m"]["si_sdr_improvement"]
    assert list(table) == ["female-female", "male-male", "all"]
    assert table["all"]["mean"] == 1.0
    assert table["all"]["median"] == 1.0
    assert table["all"]["count"] == 4
    assert table["all"]["missing"] == 1
    assert table["all"]["worse"] == pytest.approx(1 / 3, abs=1e-6)
    assert table["male-male"]["mean"] == 1.0
    assert table["female-female"]["low"] is None


def test_nothing_can_be_computed():
    described = aggregates.summarise([row("a", "m", None)], ["si_sdr"])["m"]["si_sdr"]["all"]
    assert described == {
        "mean": None, "low": None, "high": None, "median": None, "count": 1, "missing": 1,
    }  # fmt: skip


def test_differences_are_paired():
    """A constant gain over mixtures that differ much has an interval of no width."""
    values = np.random.default_rng(0).normal(0, 20, 30).round(3)
    rows = [row(str(i), "first", v) for i, v in enumerate(values)]
    rows += [row(str(i), "second", v + 0.5) for i, v in enumerate(values)]
    rows[3]["si_sdr"] = None
    (found,) = aggregates.differences(rows, ["first", "second"], ["si_sdr"])
    assert (found["system"], found["baseline"], found["count"]) == ("second", "first", 29)
    assert found["mean"] == pytest.approx(0.5, abs=1e-6)
    assert found["low"] == pytest.approx(0.5, abs=1e-6)
    assert found["high"] == pytest.approx(0.5, abs=1e-6)
    assert found["better"] == 1.0


def test_every_pair_of_three_systems():
    rows = [row("a", system, 1.0) for system in "xyz"] + [row("b", system, 2.0) for system in "xyz"]
    found = aggregates.differences(rows, ["x", "y", "z"], ["si_sdr"])
    assert [(d["baseline"], d["system"]) for d in found] == [("x", "y"), ("x", "z"), ("y", "z")]


def test_table_is_markdown_that_lines_up():
    rows = [row("a", "m", 1.0), row("b", "m", -2.26), row("a", "long name", 3.0)]
    text = tables.summary_table(aggregates.summarise(rows, ["si_sdr"]), ["si_sdr"]).markdown()
    header, rule, first, second = text.splitlines()
    assert len({len(line) for line in (header, rule, first, second)}) == 1
    assert [cell.strip() for cell in header.strip("|").split("|")] == [
        "system", "mixed", "all [95 %]", "median", "got worse",
    ]  # fmt: skip
    assert rule.count(":") == 5
    assert "−0.6" in first
    assert "50 %" in first


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (-0.04, "0.0"), (-1.25, "−1.2"), (3, "3.0")]
)
def test_numbers_for_people(value, text):
    assert tables.number(value, 1) == text
