"""Facts survive a killed job, until they are no longer valid."""

import dataclasses
import os

import pytest
import soundfile

from pipeline import inspection
from pipeline.corpora import corpus, utterance_table
from pipeline.dataset import inspection_cache

RATE = 8000


@pytest.fixture
def table(tmp_path, voice):
    """Three utterances with recordings, and one without."""
    table = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, voice(number, 1.5), 16000)
        table.append(corpus.Utterance(f"u{number}", str(path), f"s{number}"))
    return [*table, corpus.Utterance("u3", str(tmp_path / "absent.wav"), "s3")]


@pytest.fixture
def work(tmp_path, table):
    """A work folder in two parts, the last of which was repeated by a runner."""
    folder = tmp_path / "_work"
    folder.mkdir()
    (folder / "utterances.jsonl").write_text("of the job before")
    found = [
        inspection_cache.Finding.of(inspection.inspect(u, RATE), inspection_cache.stamp(u.path))
        for u in table
    ]
    for part in (found[:2], found[2:], found[2:]):
        inspection_cache.write(str(folder), RATE, part)
    return folder


def read(work, utterances):
    return inspection_cache.read(str(work), utterance_table.UtteranceTable.of(utterances))


def keep(work, utterances, rate):
    """Returns the ids of the utterances that need not be inspected again."""
    known = inspection_cache.keep(work, utterance_table.UtteranceTable.of(utterances), rate)
    return {utterance.id for utterance, mine in zip(utterances, known, strict=True) if mine}


def test_what_was_written_is_read_once_and_in_order(work, table):
    facts, rejections = read(work, table)
    assert facts == [inspection.inspect(u, RATE) for u in table[:3]]
    assert rejections == [corpus.Rejection(table[3].path, "no such file")]


def test_facts_are_kept_and_all_else_goes(work, table):
    before, _ = read(work, table)
    (work / "facts-cut.jsonl").write_text('{"sample_rate": 80')
    (work / "utterances").mkdir()
    assert keep(str(work), table, RATE) == {"u0", "u1", "u2"}
    # A recording that could not be read is inspected again.
    assert read(work, table) == (before, [])
    assert len(list(work.iterdir())) == 1
    # Once more, as after a second kill.
    assert keep(str(work), table, RATE) == {"u0", "u1", "u2"}


def test_many_facts_are_kept_in_several_files(work, table, monkeypatch):
    before, _ = read(work, table)
    monkeypatch.setattr(inspection_cache, "_PER_FILE", 2)
    assert keep(str(work), table, RATE) == {"u0", "u1", "u2"}
    assert len(list(work.iterdir())) == 2
    assert read(work, table) == (before, [])


def test_what_has_changed_is_looked_at_again(work, table, voice):
    soundfile.write(table[0].path, voice(9, 1.5), 16000)
    os.utime(table[1].path, ns=(0, inspection_cache.stamp(table[1].path)[1] + 1))
    assert keep(str(work), table, RATE) == {"u2"}
    assert keep(str(work), table, 2 * RATE) == set()
    assert list(work.iterdir()) == []


def test_other_versions_look_at_everything_again(work, table, monkeypatch):
    monkeypatch.setattr(inspection_cache.version, "versions", lambda: {"soxr": "other"})
    assert keep(str(work), table, RATE) == set()


def test_what_the_corpus_says_now_counts(work, table):
    table = [dataclasses.replace(u, id=f"new/{u.id}", speaker="s9", sex="f") for u in table[:2]]
    assert keep(str(work), table, RATE) == {"new/u0", "new/u1"}
    facts, _ = read(work, table)
    assert [fact.utterance for fact in facts] == table


def test_a_folder_that_is_not_there_is_made(tmp_path, table):
    assert keep(str(tmp_path / "new"), table, RATE) == set()
    assert (tmp_path / "new").is_dir()


def test_what_cannot_be_asked_has_no_stamp(tmp_path):
    assert inspection_cache.stamp(str(tmp_path / "absent")) is None
    assert inspection_cache.stamp("s3://bucket/a.wav") is None
