"""Runs one reader under libFuzzer in this process: `python -m fuzz.one READER FLAGS...`."""

import sys

import atheris

with atheris.instrument_imports(include=["pipeline", "trainer"]):
    from fuzz import readers

if __name__ == "__main__":
    reader = readers.READERS[sys.argv.pop(1)]
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup(sys.argv, reader)
    atheris.Fuzz()
