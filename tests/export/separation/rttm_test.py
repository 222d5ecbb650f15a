"""RTTM as other programs read it; the diarisation error is pyannote.metrics'."""

import numpy as np
import pytest

from export.separation import activity, rttm
from pipeline.corpora import conversation, espeak


def made(*turns):
    """An activity of turns (speaker, start, end) of two voices."""
    listed = tuple(activity.Turn(speaker, start, end, -26.0) for speaker, start, end in turns)
    return activity.Activity(listed, 60.0, (1.0, 1.0), 0.0, 0.0)


def test_one_line_a_turn():
    text = rttm.text(made((0, 0.5, 2.25), (1, 1.9996, 3.0004)), "call")
    assert text == (
        "SPEAKER call 1 0.500 1.750 <NA> <NA> voice1 <NA> <NA>\n"
        "SPEAKER call 1 2.000 1.000 <NA> <NA> voice2 <NA> <NA>\n"
    )
    assert rttm.text(made(), "call") == ""


@pytest.mark.parametrize("name", ["a talk\t of\nmine", "名前", "  ", "x;y"])
def test_names_are_one_field(name, tmp_path):
    util = pytest.importorskip("pyannote.database.util")
    path = tmp_path / "x.rttm"
    path.write_text(rttm.text(made((0, 1, 2.5), (1, 2, 4)), name), encoding="utf-8")
    ((found, read),) = util.load_rttm(path, keep_type="SPEAKER").items()
    assert found == rttm.recording_name(name)
    assert not set(found) & set(" \t\n")
    spans = [(s.start, s.end, label) for s, _, label in read.itertracks(yield_label=True)]
    assert spans == [(1.0, 2.5, "voice1"), (2.0, 4.0, "voice2")]


def annotation(turns):
    from pyannote.core import Annotation, Segment

    found = Annotation()
    for number, (speaker, start, end) in enumerate(turns):
        found[Segment(start, end), number] = speaker
    return found


@pytest.mark.parametrize("first_speaker", [0, 2, 4])
def test_true_voices_give_their_true_turns(first_speaker, tmp_path):
    """The reference is librosa's: what is within 40 dB of a voice's loudest, gaps closed."""
    diarization = pytest.importorskip("pyannote.metrics.diarization")
    from pyannote.database import util

    librosa = pytest.importorskip("librosa")
    try:
        talk = conversation.make(first_speaker=first_speaker)
    except espeak.EspeakError:
        pytest.skip("eSpeak NG is not here")
    reference = annotation(
        (speaker, start / talk.rate, end / talk.rate)
        for speaker, voice in enumerate(talk.voices)
        for start, end in librosa.effects.split(
            voice, top_db=40, frame_length=talk.rate // 20, hop_length=talk.rate // 80
        )
    ).support(0.3)
    blocks = np.array_split(talk.voices, 50, axis=1)
    path = tmp_path / "talk.rttm"
    path.write_text(rttm.text(activity.find_turns(blocks, talk.rate), "talk"))
    found = util.load_rttm(path)["talk"]
    error = diarization.DiarizationErrorRate(collar=0.0, skip_overlap=False)(reference, found)
    assert error < 0.1
    # The utterances as they were placed, of which some tenths of a second are silent.
    placed = diarization.DiarizationErrorRate(collar=0.5)(annotation(talk.utterances), found)
    assert placed < 0.1
