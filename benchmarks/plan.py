"""Measures the CPU time and memory that the launching process of a large job needs for planning.

    python -m benchmarks.plan --utterances=1000000,10000000 --save
    python -m benchmarks.plan --utterances= --listed=1000000

Each size runs in its own process, which generates facts, draws all mixtures, distributes them over
shards of a thousand records, computes each shard's plan and digest, and writes the shards' plans
and `mixtures.csv` to a temporary folder. Facts are generated in columns; their time and memory are
included.

`--listed` measures the steps before: reading a manifest, writing the table of recordings for the
workers, and reading what they have found out.
"""

import dataclasses
import pathlib
import resource
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import fresh, made_up, measure
from pipeline import cli, columns, job_settings, plan, schema
from pipeline.corpora import corpus, mixture_list
from pipeline.dataset import inspection_cache, mixture_shards, shards, utterance_shards
from pipeline.io import stored_json

_UTTERANCES = flags.DEFINE_list("utterances", ["1000000", "10000000"], "Sizes.")
_LISTED = flags.DEFINE_list("listed", [], "Sizes of manifests.")
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/plan.json.")

_RATE = schema.DEFAULT_SAMPLE_RATE
_OF_A_SHARD = 1000


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    figures: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    jobs = [(measure_one, count, "") for count in map(int, _UTTERANCES.value)]
    jobs += [(measure_listing, count, " listed") for count in map(int, _LISTED.value)]
    for measure_it, count, what in jobs:
        found = fresh.in_a_process(measure_it, count)
        figures[f"{count:,d}{what}"] = [1e6 * sum(found["seconds"].values()) / count]
        facts[f"{count:,d} utterances{what}"] = found
    measure.report("plan", "microseconds an utterance", figures, {}, facts, _SAVE.value)


class _Notes:
    """CPU seconds of each step, and the largest memory until its end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes: dict[str, int] = {}
        self._start = time.process_time()

    def __call__(self, step: str) -> None:
        now = time.process_time()
        self.seconds[step], self._start = round(now - self._start, 2), now
        self.megabytes[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    def facts(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "megabytes of memory until then": self.megabytes}


def measure_listing(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        # In a process of its own, whose memory is not measured.
        fresh.in_a_process(write_corpus, folder, count)
        return fresh.in_a_process(list_corpus, folder)


def write_corpus(folder: str, count: int) -> dict[str, Any]:
    """Writes a manifest and the findings about its recordings."""
    facts = made_up.facts(count)
    work = f"{folder}/work"
    pathlib.Path(work).mkdir()
    with open(f"{folder}/manifest.csv", "w", encoding="utf-8") as file:
        file.write("path,speaker,sex\n")
        for rows in columns.chunks(count):
            found = []
            for fact in facts.facts(rows):
                speaker, name = fact.utterance.speaker, fact.utterance.id
                file.write(f"{name}.flac,{speaker},f\n")
                utterance = dataclasses.replace(fact.utterance, path=f"{folder}/{name}.flac")
                fact = dataclasses.replace(fact, utterance=utterance)
                found.append(inspection_cache.Finding((0, 0), fact))
            inspection_cache.write(work, _RATE, found)
    return {}


def list_corpus(folder: str) -> dict[str, Any]:
    # Imported here, since Beam needs 60 MB.
    from pipeline.beam import transforms

    note = _Notes()
    note("start")
    utterances = corpus.read((), [f"{folder}/manifest.csv"]).utterances
    note("manifest")
    job_settings.config(job_settings.Settings(), utterances)
    corpus.assign_splits(utterances, 0.1)
    note("digest, splits")
    transforms.write_utterances(folder, utterances)
    note("table for the workers")
    facts, _ = inspection_cache.read(f"{folder}/work", utterances)
    assert len(facts) == len(utterances)
    note("findings")
    return note.facts()


def measure_one(count: int) -> dict[str, Any]:
    note = _Notes()
    facts = made_up.facts(count)
    note("facts")
    splits = {
        name: "valid" if number % 50 == 0 else "train"
        for number, name in enumerate(facts.speaker_names)
    }
    mixtures = plan.make(facts, splits, plan.Settings(min_samples=_RATE))
    note("draw")
    options = {"sample_rate": _RATE, "num_shards": max(1, count // _OF_A_SHARD), "seed": 0}
    dealt = mixture_shards.make_plans(mixtures, masks=schema.MASKS, **options)
    clean = utterance_shards.make_plans(facts, **options)
    note("deal")
    digests = []
    size = 0
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = pathlib.Path(folder, "plan")
        for plans in (dealt, clean):
            for shard in plans.columns():
                digests.append(shard.digest)
                # All written to the same file: disk space is not what is measured.
                size += path.write_text(stored_json.dumps(shard), encoding="utf-8")
        shards.digest(digests)
        note("shards")
        with path.open("w", encoding="utf-8") as file:
            file.writelines(mixture_list.to_csv_in_parts(mixtures))
        note("mixtures.csv")
    return note.facts() | {"bytes of shards' plans for an utterance": size // count}


if __name__ == "__main__":
    cli.run(main, __doc__)
