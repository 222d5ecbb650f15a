"""Columns compared with lists of Python strings."""

import collections

import numpy as np
import pytest

from pipeline import columns

WORDS = ["b", "", "ä", "b", "a/1", "b", "\U0001f600", "a", "ä"]


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", 4)


def test_texts_are_a_sequence():
    texts = columns.Texts.of(iter(WORDS))
    assert list(texts) == texts[:] == WORDS
    assert texts[-3] == WORDS[-3]
    assert texts.at(np.array([8, 0, 8])) == ["ä", "b", "ä"]
    assert list(texts.in_order()) == sorted(WORDS)
    assert texts.in_order().order() is None
    assert list(texts.after("x/")) == [f"x/{word}" for word in WORDS]
    assert list(texts.replace(np.array([1, 7]), ["one", "seven"])) == [
        {1: "one", 7: "seven"}.get(row, word) for row, word in enumerate(WORDS)
    ]
    assert list(columns.Texts.of([])) == []
    assert columns.Texts.of([]).order() is None


def test_codes_have_sorted_names_that_are_in_use():
    parts = [columns.Codes.of(WORDS[:4]), columns.Codes.of(WORDS[4:])]
    codes = columns.Codes.concatenate(parts)
    assert codes.names == sorted(set(WORDS))
    assert codes.at(np.arange(len(WORDS))) == WORDS
    assert codes.empty.tolist() == [not word for word in WORDS]
    some = codes.take(np.array([8, 0, 4]))
    assert (some.names, some.at(np.arange(3))) == (["a/1", "b", "ä"], ["ä", "b", "a/1"])
    assert not some.empty.any()


def test_many_different_names_have_wider_codes():
    names = [f"{number:04d}" for number in range(300)]
    assert columns.Codes.of(names[::-1]).at(np.arange(300)) == names[::-1]


@pytest.mark.parametrize("clash", [False, True])
def test_rows_of_equal_names_are_found_whatever_their_hashes(monkeypatch, clash):
    if clash:
        monkeypatch.setattr(columns, "hash", lambda text: len(text) // 2, raising=False)
    names = np.array(WORDS)
    found = columns.repeats(len(names), lambda rows: names[rows].tolist())
    first = {word: WORDS.index(word) for word in WORDS}
    expected = {row: first[word] for row, word in enumerate(WORDS) if first[word] != row}
    assert list(found.items()) == sorted(expected.items())
    last = columns.repeats(len(names), lambda rows: names[rows].tolist(), lambda rows: -rows)
    counts = collections.Counter(WORDS)
    assert len(last) == sum(counts.values()) - len(counts)
    assert all(WORDS[row] == WORDS[other] and row < other for row, other in last.items())
