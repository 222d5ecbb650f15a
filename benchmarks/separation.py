"""Separation of one minute of audio on one core, in times real time.

    python -m benchmarks.separation --model=exported/lstm --save

Without --model an LSTM of the trainer's size with random weights is exported first: speed does not
depend on what the weights are. `SavedModel` is its function `serving_default` over the whole
minute; `export.separate` is the same with what the command does besides: chunks, seams, order.
"""

import contextlib
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from benchmarks import measure
from pipeline import command

_MODEL = flags.DEFINE_string("model", None, "Folder of a SavedModel or of a training run.")
_SECONDS = flags.DEFINE_float("seconds", 60, "Length of the recording.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds.", lower_bound=1)
_SAVE = flags.DEFINE_bool("save", False, "Write benchmarks/results/separation.json.")


def main(arguments: list[str]) -> None:
    if arguments:
        raise flags.Error(f"unexpected argument {arguments[0]!r}")
    measure.use_one_core()
    from export import loading, separate

    with _model_folder() as folder:
        start = time.perf_counter()
        model = loading.load(folder)
        loaded = time.perf_counter() - start
    # Noise whose level changes from syllable to syllable: silence would be too easy on the CPU.
    random = np.random.default_rng(0)
    samples = 0.05 * random.standard_normal(int(_SECONDS.value * model.sample_rate), np.float32)
    samples *= np.abs(np.sin(np.arange(samples.size) * (2 * np.pi / model.sample_rate))) + 0.01

    def times_real_time(job: Callable[[], np.ndarray]) -> float:
        start = time.perf_counter()
        job()
        return _SECONDS.value / (time.perf_counter() - start)

    jobs = {
        "SavedModel": lambda: times_real_time(lambda: model.separate(samples[np.newaxis])),
        "export.separate": lambda: times_real_time(
            lambda: separate.separate(samples, model.sample_rate, model)
        ),
    }
    for job in jobs.values():
        job()  # Traces, allocates.
    facts = {
        "network": model.name,
        "seconds of audio": _SECONDS.value,
        "seconds to load": round(loaded, 2),
    }
    figures = measure.interleave(jobs, _REPEATS.value)
    ratios = {"export.separate / SavedModel": ("export.separate", "SavedModel")}
    measure.report("separation", "times real time", figures, ratios, facts, _SAVE.value)


@contextlib.contextmanager
def _model_folder() -> Iterator[str]:
    """The folder that the flag names, or one with a fresh LSTM while the context lasts."""
    if _MODEL.value:
        yield _MODEL.value
        return
    from export import loading, saved_model

    loading.import_keras()
    from models import registry, separator

    fresh = separator.wrap(
        registry.create("lstm"), mean=-3.7, deviation=0.8, active_level_db=-23.0,
        sample_rate=8000, num_sources=2,
    )  # fmt: skip
    fresh.build(None)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        exported = pathlib.Path(folder) / "lstm"
        saved_model.write(fresh, exported)
        yield str(exported)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command.run(main, __doc__)
