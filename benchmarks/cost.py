"""Measures the CPU cost of each step of the Beam job, for the estimates in docs/scale.md.

    python -m benchmarks.cost --input_dir=timit_sample --save

Beam is left out: each step's functions are called in this process and measured in CPU time, so the
figures are useful even on a busy machine.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from absl import flags

from benchmarks import measure
from pipeline import cli, inspection, plan, schema
from pipeline.corpora import corpus
from pipeline.dataset import mixture_shards, recordings, shards, utterance_shards
from pipeline.io import stored_json

_MANIFESTS = flags.DEFINE_multi_string("manifest", [], "CSV manifest of a corpus.")
_FOLDERS = flags.DEFINE_multi_string("input_dir", [], "Folder of a corpus.")
_MAX_RECORDINGS = flags.DEFINE_integer(
    "max_recordings", 500, "Maximum number of recordings of the corpus.", lower_bound=2
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Number of rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/cost.json.")

_RATE = schema.DEFAULT_SAMPLE_RATE
_SETTINGS = plan.Settings(min_samples=_RATE)
_T = TypeVar("_T")


def main(arguments: list[str]) -> None:
    cli.no_arguments(arguments)
    measure.use_one_core()
    about: dict[str, Any] = {}
    utterances = corpus.read(_FOLDERS.value, _MANIFESTS.value).utterances
    chosen = utterances[:: max(1, len(utterances) // _MAX_RECORDINGS.value)]
    figures: dict[str, list[float]] = {"inspect": [], "write mixtures": [], "write utterances": []}
    for _ in range(_REPEATS.value):
        for step, speed in _speeds(chosen, about).items():
            figures[step].append(speed)
    measure.report("cost", "times real time", figures, {}, about, _SAVE.value)


def _speeds(utterances: list[corpus.Utterance], about: dict[str, Any]) -> dict[str, float]:
    """Measures seconds of audio read or written per second of CPU time."""
    found, inspect_seconds = _timed(lambda: [inspection.inspect(u, _RATE) for u in utterances])
    facts = [fact for fact in found if isinstance(fact, inspection.Facts)]
    audio = sum(fact.num_samples for fact in facts) / _RATE
    mixtures, shard_plans = _plan(facts)
    mixed = sum(mixture.num_samples for mixture in mixtures) / _RATE
    clean_plans = utterance_shards.make_plans(facts, sample_rate=_RATE, num_shards=4, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, schema.UTTERANCES_FOLDER).mkdir()
        # Recordings cached by one step must not speed up the next, which may run elsewhere.
        recordings.forget()
        sidecars, write_seconds = _timed(lambda: [shards.write(p, folder) for p in shard_plans])
        recordings.forget()
        clean, clean_seconds = _timed(lambda: [shards.write(p, folder) for p in clean_plans])
        recordings.forget()
    about |= {
        "recordings": len(facts),
        "seconds of mixture for a second of recordings": round(mixed / audio, 3),
        "KB for a second of mixture": _kilobytes(sidecars, mixed),
        "KB for a second of clean utterances": _kilobytes(clean, audio),
        "KB of recordings for a second": round(sum(f.file_bytes for f in facts) / audio / 1000, 1),
        "bytes of plan for a mixture": sum(
            len(stored_json.dumps(shard.columns)) for shard in shard_plans
        )
        // len(mixtures),
    }
    return {
        "inspect": audio / inspect_seconds,
        "write mixtures": mixed / write_seconds,
        "write utterances": audio / clean_seconds,
    }


def _plan(
    facts: Sequence[inspection.Facts],
) -> tuple[plan.Mixtures, list[mixture_shards.ShardPlan]]:
    mixtures = plan.make(facts, {fact.utterance.speaker: "train" for fact in facts}, _SETTINGS)
    return mixtures, list(
        mixture_shards.make_plans(
            mixtures, sample_rate=_RATE, masks=schema.MASKS, num_shards=4, seed=0
        )
    )


def _timed(work: Callable[[], _T]) -> tuple[_T, float]:
    start = time.process_time()
    return work(), time.process_time() - start


def _kilobytes(sidecars: list[Any], seconds: float) -> float:
    return round(sum(sidecar.shard.bytes for sidecar in sidecars) / seconds / 1000, 1)


if __name__ == "__main__":
    cli.run(main, __doc__)
