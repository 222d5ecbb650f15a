"""All figures of one mixture: what a worker process of the evaluator computes.

No TensorFlow here: the models have spoken already, and a worker starts in half a second.
"""

import dataclasses
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Any

import numpy as np

from export.evaluation import dataset_mixtures, metrics, oracles
from pipeline import errors, features

# One line of results.csv, less the name of the dataset.
Row = dict[str, Any]

# Metrics whose compiled parts have been seen to end their process.
_MAY_CRASH = frozenset(("stoi", "pesq"))


@dataclasses.dataclass(frozen=True)
class Separation:
    """What a model made of a mixture.

    Attributes:
        system: the model's name.
        estimates: float32 `[source, sample]`, in any order.
        masks: `[source, frame, bin]` in the same order, of a network of waveforms the share that
            each estimate has of each bin; None of what has none.
    """

    system: str
    estimates: np.ndarray
    masks: np.ndarray | None = None


Scorer = Callable[[dataset_mixtures.Mixture, Sequence[Separation], Sequence[str]], list[Row]]


def score(
    mixture: dataset_mixtures.Mixture, separations: Sequence[Separation], names: Sequence[str]
) -> list[Row]:
    """The rows of one mixture: the mixture itself, the oracles, and the models.

    Args:
        mixture: the record.
        separations: what the models made of it.
        names: of the metrics.

    Returns:
        A row each system. Figures are means over the voices; those with `_1`, `_2` are of one
        voice; `order` names each voice's estimate. What cannot be computed is not a number.
    """
    voices = features.stft(mixture.voices)
    whole = features.stft(mixture.waveform)
    magnitudes, level = np.abs(voices), np.abs(whole)
    relative = mixture.relative_levels_db()
    common: Row = {
        "mixture_id": mixture.id,
        "speakers": " ".join(mixture.speakers),
        "pair": mixture.pair,
        "seconds": round(mixture.seconds, 4),
        "overlap": round(mixture.overlap(), 4),
        **{f"relative_level_{s + 1}": rounded(value) for s, value in enumerate(relative)},
    }
    rows = []
    before: dict[str, np.ndarray] = {}
    for system in [*anchors(mixture, voices, whole), *separations]:
        order, values = metrics.score(mixture.voices, system.estimates, mixture.rate, names)
        before = before or values
        for name in metrics.IMPROVED:
            if name in values:
                values[f"{name}_improvement"] = values[name] - before[name]
        if "mask_accuracy" in names:
            for figure, chosen in (
                ("mask_accuracy", order),
                ("mask_accuracy_as_given", np.arange(len(order))),
            ):
                accuracy = np.nan
                if system.masks is not None:
                    accuracy = metrics.mask_accuracy(system.masks[chosen], magnitudes, level)
                values[figure] = np.full(len(order), accuracy)
        rows.append({**common, "system": system.system, **_columns(order, values)})
    return rows


def anchors(
    mixture: dataset_mixtures.Mixture, voices: np.ndarray, whole: np.ndarray
) -> list[Separation]:
    """The mixture taken for each voice, and what ideal masks make of it.

    Args:
        mixture: the record.
        voices: spectrograms of the voices, complex64 `[source, frame, bin]`.
        whole: spectrogram of the mixture, complex64 `[frame, bin]`.
    """
    same = np.broadcast_to(mixture.waveform, mixture.voices.shape)
    systems = [Separation(oracles.MIXTURE, same)]
    for name in oracles.ORACLES:
        masks = oracles.masks(name, voices, whole)
        estimates = oracles.separate(masks, whole, mixture.voices.shape[1])
        systems.append(Separation(name, estimates, masks))
    return systems


def _columns(order: np.ndarray, values: dict[str, np.ndarray]) -> Row:
    columns: Row = {name: rounded(voices.mean()) for name, voices in values.items()}
    columns["order"] = " ".join(str(estimate + 1) for estimate in order)
    for name, voices in values.items():
        for s, value in enumerate(voices):
            columns[f"{name}_{s + 1}"] = rounded(value)
    return columns


def rounded(value: float) -> float | None:
    """A figure as the rows have it; None for what is not a number."""
    return round(float(value), 6) if np.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Task:
    """One mixture to score, by `score` or a function like it: what goes to a worker."""

    dataset: str
    mixture: dataset_mixtures.Mixture
    separations: tuple[Separation, ...]
    names: tuple[str, ...]
    scorer: Scorer = score

    def run(self) -> list[Row]:
        """The rows of the mixture."""
        return self.scorer(self.mixture, self.separations, self.names)


def score_all(tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, list[Row]]]:
    """Scores tasks on processes; two a worker are in memory at once.

    One worker without STOI and PESQ is this process: nothing needs to be started for it.

    A compiled metric that takes its process down with it on a strange signal does not end the run:
    the tasks that were under way are tried again one by one, the guilty one then without STOI and
    PESQ, which its rows lack. A task is kept until its rows are handed out, whenever a process
    dies.

    Args:
        tasks: made one at a time, in this process; of the same metrics.
        workers: processes.

    Yields:
        Each task with its rows, in the order in which they are done.

    Raises:
        UserError: a worker died over SI-SDR alone, so it lacks memory or was killed.
    """
    tasks = iter(tasks)
    first = next(tasks, None)
    if first is None:
        return
    tasks = itertools.chain([first], tasks)
    if workers == 1 and not _MAY_CRASH.intersection(first.names):
        for only in tasks:
            yield only, only.run()
        return
    # What TensorFlow has started does not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = itertools.count()
    more = True
    while more:
        # Those that have been taken and not handed out, by number.
        kept: dict[int, Task] = {}
        numbers: dict[futures.Future, int] = {}
        with _pool(workers, context) as pool:
            try:
                while more or kept:
                    while more and len(kept) < 2 * workers:
                        task = next(tasks, None)
                        if task is None:
                            more = False
                            break
                        # Before it is handed in, which fails where a process has just died.
                        number = next(counter)
                        kept[number] = task
                        numbers[pool.submit(task.run)] = number
                    done = futures.wait(numbers, return_when=futures.FIRST_COMPLETED).done
                    for future in done:
                        rows = future.result()
                        yield kept.pop(numbers.pop(future)), rows
            except process.BrokenProcessPool:
                pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        for task in kept.values():
            yield task, _score_carefully(task, context)


def _pool(workers: int, context: Any) -> futures.ProcessPoolExecutor:
    # Ctrl-C reaches the whole group: this process alone answers it, and ends its workers.
    return futures.ProcessPoolExecutor(
        workers, mp_context=context,
        initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip


def _score_carefully(task: Task, context: Any) -> list[Row]:
    safe = tuple(name for name in task.names if name not in _MAY_CRASH)
    for names in (task.names, safe):
        with _pool(1, context) as pool:
            try:
                return pool.submit(dataclasses.replace(task, names=names).run).result()
            except process.BrokenProcessPool:
                continue
    raise errors.UserError(
        f"the process that scored {task.mixture.id} was killed twice, perhaps for want of memory: "
        "the same command goes on from there, with fewer --workers if need be"
    )
