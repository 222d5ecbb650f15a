"""Utterances in columns compared with the objects from which they were made."""

import pickle

import numpy as np
import pytest

from pipeline import columns
from pipeline.corpora import utterance_table
from pipeline.corpora.utterance_table import Utterance


def make(number):
    path = ("{}.wav", "/{}.wav", "/a/b/{}.flac", "s3://bucket/x/{}.wav", "/a/{}/")[number % 5]
    return Utterance(
        f"ü/{number:03d}", path.format(number), f"s{number % 7}", "fm"[number % 2], "train"
    )


@pytest.fixture
def utterances(monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", 8)
    return [make(number) for number in range(20)]


def test_every_utterance_comes_back(utterances):
    table = utterance_table.UtteranceTable.of(iter(utterances))
    assert list(table) == table[:] == utterances
    assert table == utterances
    assert table != utterances[1:]
    assert table[-2] == utterances[-2]
    assert table[3:17:5] == utterances[3:17:5]
    assert utterance_table.UtteranceTable.of(table) is table
    assert pickle.loads(pickle.dumps(table)) == table


def test_some_rows_know_only_their_own_speakers(utterances):
    table = utterance_table.UtteranceTable.of(utterances)
    kept = np.array([u.speaker in ("s1", "s5") for u in utterances])
    assert table.where(kept) == [u for u in utterances if u.speaker in ("s1", "s5")]
    assert table.where(kept).speakers.names == ["s1", "s5"]
    assert table.where(~kept & kept) == []
    assert table.where(kept | ~kept) is table


@pytest.mark.parametrize("clash", [False, True])
def test_rows_are_found_by_path_whatever_their_hashes(utterances, monkeypatch, clash):
    if clash:
        for module in (columns, utterance_table):
            monkeypatch.setattr(module, "hash", lambda text: len(text) // 4, raising=False)
    find = utterance_table.Finder(utterance_table.UtteranceTable.of(utterances))
    rows = [7, 0, 19, 7]
    paths = [utterances[row].path for row in rows]
    assert find(["absent", *paths, "/a/b/nothing"]).tolist() == [-1, *rows, -1]
    assert find([]).tolist() == []
    assert utterance_table.Finder(utterance_table.UtteranceTable.of([]))(["a"]).tolist() == [-1]
