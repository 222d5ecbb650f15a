"""Measures the CPU time and memory that the launching process of a large job needs for planning.

    python -m benchmarks.plan --utterances=1000000,10000000 --save

Each size runs in its own process, which generates facts, draws all mixtures, distributes them over
shards of a thousand records, computes each shard's plan and digest, and writes the shards' plans
and `mixtures.csv` to a temporary folder. Facts are generated in columns; their time and memory are
included.
"""

import pathlib
import resource
import tempfile
import time
from typing import Any

from absl import flags

from benchmarks import fresh, made_up, measure
from pipeline import cli, plan, schema
from pipeline.corpora import mixture_list
from pipeline.dataset import mixture_shards, shards, utterance_shards
from pipeline.io import stored_json

_UTTERANCES = flags.DEFINE_list("utterances", ["1000000", "10000000"], "Sizes.")
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/plan.json.")

_RATE = schema.DEFAULT_SAMPLE_RATE
_OF_A_SHARD = 1000


def main(arguments: list[str]) -> None:
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    figures: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    for count in map(int, _UTTERANCES.value):
        found = fresh.in_a_process(measure_one, count)
        figures[f"{count:,d}"] = [1e6 * sum(found["seconds"].values()) / count]
        facts[f"{count:,d} utterances"] = found
    measure.report("plan", "microseconds an utterance", figures, {}, facts, _SAVE.value)


def measure_one(count: int) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    megabytes: dict[str, int] = {}
    start = time.process_time()

    def note(step: str) -> None:
        nonlocal start
        now = time.process_time()
        seconds[step], start = round(now - start, 2), now
        megabytes[step] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

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
    return {
        "seconds": seconds,
        "megabytes of memory until then": megabytes,
        "bytes of shards' plans for an utterance": size // count,
    }


if __name__ == "__main__":
    cli.run(main, __doc__)
