"""Coverage-guided fuzzing of the readers: `python -m fuzz [READER ...] --seconds=60`.

Each reader runs in its own process, starting from the cases in `fuzz/corpus/READER`. New cases that
reach new code are kept in a temporary folder. Input that ends in anything but the documented
refusal is written to `fuzz/found/`, and the exit code is 1. https://github.com/google/atheris
"""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl import flags

from pipeline import cli

_SECONDS = flags.DEFINE_integer("seconds", 60, "Time for each reader.", lower_bound=1)
_KEEP = flags.DEFINE_string("keep", None, "Folder for new cases; by default they are dropped.")

HERE = pathlib.Path(__file__).resolve().parent
# A case is read in microseconds, so a slow one is a bug, as is one that needs much memory.
_LIMITS = ("-timeout=20", "-rss_limit_mb=2000", "-print_final_stats=1")
_MOST_BYTES = {"recording": 16384, "sphere": 4096}


def main(names: list[str]) -> int:
    """Fuzzes the named readers, or all; returns the exit code."""
    from fuzz import readers

    for name in names:
        if name not in readers.READERS:
            raise flags.Error(f"unknown reader {name!r}; known are {', '.join(readers.READERS)}")
    (HERE / "found").mkdir(exist_ok=True)
    failed = [name for name in names or readers.READERS if not _fuzz(name)]
    if failed:
        print(f"failures in {', '.join(failed)}: {HERE / 'found'} holds the input")
    return 1 if failed else 0


def _fuzz(name: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        new = pathlib.Path(_KEEP.value or folder) / name
        new.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [
                sys.executable, "-m", "fuzz.one", name, *_LIMITS,
                f"-max_total_time={_SECONDS.value}", f"-max_len={_MOST_BYTES.get(name, 4096)}",
                f"-artifact_prefix={HERE / 'found'}{os.sep}{name}-", str(new),
                str(HERE / "corpus" / name),
            ],
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        )  # fmt: skip
        grown = len(list(new.iterdir()))
    lines = done.stdout.splitlines()
    runs = [line.split()[-1] for line in lines if "number_of_executed_units" in line]
    print(f"{name:10s} {runs[0] if runs else '?':>9s} executions, {grown} new cases")
    if done.returncode:
        print("\n".join(lines[-40:]))
    return done.returncode == 0


if __name__ == "__main__":
    cli.run(main, __doc__)
