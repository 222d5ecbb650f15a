"""The sentences compared with their description in the standard."""

import re

from pipeline.corpora import harvard


def test_there_are_72_lists_of_ten_different_sentences():
    assert len(harvard.SENTENCES) == 72 * harvard.LIST_LENGTH
    assert len(set(harvard.SENTENCES)) == len(harvard.SENTENCES)
    assert harvard.SENTENCES[0] == "The birch canoe slid on the smooth planks."
    assert "The vamp of the shoe had a gold buckle." in harvard.SENTENCES


def test_each_is_one_plain_english_sentence_of_five_to_twelve_words():
    for sentence in harvard.SENTENCES:
        assert re.fullmatch(r"[A-Z][A-Za-z,;' -]*[.?!]", sentence), sentence
        assert 5 <= len(sentence.split()) <= 12, sentence
