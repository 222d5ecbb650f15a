"""Shared by all benchmarks: a description of the machine, interleaved runs, medians, results files.

Repeated runs report the ratios that have changed since the committed results.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.io import atomic
from pipeline.io.cores import available_cores

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
_PACKAGES = ("numpy", "scipy", "soundfile", "soxr", "apache-beam", "tensorflow", "keras", "librosa")

# Ratios that change by more are reported.
_MOVED = 0.2
_LOAD = [round(load, 2) for load in os.getloadavg()]


def machine() -> dict[str, Any]:
    """Describes the machine: processor, usable cores, memory, versions, and other load."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "system": platform.platform(terse=True),
        # Load averages before the benchmark: near 0 if nothing else ran.
        "load_before": _LOAD,
        "versions": versions,
    }


def use_one_core() -> None:
    """Restricts this process and its children to one core; call it before the heavy imports."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = "1"


def interleave(jobs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Runs all jobs in turn, `repeats` times, so that disturbances affect all of them alike.

    Args:
        jobs: the jobs by name; each returns its figure.
        repeats: number of rounds.

    Returns:
        The figures of each job.
    """
    figures: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(repeats):
        for name, job in jobs.items():
            print(f"round {number + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            figures[name].append(job())
    return figures


def report(
    name: str,
    unit: str | Mapping[str, str],
    figures: Mapping[str, list[float]],
    ratios: Mapping[str, tuple[str, str]],
    facts: Mapping[str, Any],
    save: bool,
) -> None:
    """Prints the medians and the ratios of medians, and optionally writes them to `results/`.

    Args:
        name: the name of the benchmark and of the file.
        unit: the figures' unit, for all or by job.
        figures: one figure per round, by job.
        ratios: by name, the jobs whose medians are the numerator and the denominator.
        facts: further information about this run.
        save: whether to write the file.
    """
    medians = {job: statistics.median(values) for job, values in figures.items()}
    quotients = {title: medians[a] / medians[b] for title, (a, b) in ratios.items()}
    about = machine()
    versions = ", ".join(f"{package} {v}" for package, v in about["versions"].items())
    print(f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB; {versions}")
    print(f"load average before: {about['load_before']}")
    for key, value in facts.items():
        print(f"{key}: {value}")
    width = max(map(len, [*medians, *quotients]))
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(medians, unit)
    for job, median in medians.items():
        spread = f"{min(figures[job]):.4g} to {max(figures[job]):.4g}"
        print(f"{job:{width}}  {median:10.4g} {units[job]} ({spread} in {len(figures[job])} runs)")
    for title, quotient in quotients.items():
        print(f"{title:{width}}  {quotient:10.3g}")
    path = RESULTS / f"{name}.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for line in another_machine(before["machine"], about):
            print(line)
        for line in moved(before["ratios"], quotients):
            print(line)
        if busy(before["machine"]):
            print("what is committed was measured on a busy machine")
    if save:
        result = {
            "facts": dict(facts),
            "unit": unit if isinstance(unit, str) else dict(unit),
            "medians": medians,
            "runs": dict(figures),
            "ratios": quotients,
        }
        write(name, result)


def write(name: str, result: Mapping[str, Any]) -> None:
    """Writes `results/NAME.json`: date, command, machine and results."""
    about = {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m", f"benchmarks.{name}", *map(_short, sys.argv[1:])]),
        "machine": machine(),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**about, **result}, indent=2) + "\n"
    atomic.write_text(RESULTS / f"{name}.json", text)


def busy(about: Mapping[str, Any]) -> bool:
    """Returns whether a machine, as described by `machine`, was running other programs.

    A low load does not count: the average over the last minute may include the previous benchmark.
    """
    return bool(about.get("load_before", [0.0])[0] > 0.75 * about["cores"])


def another_machine(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns a line if the committed figures are from another kind of processor or core count."""
    kinds = [f"{about['processor']}, {about['cores']} cores" for about in (before, now)]
    if kinds[0] == kinds[1]:
        return []
    return [
        f"what is committed was measured on {kinds[0]}; this is {kinds[1]}: only ratios are "
        "compared, and they may differ, too"
    ]


def moved(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Returns a line for each ratio that has changed by more than a fifth."""
    return [
        f"moved: {title} was {before[title]:.3g}, is {value:.3g}"
        for title, value in now.items()
        if title in before and not 1 / (1 + _MOVED) < value / before[title] < 1 + _MOVED
    ]


def _short(argument: str) -> str:
    """Removes folders, which are specific to this machine."""
    name, equals, value = argument.partition("=")
    return f"{name}{equals}{os.path.basename(value.rstrip('/'))}" if equals else argument


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
