"""The steps of the job on Beam's test pipeline."""

import json
import random

import apache_beam as beam
import numpy as np
import pytest
import soundfile
from apache_beam.testing import test_pipeline, util

from pipeline import errors, inspection, plan
from pipeline.beam import transforms
from pipeline.corpora import corpus, utterance_table
from pipeline.dataset import histogram, inspection_cache, mixture_shards, shards, utterance_shards


def parts(count=30):
    random_state = np.random.default_rng(0)
    values = [random_state.normal(-3.4, 0.9, 5000).astype(np.float16) for _ in range(count)]
    return values, [("train", histogram.count(v)) for v in values]


def test_merging_in_any_order_and_grouping_gives_the_same_bits():
    values, elements = parts()
    every = np.concatenate(values).astype(np.float64)
    results = set()
    for seed in range(5):
        shuffled = random.Random(seed).sample([*elements, ("valid", elements[0][1])], 31)
        merge = transforms.MergeHistograms()
        cut = 3 + 5 * seed
        accumulators = []
        for group in (shuffled[:cut], shuffled[cut:], []):
            accumulator = merge.create_accumulator()
            for element in group:
                accumulator = merge.add_input(accumulator, element)
            accumulators.append(accumulator)
        results.add(merge.extract_output(merge.merge_accumulators(accumulators)))
    ((mean, deviation),) = results
    assert mean == pytest.approx(every.mean(), rel=1e-12)
    assert deviation == pytest.approx(every.std(), rel=1e-12)


def test_without_train_there_are_no_statistics(tmp_path):
    with test_pipeline.TestPipeline() as pipeline:
        merged = (
            pipeline
            | beam.Create([("test", histogram.count(np.ones(3, np.float16)))])
            | beam.CombineGlobally(transforms.MergeHistograms())
        )
        util.assert_that(merged, util.equal_to([None]))
    transforms.write_statistics(None, str(tmp_path))
    assert transforms.read_statistics(str(tmp_path)) is None


def test_inspection_gives_a_line_of_facts_or_a_rejection(tmp_path, voice):
    good = corpus.Utterance("line\nbreak", str(tmp_path / "good.wav"), "s", "f", "train")
    bad = corpus.Utterance("bad", str(tmp_path / "bad.wav"), "s")
    soundfile.write(good.path, voice(0, 2.0), 16000)
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    pieces = transforms.write_utterances(str(tmp_path), [good, bad])
    pipeline = test_pipeline.TestPipeline()
    pipeline | transforms.Inspect(str(tmp_path), 8000, pieces)
    result = pipeline.run()
    utterances = utterance_table.UtteranceTable.of([bad, good])
    facts, rejections = inspection_cache.read(str(tmp_path), utterances)
    assert facts == [inspection.inspect(good, 8000)]
    assert rejections == [inspection.inspect(bad, 8000)]
    counters = {c.key.metric.name: c.result for c in result.metrics().query()["counters"]}
    assert counters["recordings_usable"] == counters["recordings_rejected"] == 1
    assert (tmp_path / transforms.INSPECTED).stat().st_size == 2


def test_a_workers_message_is_found_in_what_a_runner_raises():
    def fail(_):
        with transforms._one_line():
            raise errors.UserError("/a/b.wav: has changed [really]")

    def run():
        with test_pipeline.TestPipeline() as pipeline:
            pipeline | beam.Create([0]) | beam.Map(fail)

    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    assert transforms.message(caught.value) == "/a/b.wav: has changed [really]"
    assert transforms.message(RuntimeError("something else")) is None


def test_lines_are_json_that_any_name_survives(tmp_path):
    names = ["a,b", 'quo"te', "new\nline", "naïve", "\u2028"]
    table = [corpus.Utterance(name, f"/x/{name}", "s") for name in names]
    (piece,) = transforms.write_utterances(str(tmp_path), table)
    lines = transforms.read_utterances(piece, str(tmp_path))
    assert [corpus.Utterance(**json.loads(line)) for line in lines] == table


@pytest.mark.parametrize(("count", "pieces"), [(0, 0), (3, 1), (4, 2), (7, 3)])
def test_the_table_is_cut_into_pieces(tmp_path, monkeypatch, count, pieces):
    monkeypatch.setattr(transforms, "_PIECE", 3)
    table = [corpus.Utterance(str(n), f"/x/{n}", "s") for n in range(count)]
    names = transforms.write_utterances(str(tmp_path), table)
    assert len(names) == len(set(names)) == pieces
    parts = [transforms.read_utterances(name, str(tmp_path)) for name in names]
    assert all(len(part) <= 3 for part in parts)
    assert [corpus.Utterance(**json.loads(line)) for part in parts for line in part] == table


def test_shards_of_both_kinds_are_written_in_one_step_and_found_by_the_next(tmp_path, voice):
    facts = []
    for number in range(4):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, voice(number, 2.0), 16000)
        utterance = corpus.Utterance(f"u{number}", str(path), f"s{number}", "f", "train")
        facts.append(inspection.inspect(utterance, 8000))
    mixtures = plan.make(facts, {f"s{n}": "train" for n in range(4)}, plan.Settings())
    options = {"sample_rate": 8000, "num_shards": 2, "seed": 0}
    of_mixtures = mixture_shards.make_plans(mixtures, masks=("ibm",), **options)
    clean = utterance_shards.make_plans(facts, **options)
    work, folder = tmp_path / "work", tmp_path / "out"
    folder.mkdir()
    transforms.write_plans(str(work), [*of_mixtures.columns(), *clean.columns()])
    paths = [shard.path for shard in (*of_mixtures, *clean)]
    for existing in (0, 4):
        pipeline = test_pipeline.TestPipeline()
        pipeline | transforms.WriteShards(str(work), str(folder), paths)
        counters = {
            c.key.metric.name: c.result for c in pipeline.run().metrics().query()["counters"]
        }
        assert counters.get("shards_found", 0) == existing
        assert counters.get("shards_written", 0) == 4 - existing
        assert counters["mixtures"] == counters["utterances"] == 4
        assert (work / transforms.WRITTEN).stat().st_size == 8
        (work / transforms.WRITTEN).unlink()
    assert all((folder / path).is_file() and (folder / f"{path}.json").is_file() for path in paths)
    found = [shards.read(shard, str(folder)).log_magnitude_codes for shard in of_mixtures]
    counts = sum(codes.to_array() for codes in found)
    assert transforms.read_statistics(str(work)) == histogram.mean_and_deviation(counts)


def test_runners_that_deal_out_elements_recognise_the_shards_distribution():
    pipeline = beam.Pipeline()
    pipeline | transforms.WriteShards("work", "out", ["a", "b"])
    described = pipeline.to_runner_api().components.transforms.values()
    (spread,) = [t for t in described if t.unique_name.endswith("WriteShards/Spread")]
    assert spread.spec.urn == "beam:transform:reshuffle:v1"
    # For a runner that does not.
    assert spread.subtransforms


def test_no_pair_is_lost_or_changed_by_distribution():
    pairs = [(number, f"shard {number}") for number in range(9)]
    with test_pipeline.TestPipeline() as pipeline:
        found = pipeline | beam.Create(pairs) | transforms.SpreadByNumber()
        util.assert_that(found, util.equal_to(pairs))
