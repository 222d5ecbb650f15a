"""Computes all figures of one mixture, in worker processes of the evaluator.

This module does not need TensorFlow, because the models have already run; a worker starts in half
a second.
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

# One line of results.csv without the dataset's name.
Row = dict[str, Any]

# Metrics whose compiled code is known to crash the process.
_MAY_CRASH = frozenset(("stoi", "pesq"))


@dataclasses.dataclass(frozen=True)
class Separation:
    """A model's separation of a mixture.

    Attributes:
        system: the model's name.
        estimates: float32 `[source, sample]`, in any order.
        masks: `[source, frame, bin]` in the same order; for a time-domain network, each estimate's
            share of each bin; None if there are none.
    """

    system: str
    estimates: np.ndarray
    masks: np.ndarray | None = None


Scorer = Callable[[dataset_mixtures.Mixture, Sequence[Separation], Sequence[str]], list[Row]]


def score(
    mixture: dataset_mixtures.Mixture, separations: Sequence[Separation], names: Sequence[str]
) -> list[Row]:
    """Computes the rows of one mixture: the mixture itself, the oracles, and the models.

    Args:
        mixture: the record.
        separations: the models' separations of it.
        names: the metrics' names.

    Returns:
        One row per system. Figures are means over the voices; those ending in `_1`, `_2` are for
        one voice; `order` lists each voice's estimate. Figures that cannot be computed are missing.
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
    """Returns the reference systems: the mixture as each estimate, and the oracle separations.

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
    """Rounds a figure for the rows; None if it is not finite."""
    return round(float(value), 6) if np.isfinite(value) else None


@dataclasses.dataclass(frozen=True)
class Task:
    """One mixture to score, by `score` or a similar function, sent to a worker."""

    dataset: str
    mixture: dataset_mixtures.Mixture
    separations: tuple[Separation, ...]
    names: tuple[str, ...]
    scorer: Scorer = score

    def run(self) -> list[Row]:
        """Computes the rows of the mixture."""
        return self.scorer(self.mixture, self.separations, self.names)


def score_all(tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, list[Row]]]:
    """Scores tasks in worker processes, with two tasks per worker in memory at once.

    With one worker and neither STOI nor PESQ, tasks run in this process.

    If a compiled metric crashes its process on an unusual signal, the run continues: the pending
    tasks are retried one by one, and the one that crashes again is scored without STOI and PESQ. A
    task is kept until its rows have been yielded, so none is lost when a process dies.

    Args:
        tasks: created one at a time in this process, all with the same metrics.
        workers: number of processes.

    Yields:
        Each task with its rows, in order of completion.

    Raises:
        UserError: a worker died without STOI and PESQ: it ran out of memory or was killed.
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
    # TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = itertools.count()
    more = True
    while more:
        # Tasks that have been taken but not yielded yet, by number.
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
                        # Before submitting, which fails if a process has just died.
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
    # Ctrl-C reaches the whole process group; only this process handles it and ends its workers.
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
