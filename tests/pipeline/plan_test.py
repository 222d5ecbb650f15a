"""The plan compared with its definition, computed here again from hashes and formulas."""

import collections
import dataclasses
import hashlib
import itertools
import math
import random
import time

import numpy as np
import pytest

from pipeline import columns, errors, inspection, plan, schema
from pipeline.corpora import corpus
from pipeline.dataset import mixture_shards
from pipeline.io import stored_json


def fact(speaker, number, *, samples=20000, peak=0.1, level=-26.0, sha=None):
    utterance = corpus.Utterance(f"{speaker}/{number}", f"/x/{speaker}/{number}.wav", speaker, "f")
    sha = sha or hashlib.sha256(utterance.id.encode()).hexdigest()
    return inspection.Facts(utterance, samples, peak, level, sha, 40044, 16000)


def table(num_speakers=5, utterances=4, **fields):
    return [fact(f"s{s}", n, **fields) for s in range(num_speakers) for n in range(utterances)]


def all_train(facts):
    return {f.utterance.speaker: "train" for f in facts}


def make(facts, **settings):
    return plan.make(facts, all_train(facts), plan.Settings(**settings))


def shards(facts, mixtures, num_shards=3, **changes):
    settings = {"sample_rate": 8000, "masks": schema.MASKS, "seed": 0, **changes}
    return mixture_shards.make_plans(mixtures, num_shards=num_shards, **settings)


def test_each_utterance_is_the_first_voice_and_the_others_are_other_speakers():
    facts = table()
    mixtures = make(facts, num_sources=3, mixtures_per_utterance=2)
    assert collections.Counter(m.utterance_ids[0] for m in mixtures) == {
        f.utterance.id: 2 for f in facts
    }
    assert len({m.id for m in mixtures}) == len(mixtures)
    for mixture in mixtures:
        assert len(set(mixture.speakers)) == 3
        assert [u.split("/")[0] for u in mixture.utterance_ids] == list(mixture.speakers)


def test_partners_stay_within_the_split():
    facts = table(6)
    splits = {f"s{n}": ("train", "valid", "test")[n // 2] for n in range(6)}
    mixtures = plan.make(facts, splits, plan.Settings())
    assert len(mixtures) == len(facts)
    assert all(splits[s] == m.split for m in mixtures for s in m.speakers)
    assert [m.split for m in mixtures] == ["train"] * 8 + ["valid"] * 8 + ["test"] * 8


def test_every_utterance_of_other_speakers_is_as_likely():
    # One speaker has 10 utterances, the others have 1 and 4.
    facts = [fact("a", n) for n in range(10)] + [fact("b", 0)] + [fact("c", n) for n in range(4)]
    drawn = collections.Counter(
        m.utterance_ids[1]
        for m in make(facts, mixtures_per_utterance=4000)
        if m.utterance_ids[0] == "b/0"
    )
    assert len(drawn) == 14
    expected = 4000 / 14
    # Chi-square with 13 degrees of freedom exceeds 34.5 once in a thousand times.
    assert sum((n - expected) ** 2 / expected for n in drawn.values()) < 34.5


def test_the_order_of_the_facts_does_not_matter():
    facts = table()
    shuffled = random.Random(1).sample(facts, len(facts))
    assert make(shuffled) == make(facts)


def test_a_mixture_does_not_depend_on_how_many_there_are():
    few = {m.id: m for m in make(table())}
    many = {m.id: m for m in make(table(), mixtures_per_utterance=3)}
    assert len(many) == 3 * len(few)
    assert all(many[name] == mixture for name, mixture in few.items())


def test_other_seeds_give_other_mixtures():
    assert make(table(), seed=1) != make(table(), seed=0)


def test_the_draws_are_the_hashes_that_the_docstring_promises():
    facts = table()
    (mixture,) = [m for m in make(facts, seed=7) if m.id == "s2/1-0"]

    def bits(what):
        digest = hashlib.sha256(f"7/{what}/s2/1-0".encode()).digest()
        return int.from_bytes(digest[:8], "big")

    others = sorted(f.utterance.id for f in facts if f.utterance.speaker != "s2")
    assert mixture.utterance_ids == ("s2/1", others[bits("voice 1") % len(others)])
    difference = 5.0 * (2 * bits("level") / 2**64 - 1)
    assert mixture.gains_db == pytest.approx((difference / 2, -difference / 2), abs=0.0101)


def test_levels_are_brought_to_minus_26_and_then_apart():
    facts = [fact(f"s{n}", 0, level=-15.0 - n / 10, peak=0.05) for n in range(40)]
    levels = {f.utterance.id: f.active_level_db for f in facts}
    differences = []
    for mixture in make(facts, max_snr_db=6.0):
        first, second = (
            levels[u] + g for u, g in zip(mixture.utterance_ids, mixture.gains_db, strict=True)
        )
        assert (first + second) / 2 == pytest.approx(-26, abs=0.0101)
        differences.append(first - second)
    assert -6.02 <= min(differences) < -3 < 3 < max(differences) <= 6.02


def test_each_of_more_than_two_voices_is_moved_by_half():
    facts = [fact(f"s{n}", 0, peak=0.01) for n in range(40)]
    gains = [g for m in make(facts, num_sources=3, max_snr_db=6.0) for g in m.gains_db]
    assert -3.01 <= min(gains) < -2 < 2 < max(gains) <= 3
    mixture = make(facts, num_sources=3, max_snr_db=6.0)[0]
    assert len(set(mixture.gains_db)) == 3


def test_a_common_gain_keeps_the_sum_of_peaks_below_098():
    facts = table(peak=0.9, level=-26.0)
    for mixture in make(facts):
        peaks = [0.9 * 10 ** (g / 20) for g in mixture.gains_db]
        # Rounded down to 0.01 dB: at most 0.12 % less.
        assert 0.98 * 10 ** (-0.01 / 20) <= sum(peaks) <= 0.98


def test_raw_leaves_the_recordings_alone_unless_they_would_clip():
    assert all(m.gains_db == (0.0, 0.0) for m in make(table(peak=0.3), level="raw"))
    for mixture in make(table(peak=0.7), level="raw"):
        assert mixture.gains_db == (-3.1, -3.1)  # 20 log10(0.98 / 1.4) = -3.098


def test_lengths():
    facts = [fact(f"s{n}", 0, samples=10000 + 1000 * n) for n in range(8)]
    samples = {f.utterance.id: f.num_samples for f in facts}
    for length, choose in (("min", min), ("max", max)):
        for mixture in make(facts, length=length):
            assert mixture.num_samples == choose(samples[u] for u in mixture.utterance_ids)


def test_short_utterances_are_left_out():
    facts = [*table(3), fact("s0", 9, samples=7999), fact("lonely", 0, samples=7999)]
    used = {u for m in make(facts, min_samples=8000) for u in m.utterance_ids}
    assert used == {f.utterance.id for f in table(3)}
    with pytest.raises(errors.UserError, match="--min_seconds"):
        make(facts, min_samples=30000)


def test_one_speaker_is_not_enough():
    with pytest.raises(errors.UserError, match=r"split train has 1 speaker\(s\).*\(s0\)"):
        make(table(1))
    splits = {"s0": "train", "s1": "train", "s2": "valid"}
    with pytest.raises(errors.UserError, match=r"split valid has 1 .*--valid_fraction"):
        plan.make(table(3), splits, plan.Settings())
    with pytest.raises(errors.UserError, match="3 voices"):
        make(table(2), num_sources=3)


def test_shards_are_even_and_hold_every_mixture_once():
    facts = table(7, 5)
    splits = {f"s{n}": "train" if n < 5 else "test" for n in range(7)}
    mixtures = plan.make(facts, splits, plan.Settings())
    found = shards(facts, mixtures, num_shards=4)
    assert [str(s.name) for s in found] == [
        f"{split}-0000{n}-of-00004.tfrecord" for split in ("train", "test") for n in range(4)
    ]
    assert sorted(m.id for s in found for m in s.mixtures) == sorted(m.id for m in mixtures)
    assert [len(s.mixtures) for s in found] == [7, 6, 6, 6, 3, 3, 2, 2]
    for shard in found:
        assert {m.split for m in shard.mixtures} == {shard.name.split}
        assert set(shard.recordings) == {u for m in shard.mixtures for u in m.utterance_ids}


def test_a_split_has_no_more_shards_than_mixtures():
    facts = table(2, 1)
    assert len(shards(facts, make(facts), num_shards=8)) == 2


def test_neighbours_of_the_table_are_spread():
    # In the order of the table, a speaker's mixtures would be side by side.
    facts = table(10, 10)
    (shard,) = shards(facts, make(facts), num_shards=1)
    speakers = [m.speakers[0] for m in shard.mixtures]
    same = sum(a == b for a, b in itertools.pairwise(speakers))
    assert same < 25


def test_the_digest_covers_what_decides_bytes_and_no_more():
    facts = table()
    mixtures = make(facts)
    (shard,) = shards(facts, mixtures, num_shards=1)
    stored = stored_json.loads(stored_json.dumps(shard.columns), mixture_shards.Columns)
    assert mixture_shards.ShardPlan.of(stored) == shard
    (made,) = shards(facts, mixtures, num_shards=1).columns()
    assert made == stored == shard.columns
    assert made.digest == stored.digest == shard.digest

    def changed(**fields):
        return dataclasses.replace(shard, **fields).digest != shard.digest

    first, *rest = shard.mixtures
    gain = dataclasses.replace(first, gains_db=(first.gains_db[0] - 0.01, first.gains_db[1]))
    assert changed(mixtures=(gain, *rest))
    assert changed(mixtures=(*rest, first))
    assert changed(mixtures=(dataclasses.replace(first, num_samples=9), *rest))
    assert changed(masks=("ibm",))
    assert changed(sample_rate=16000)
    name, recording = next(iter(shard.recordings.items()))
    assert changed(
        recordings={**shard.recordings, name: dataclasses.replace(recording, sha256="0" * 64)}
    )
    assert not changed(
        recordings={**shard.recordings, name: dataclasses.replace(recording, path="/moved")}
    )
    assert shards(facts, mixtures) != shards(facts, mixtures, seed=1)


def test_a_new_feature_is_another_plan(monkeypatch):
    facts = table()
    (shard,) = shards(facts, make(facts), num_shards=1)
    before = shard.digest
    new = schema.Feature("pitch", "float", ("S",), None, "Hz", "of each voice")
    monkeypatch.setattr(schema, "MIXTURE_FEATURES", (*schema.MIXTURE_FEATURES, new))
    assert shard.digest != before
    monkeypatch.undo()
    assert shard.digest == before
    # A feature's name and encoding matter, its description does not.
    first, *rest = schema.MIXTURE_FEATURES
    told = dataclasses.replace(first, meaning="its name")
    monkeypatch.setattr(schema, "MIXTURE_FEATURES", (told, *rest))
    assert shard.digest == before
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    assert shard.digest != before


def test_planning_takes_time_in_proportion():
    # 100,000 utterances in a minute are 20,000 in 12 s. One speaker has half of them, which would
    # make rejection sampling, or removal from lists, quadratic.
    facts = [fact("big", n, sha="0" * 64) for n in range(10000)]
    facts += [fact(f"s{n}", 0, sha="0" * 64) for n in range(10000)]
    start = time.process_time()
    assert all(shard.digest for shard in shards(facts, make(facts)))
    assert time.process_time() - start < 12


def test_record_bytes_is_a_close_estimate():
    (mixture, *_) = make(table())
    # 2 sources int16, 314 frames of 129 bins float16, bits, two bytes; activity.
    frames, bins = 314, 129
    arrays = 2 * 2 * 20000 + frames * bins * (2 + 1 / 8 + 1 + 1) + 2 * frames
    found = mixture_shards.record_bytes(np.array([mixture.num_samples]), 2, schema.MASKS)[0]
    assert found == pytest.approx(arrays, rel=0.01)
    assert found / (20000 / 8000) < 105_000


@pytest.mark.parametrize("length", ["min", "max"])
def test_the_longest_that_a_mixture_may_be_changes_no_shorter_one(length):
    facts = [fact(f"s{n % 4}", n, samples=10_000 + 1000 * n) for n in range(12)]
    whole = make(facts, length=length)
    cut = make(facts, length=length, max_samples=15_500)
    assert {m.num_samples for m in cut} > {15_500}
    for one, other in zip(whole, cut, strict=True):
        assert other == dataclasses.replace(one, num_samples=min(one.num_samples, 15_500))


def draw(seed, what, name):
    return int.from_bytes(hashlib.sha256(f"{seed}/{what}/{name}".encode()).digest()[:8], "big")


def plain(facts, settings):
    """Computes the definition, one mixture after the other, for a corpus that is all train."""
    facts = [f for f in facts if f.num_samples >= settings.min_samples]
    pool = sorted(facts, key=lambda f: (f.utterance.speaker, f.utterance.id))
    for first in sorted(facts, key=lambda f: f.utterance.id):
        for number in range(settings.mixtures_per_utterance):
            name = f"{first.utterance.id}-{number}"
            voices = [first]
            for voice in range(1, settings.num_sources):
                taken = {v.utterance.speaker for v in voices}
                others = [f for f in pool if f.utterance.speaker not in taken]
                voices.append(others[draw(settings.seed, f"voice {voice}", name) % len(others)])
            moves = [0.0] * len(voices)
            half = settings.max_snr_db / 2
            if len(voices) == 2:
                moves[0] = half * (draw(settings.seed, "level", name) / 2**63 - 1)
                moves[1] = -moves[0]
            else:
                reasons = [f"level {voice}" for voice in range(len(voices))]
                moves = [half * (draw(settings.seed, what, name) / 2**63 - 1) for what in reasons]
            gains = [0.0] * len(voices)
            if settings.level == "active":
                levels = [v.active_level_db for v in voices]
                gains = [-26.0 + m - level for m, level in zip(moves, levels, strict=True)]
            peak = math.fsum(v.peak * 10 ** (g / 20) for v, g in zip(voices, gains, strict=True))
            common = min(0.0, 20 * math.log10(0.98 / peak))
            longest = max if settings.length == "max" else min
            yield plan.Mixture(
                name,
                "train",
                min(longest(v.num_samples for v in voices), settings.max_samples),
                tuple(v.utterance.id for v in voices),
                tuple(v.utterance.speaker for v in voices),
                tuple(math.floor(100 * (gain + common)) / 100 for gain in gains),
            )


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"num_sources": 3, "seed": 5}, {"level": "raw", "mixtures_per_utterance": 3},
        {"length": "max", "max_samples": 30_000, "num_sources": 4}, {"max_snr_db": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_columns_give_what_plain_loops_give(settings, monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", 32)
    rng = random.Random(0)
    facts = [
        fact(
            f"s{rng.randrange(12)}", n, samples=rng.randrange(5_000, 60_000),
            peak=rng.uniform(0.05, 1), level=rng.uniform(-50, -10),
        )
        for n in range(150)
    ]  # fmt: skip
    mixing = plan.Settings(**settings)
    assert list(plan.make(facts, all_train(facts), mixing)) == list(plain(facts, mixing))


def test_the_order_of_equal_draws_is_that_of_the_names(monkeypatch):
    monkeypatch.setattr(
        plan, "_draws", lambda seed, what, ids: np.array([len(n) for n in ids], np.uint64)
    )
    names = ["ccc", "b", "aaa", "dd", "a", "bbb"]
    found = plan.order(0, len(names), lambda rows: [names[row] for row in rows])
    assert [names[row] for row in found] == ["a", "b", "dd", "aaa", "bbb", "ccc"]


def test_some_mixtures_are_left_out_by_their_ids():
    mixtures = make(table())
    dropped = {mixtures[3].id, mixtures[7].id}
    assert mixtures.without(dropped) == [m for m in mixtures if m.id not in dropped]
    assert mixtures.without(()) is mixtures
    listed = plan.Mixtures.listed(list(mixtures), mixtures.table)
    assert listed == mixtures
    assert listed.without(dropped) == mixtures.without(dropped)
    assert listed.speakers("train") == 5
