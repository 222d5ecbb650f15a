"""The list is read back, damaged, and checked against other recordings."""

import dataclasses
import unicodedata

import pytest

from pipeline import errors, inspection, plan
from pipeline.corpora import corpus, mixture_list


def fact(speaker, number, *, samples=20000, peak=0.1, level=-26.0):
    utterance = corpus.Utterance(f"{speaker}/{number}", f"/x/{speaker}/{number}.wav", speaker, "f")
    return inspection.Facts(utterance, samples, peak, level, "0" * 64, 40044, 16000)


def table(**fields):
    return [fact(f"s{s}", n, **fields) for s in range(5) for n in range(4)]


def make(facts, **settings):
    splits = {f.utterance.speaker: "train" for f in facts}
    return plan.make(facts, splits, plan.Settings(**settings))


def test_the_list_is_read_back_exactly():
    names = ['with, comma "and quotes"', "line\nbreak", "naïve Ünïcode", "plain"]
    facts = [fact(name, n, level=-20.0 - n) for name in names for n in range(3)]
    for num_sources in (2, 3):
        mixtures = make(facts, num_sources=num_sources)
        assert mixture_list.from_csv(mixture_list.to_csv(mixtures), "list") == mixtures


def test_a_list_that_a_spreadsheet_program_has_saved_is_read():
    mixtures = make(table())
    text = mixture_list.to_csv(mixtures)
    assert mixture_list.from_csv(text.replace(",", ";"), "list") == mixtures
    names = [unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD")]
    composed, decomposed = (text.replace("s3", name) for name in names)
    assert composed != decomposed
    found = mixture_list.from_csv(decomposed, "list")
    assert names[0] in {s for m in found for s in m.speakers}
    assert names[1] not in {s for m in found for s in m.speakers}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mixture_id,", "mixture,", "columns must be mixture_id,split"),
        ("s0/0-0,train", "s0/0-0,dev", "line 2: split 'dev'"),
        (",20000,", ",2e4,", "line 2: num_samples is '2e4'"),
        (",20000,", ",-5,", "line 2: num_samples is '-5'"),
        ("s0/1-0,", "s0/0-0,", "line 3: mixture s0/0-0 is there twice"),
        ("s0/0-0,train,", "s0/0-0,", "line 2: 8 cells, not 9"),
        ("s0/0-0,train", '"s0/0-0,train', "not CSV"),
    ],
)
def test_a_damaged_list_is_named_with_its_line(old, new, message):
    text = mixture_list.to_csv(make(table(), max_snr_db=0.0))
    with pytest.raises(errors.UserError, match=message):
        mixture_list.from_csv(text.replace(old, new, 1), "list.csv")


@pytest.mark.parametrize("gain", ["loud", "nan", "1.5", "1e3", ""])
def test_gains_have_two_decimals(gain):
    text = (
        f"{mixture_list.to_csv([]).strip()},utterance_1,speaker_1,gain_db_1,utterance_2,speaker_2,"
    )
    text += f"gain_db_2\na,train,9000,u,s,{gain},v,t,0.00\n"
    with pytest.raises(errors.UserError, match="line 2: gain"):
        mixture_list.from_csv(text, "list.csv")


def test_an_empty_list_is_refused():
    header = mixture_list.to_csv(make(table())).splitlines()[0]
    for text in ("", header + "\n"):
        with pytest.raises(errors.UserError, match=r"list\.csv: "):
            mixture_list.from_csv(text, "list.csv")


def test_a_list_must_fit_the_recordings():
    facts = table(peak=0.4)
    mixtures = make(facts, level="raw")
    mixture_list.check(mixtures, facts, "list.csv")
    used = mixtures[0].utterance_ids[1]
    with pytest.raises(errors.UserError, match=f"needs utterance {used}"):
        mixture_list.check(mixtures, [f for f in facts if f.utterance.id != used], "list.csv")
    with pytest.raises(errors.UserError, match="exceed full scale"):
        mixture_list.check(mixtures, table(peak=0.6), "list.csv")
    with pytest.raises(errors.UserError, match="--sample_rate"):
        mixture_list.check(mixtures, table(peak=0.4, samples=19999), "list.csv")
    other = [dataclasses.replace(mixtures[0], id="x", split="test"), *mixtures]
    with pytest.raises(errors.UserError, match="in two splits, test and train"):
        mixture_list.check(other, facts, "list.csv")
    wrong = [dataclasses.replace(mixtures[0], speakers=("s0", "nobody"))]
    with pytest.raises(errors.UserError, match="is nobody's in the list"):
        mixture_list.check(wrong, facts, "list.csv")
