"""The committed cases of the fuzzers, replayed without them."""

import pathlib

import pytest

from fuzz import readers

CASES = sorted(path for path in (pathlib.Path(readers.__file__).parent / "corpus").glob("*/*"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_case_is_read_or_refused(path):
    readers.READERS[path.parent.name](path.read_bytes())


def test_every_reader_has_cases_of_which_some_are_whole():
    assert {path.parent.name for path in CASES} == set(readers.READERS)
    assert sum(path.stat().st_size for path in CASES) < 100_000
