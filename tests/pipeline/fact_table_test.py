"""Facts in columns compared with the objects from which they were made."""

import numpy as np
import pytest

from pipeline import columns, fact_table, inspection
from pipeline.corpora import corpus


def make(number, speaker=None, sha=None, path=None, sex="f"):
    identity = f"s{number % 7}/{number:03d}ü"
    utterance = corpus.Utterance(
        identity, path or f"/data/{identity}.wav", speaker or f"s{number % 7}", sex, "train"
    )
    sha = sha or f"{number:064x}"
    notes = (f"note {number}",) if number % 9 == 5 else ()
    return inspection.Facts(
        utterance, 2**33 + number, 1 / (number + 3), -20.5, sha, 10, 16000, notes
    )


@pytest.fixture
def facts(monkeypatch):
    # More than one chunk, in an order different from that of the ids.
    monkeypatch.setattr(columns, "CHUNK", 8)
    return [
        make(number, sex="fm"[number % 2]) for number in np.random.default_rng(0).permutation(20)
    ]


def test_every_fact_comes_back_in_the_order_of_the_ids(facts):
    table = fact_table.FactTable.of(iter(facts))
    expected = sorted(facts, key=lambda fact: fact.utterance.id)
    assert len(table) == 20
    assert list(table) == table[:] == expected
    assert table == expected
    assert table[3] == table[-17] == expected[3]
    rows = np.array([4, 0, 4])
    assert table.facts(rows) == [expected[4], expected[0], expected[4]]
    assert table.paths(rows) == [expected[row].utterance.path for row in rows]
    assert table.checksums(rows) == [expected[row].sha256 for row in rows]
    assert fact_table.FactTable.of(table) is table
    assert table.noted() == [fact for fact in expected if fact.notes]
    assert fact_table.FactTable.of(fact for fact in facts if not fact.notes).noted() == []


def test_what_is_there_twice_counts_once():
    first, second = make(1), make(2)
    again = inspection.Facts(first.utterance, 5, 0.5, -1.0, "ab" * 32, 10, 8000)
    assert fact_table.FactTable.of([first, second, again]) == [again, second]


@pytest.mark.parametrize("path", ["a.wav", "/a.wav", "s3://bucket/x/a.wav", "/a/b/"])
def test_paths_of_all_kinds(path):
    assert fact_table.FactTable.of([make(0, path=path)])[0].utterance.path == path


def test_no_facts_at_all():
    table = fact_table.FactTable.of([])
    assert list(table) == []
    assert fact_table.reject_shared(table) == (table, [])


def test_a_file_of_two_speakers_is_rejected_for_both(facts):
    one = make(100, "anna", "ab" * 32)
    two = make(101, "bert", "ab" * 32)
    # A copy of a file of the same speaker is accepted.
    copies = [make(102, "carl", "cd" * 32), make(103, "carl", "cd" * 32)]
    table = fact_table.FactTable.of([*facts, one, two, *copies])
    kept, rejections = fact_table.reject_shared(table)
    assert kept == sorted([*facts, *copies], key=lambda fact: fact.utterance.id)
    assert rejections == [
        corpus.Rejection(
            one.utterance.path, f"the same file as {two.utterance.path}, which is bert's"
        ),
        corpus.Rejection(
            two.utterance.path, f"the same file as {one.utterance.path}, which is anna's"
        ),
    ]
