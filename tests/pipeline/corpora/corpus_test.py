"""TIMIT in all its copies, good and bad manifests, folders, and the split by speaker."""

import collections
import csv
import hashlib
import io
import os
import pickle
import unicodedata

import numpy as np
import pytest
import soundfile

from pipeline import errors
from pipeline.corpora import corpus


def make(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    return str(folder)


def table(found):
    return [(u.id, u.speaker, u.sex, u.split) for u in found.utterances]


DISC = (
    "TRAIN/DR1/FVMH0/SI1466.WAV",
    "TRAIN/DR1/FVMH0/SX26.WAV",
    "TEST/DR8/MJLN0/SI1449.WAV",
)
ROWS = [
    ("TEST/DR8/MJLN0/SI1449", "MJLN0", "m", "test"),
    ("TRAIN/DR1/FVMH0/SI1466", "FVMH0", "f", "train"),
    ("TRAIN/DR1/FVMH0/SX26", "FVMH0", "f", "train"),
]


@pytest.mark.parametrize("below", ["", "data/", "TIMIT_WAV/", "timit/TIMIT/"])
@pytest.mark.parametrize("change", [str, str.lower, lambda p: p + ".wav"])
def test_every_copy_of_timit_gives_the_same_table(tmp_path, below, change):
    folder = make(tmp_path, *(below + change(path) for path in DISC), below + "DOC/README.DOC")
    found = corpus.read_folder(folder)
    assert table(found) == ROWS
    assert found.kinds == ((folder, "timit"),)
    assert found.rejections == ()


def test_timit_in_two_copies_is_one_utterance_each(tmp_path):
    copies = [path + ".wav" for path in DISC] + [path.lower() for path in DISC]
    folder = make(tmp_path, *DISC, *copies)
    found = corpus.read_folder(folder)
    assert table(found) == ROWS
    assert [os.path.relpath(u.path, tmp_path) for u in found.utterances] == sorted(DISC)


def test_sentences_that_all_speakers_read_are_left_out(tmp_path):
    folder = make(tmp_path, *DISC, "TRAIN/DR1/FVMH0/SA1.WAV", "TRAIN/DR1/FVMH0/sa2.wav")
    assert table(corpus.read_folder(folder)) == ROWS
    everything = corpus.read_folder(folder, include_sa=True)
    assert {u.id[-3:] for u in everything.utterances} >= {"SA1", "SA2"}


def test_audio_outside_timits_layout_is_named(tmp_path):
    folder = make(tmp_path, *DISC, "EXTRA/noise.wav")
    ((rejection),) = corpus.read_folder(folder).rejections
    assert rejection.path.endswith("EXTRA/noise.wav")
    assert "TIMIT" in rejection.reason


def test_half_of_timit(tmp_path):
    make(tmp_path, *DISC)
    assert table(corpus.read_folder(str(tmp_path / "TRAIN") + "/")) == ROWS[1:]
    (tmp_path / "TRAIN").rename(tmp_path / "some")
    with pytest.raises(errors.UserError, match="part of TIMIT"):
        corpus.read_folder(str(tmp_path / "some"))


@pytest.mark.recordings
def test_the_real_disc(recordings):
    found = corpus.read([str(recordings / "timit_sample")])
    assert len(found.utterances) == 16 * 8
    assert found.rejections == ()
    sexes = {u.speaker: u.sex for u in found.utterances}
    # The disc's own table: id without its first letter, sex.
    lines = (recordings / "timit_sample" / "DOC" / "SPKRINFO.TXT").read_text().splitlines()
    own = {line.split()[0]: line.split()[1].lower() for line in lines if line[:1] not in "; "}
    assert {name[1:]: sex for name, sex in sexes.items()} == own
    assert len(corpus.read([str(recordings / "timit_sample")], include_sa=True).utterances) == 160


@pytest.mark.recordings
def test_the_real_manifest(recordings):
    path = recordings / "speech" / "manifest.csv"
    found = corpus.read(manifests=[str(path)])
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted((u.path, u.speaker, u.sex, u.split) for u in found.utterances) == sorted(
        (str(path.parent / r["path"]), r["speaker"], r["sex"], r["split"]) for r in rows
    )
    splits = corpus.assign_splits(found.utterances, 0.1)
    assert splits == {r["speaker"]: r["split"] for r in rows}


def test_a_folder_of_speakers(tmp_path):
    folder = make(
        tmp_path,
        "p225/p225_001.wav",
        "p226/a/b/c.FLAC",
        "p226/a/b/c.mp3",
        "p226/C.wav",
        "p226/c.wav",
        "p226/text.txt",
        "loose.ogg",
    )
    found = corpus.read_folder(folder)
    assert table(found) == [
        ("p225/p225_001", "p225", "", ""),
        ("p226/C", "p226", "", ""),
        ("p226/a/b/c", "p226", "", ""),
        ("p226/c", "p226", "", ""),
    ]
    assert found.utterances[2].path.endswith("c.FLAC")
    assert found.kinds[0][1] == "speakers"
    assert [(os.path.basename(r.path), r.reason) for r in found.rejections] == [
        ("loose.ogg", "in no speaker's folder")
    ]


def test_what_is_no_audio_is_counted_and_what_is_has_any_ending(tmp_path, voice):
    folder = make(tmp_path, "a/1.wav", "a/1.txt", "b/1.m4a", "b/1.lab", "README", "b/notes.txt")
    soundfile.write(tmp_path / "b" / "2.take", voice(1, 1.0), 16000, format="WAV")
    found = corpus.read_folder(folder)
    assert [u.id for u in found.utterances] == ["a/1", "b/1", "b/2.take"]
    assert found.rejections == ()
    (note,) = corpus.read([folder]).notes
    assert note.startswith(f"{folder}: 4 files are left out")
    assert "2 .txt, 1 without an ending, 1 .lab" in note or "2 .txt, 1 .lab, 1 without" in note


def test_librispeech_as_it_unpacks(tmp_path):
    paths = (
        "train-clean-100/103/1240/103-1240-0000.flac",
        "dev-other/116/288045/116-288045-0000.flac",
        "test-clean/1089/134686/1089-134686-0000.flac",
    )
    found = corpus.read_folder(make(tmp_path, *paths))
    assert {(u.speaker, u.split) for u in found.utterances} == {
        ("103", "train"), ("116", "valid"), ("1089", "test"),
    }  # fmt: skip
    subset = corpus.read_folder(str(tmp_path / "train-clean-100"))
    assert table(subset) == [("103/1240/103-1240-0000", "103", "", "")]


def test_links_to_nowhere_are_rejections(tmp_path):
    make(tmp_path, "a/1.wav", "b/1.wav")
    (tmp_path / "a" / "2.wav").symlink_to("gone.wav")
    (tmp_path / "c").symlink_to("gone")
    (tmp_path / "README.txt").symlink_to("gone")
    found = corpus.read_folder(str(tmp_path))
    assert [(os.path.relpath(r.path, tmp_path), r.reason) for r in found.rejections] == [
        ("a/2.wav", "a link to nowhere"),
        ("c", "a link to nowhere"),
    ]


@pytest.mark.parametrize(
    ("paths", "reason"),
    [((), "no audio"), (("notes.txt",), "no audio"), (("a.wav",), "no speaker's folder")],
)
def test_folders_without_a_corpus(tmp_path, paths, reason):
    make(tmp_path, *paths)
    with pytest.raises(errors.UserError, match=reason) as caught:
        corpus.read([str(tmp_path)])
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(errors.UserError, match="no such folder"):
        corpus.read([str(tmp_path / "absent")])


def write_manifest(tmp_path, text, name="manifest.csv", encoding="utf-8"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_a_manifest(tmp_path):
    path = write_manifest(
        tmp_path,
        "note,Path,speaker,sex,split\r\n"
        'x,"b, two.wav",bob,Male,dev\r\n'
        "\r\n"
        "y,./sub/../a.flac,ann,F,Train\r\n"
        "z,ä.ogg,zoë,,\r\n",
        encoding="utf-8-sig",
    )
    found = corpus.read(manifests=[path])
    assert table(found) == [
        ("a", "ann", "f", "train"),
        ("b, two", "bob", "m", "valid"),
        ("ä", "zoë", "", ""),
    ]
    assert [u.path for u in found.utterances] == [
        str(tmp_path / name) for name in ("a.flac", "b, two.wav", "ä.ogg")
    ]
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_manifest_as_spreadsheets_write_it(tmp_path, separator, encoding):
    rows = [
        ["path", "speaker", "sex", "split"],
        ["a.wav", "Zoë", "f", "train"],
        ["b, c; d.wav", "José", "m", ""],
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=separator).writerows(rows)
    expected = [("a", "Zoë", "f", "train"), ("b, c; d", "José", "m", "")]
    path = write_manifest(tmp_path, text.getvalue(), encoding=encoding)
    assert table(corpus.read_manifest(path)) == expected
    # As in files from Excel for spreadsheets of other countries.
    path = write_manifest(tmp_path, f"sep={separator}\r\n{text.getvalue()}", encoding=encoding)
    assert table(corpus.read_manifest(path)) == expected


def test_spaces_may_stand_before_quotation_marks(tmp_path):
    path = write_manifest(tmp_path, 'path, "speaker"\n"a, 1.wav",  "Smith, Ann"\nb.wav, Bob\n')
    assert table(corpus.read_manifest(path)) == [
        ("a, 1", "Smith, Ann", "", ""),
        ("b", "Bob", "", ""),
    ]


def test_a_name_is_one_person_however_its_accents_are_encoded(tmp_path):
    names = [unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    path = write_manifest(tmp_path, f"path,speaker\na.wav,{names[0]}\nb.wav,{names[1]}\n")
    assert {u.speaker for u in corpus.read_manifest(path).utterances} == {names[0]}
    folder = make(tmp_path / "folder", f"{names[1]}/1.wav", "bob/1.wav")
    found = corpus.read([folder], [path])
    assert {u.speaker for u in found.utterances} == {names[0], "bob"}


def test_what_is_known_of_a_speaker_holds_for_all_rows(tmp_path):
    path = write_manifest(tmp_path, "path,speaker,sex,split\na.wav,s,,\nb.wav,s,f,test\n")
    assert table(corpus.read_manifest(path)) == [("a", "s", "f", "test"), ("b", "s", "f", "test")]


def test_two_endings_keep_two_ids_apart(tmp_path):
    path = write_manifest(tmp_path, "path,speaker\na.wav,s\na.flac,s\nb.wav,s\n")
    assert [u.id for u in corpus.read_manifest(path).utterances] == ["a.flac", "a.wav", "b"]


def test_paths_from_windows(tmp_path):
    path = write_manifest(tmp_path, "path,speaker\nwav\\anna\\1.wav,s\n.\\b.wav,s\nc/d\\e.wav,s\n")
    assert [u.path for u in corpus.read_manifest(path).utterances] == [
        str(tmp_path / name) for name in ("b.wav", "c/d\\e.wav", "wav/anna/1.wav")
    ]


@pytest.mark.parametrize(
    "name",
    ["../secret.wav", "/etc/passwd", "a/../../x.wav", "s3://b/x.wav", r"..\x.wav", r"\\host\x.wav"],
)
def test_a_path_that_leaves_the_folder_is_rejected(tmp_path, name):
    path = write_manifest(tmp_path, f"path,speaker\na.wav,s\n{name},t\n")
    found = corpus.read_manifest(path)
    assert [u.id for u in found.utterances] == ["a"]
    ((rejection),) = found.rejections
    assert rejection.path == name
    assert "leaves the manifest's folder" in rejection.reason
    assert "line 3" in rejection.reason


def test_an_absolute_path_within_the_folder_is_one(tmp_path):
    path = write_manifest(tmp_path, f"path,speaker\n{tmp_path}/deep/a.wav,s\n")
    assert [u.id for u in corpus.read_manifest(path).utterances] == ["deep/a"]


def test_a_path_named_twice_counts_once(tmp_path):
    path = write_manifest(tmp_path, "path,speaker\na.wav,s\n./a.wav,s\n")
    found = corpus.read_manifest(path)
    assert len(found.utterances) == 1
    assert "line 3 of the manifest repeats line 2" in found.rejections[0].reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column path or speaker"),
        ("path,sex\na.wav,f\n", "no column speaker"),
        ("path|speaker\na.wav|s\n", "no column path or speaker.*commas, semicolons or tabs"),
        ("path;speaker\na;b.wav;s\n", "line 2: 3 cells.* a semicolon needs quotation marks"),
        ("sep=;\npath;speaker\na.wav;\n", "line 3: no speaker"),
        ("path,speaker\n", "no rows"),
        ("path,speaker,path\na,b,c\n", "column path is there twice"),
        ("path,speaker,split\na.wav,s,trian\n", "line 2: split 'trian'"),
        ("path,speaker,sex\na.wav,s,q\n", "line 2: sex 'q'"),
        ("path,speaker\na.wav,s\nb.wav,\n", "line 3: no speaker"),
        ("path,speaker\na.wav,s\n,s\n", "line 3: no path"),
        ("path,speaker\na, b.wav,s\n", "line 2: 3 cells.* quotation marks"),
        ('path,speaker\n"a.wav,s\n', "not CSV"),
        ("path,speaker,split\na,s,train\nb,s,test\n", r"s is in two splits: train \(line 2\)"),
        ("path,speaker,sex\na,s,f\nb,s,m\n", "s is of two sexes: f"),
        ("path,speaker\na.wav,s\na.wav,t\n", "s's in line 2, t's in line 3"),
    ],
)
def test_manifests_that_are_wrong(tmp_path, text, reason):
    path = write_manifest(tmp_path, text)
    with pytest.raises(errors.UserError, match=reason) as caught:
        corpus.read(manifests=[path])
    assert path in str(caught.value)


def test_a_manifest_in_another_encoding_or_absent(tmp_path):
    path = write_manifest(tmp_path, "path,speaker\nä.wav,s\n", encoding="latin-1")
    with pytest.raises(errors.UserError, match="not UTF-8"):
        corpus.read_manifest(path)
    with pytest.raises(errors.UserError, match="no such file"):
        corpus.read_manifest(str(tmp_path / "absent.csv"))


def test_several_corpora(tmp_path):
    one = write_manifest(tmp_path, "path,speaker,split\na.wav,s,train\n", "x/corpus/m.csv")
    two = write_manifest(tmp_path, "path,speaker\na.wav,t\n", "y/corpus/m.csv")
    folder = make(tmp_path / "speakers", "u/a.wav")
    found = corpus.read([folder], [one, two])
    assert table(found) == [
        ("corpus-2/a", "t", "", ""),
        ("corpus/a", "s", "", "train"),
        ("speakers/u/a", "u", "", ""),
    ]
    assert [kind for _, kind in found.kinds] == ["speakers", "manifest", "manifest"]
    again = corpus.read([], [one, one])
    assert [u.id for u in again.utterances] == ["corpus/a"]
    assert "in two of the corpora" in again.rejections[0].reason


def test_one_name_is_one_person_in_all_corpora(tmp_path):
    one = write_manifest(tmp_path, "path,speaker,split\na.wav,s,train\n", "x/m.csv")
    two = write_manifest(tmp_path, "path,speaker,split\na.wav,s,test\n", "y/m.csv")
    with pytest.raises(errors.UserError, match="s is in two splits"):
        corpus.read([], [one, two])
    with pytest.raises(errors.UserError, match="no corpus"):
        corpus.read()


def speakers(*names, split=""):
    return [corpus.Utterance(name, name, name, "", split) for name in names]


def fraction(name):
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) / 2**256


def test_valid_speakers_are_those_of_low_hash():
    names = [f"speaker{i}" for i in range(200)]
    splits = corpus.assign_splits(reversed(speakers(*names)), 0.1)
    assert list(splits) == sorted(names)
    assert {n for n in names if splits[n] == "valid"} == {n for n in names if fraction(n) < 0.1}
    assert set(splits.values()) == {"train", "valid"}


def test_another_speaker_moves_nobody():
    names = [f"speaker{i}" for i in range(50)]
    before = corpus.assign_splits(speakers(*names), 0.2)
    after = corpus.assign_splits(speakers(*names, "newcomer"), 0.2)
    assert {n: after[n] for n in names} == before


def test_few_speakers_give_the_two_lowest():
    names = ["a", "b", "c", "d"]
    splits = corpus.assign_splits(speakers(*names), 1e-9)
    assert [n for n in names if splits[n] == "valid"] == sorted(sorted(names, key=fraction)[:2])
    three = corpus.assign_splits(speakers("a", "b", "c"), 1e-9)
    assert set(three.values()) == {"train"}


@pytest.mark.parametrize("num_sources", [2, 3])
@pytest.mark.parametrize("valid_fraction", [0.1, 0.5, 0.9])
def test_either_split_has_speakers_for_a_mixture_whatever_they_are_called(
    num_sources, valid_fraction
):
    random = np.random.default_rng(3)
    for count in range(num_sources, 12):
        for _ in range(20):
            names = [f"{n}" for n in random.integers(10**9, size=count)]
            splits = corpus.assign_splits(speakers(*names), valid_fraction, num_sources)
            sizes = collections.Counter(splits.values())
            assert sizes["train"] >= num_sources
            assert (sizes["valid"] >= num_sources) == (count >= 2 * num_sources)
            assert sizes["valid"] in (0, *range(num_sources, count))
            lowest = sorted(names, key=fraction)[: sizes["valid"]]
            assert {n for n in names if splits[n] == "valid"} == set(lowest)


def test_a_fraction_of_one_asks_for_no_train_split():
    assert set(corpus.assign_splits(speakers("a", "b"), 1.0).values()) == {"valid"}


def test_declared_splits_hold():
    table = speakers("a", "b", split="valid") + speakers("c", split="test")
    splits = corpus.assign_splits([*table, *speakers(*"defghijk")], 0.5)
    assert {s for s in splits if splits[s] == "valid"} == {"a", "b"}
    assert splits["c"] == "test"
    drawn = corpus.assign_splits(speakers(*"cC", split="test") + speakers(*"defghijk"), 0.5)
    assert drawn["c"] == drawn["C"] == "test"
    assert "valid" in drawn.values()
    only_test = corpus.assign_splits(speakers(*"abcdef", split="test"), 0.5)
    assert set(only_test.values()) == {"test"}


def test_a_fraction_of_zero_asks_for_none():
    assert set(corpus.assign_splits(speakers(*"abcdef"), 0.0).values()) == {"train"}


def test_recordings_are_found_by_content_and_others_are_counted(tmp_path):
    heads = {"a.wave": b"", "b.webm": b"", "c.M4A": b"", "d.dat": b"fLaC", "e": b"NIST_1A\n"}
    heads |= {"f.txt": b"", "g.dat": b"nothing", "a.flac": b"fLaC"}
    for speaker in ("one", "two"):
        (tmp_path / speaker).mkdir()
        for name, head in heads.items():
            (tmp_path / speaker / name).write_bytes(head)
    found = corpus.read_folder(str(tmp_path))
    names = {os.path.basename(u.path) for u in found.utterances}
    assert names == {"a.flac", "b.webm", "c.M4A", "d.dat", "e"}
    assert [note.partition(": ")[2] for note in found.notes] == [
        "4 files are left out, since none is audio (2 .txt, 2 .dat)",
        "2 recordings are left out that are there with another ending, too",
    ]
