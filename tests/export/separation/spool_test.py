"""Samples kept on disk for several passes."""

import numpy as np
import pytest

from export.separation import spool
from pipeline import errors


def test_any_range_can_be_read():
    samples = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    padded = np.pad(samples, ((10, 10), (0, 0)))
    with spool.Spool() as kept:
        for block in np.split(samples, [1, 400]):
            kept.append(block)
        assert (kept.num_samples, kept.num_columns) == samples.shape
        for first, last in ((0, 1000), (399, 401), (-10, 5), (990, 1010), (-10, 1010), (7, 7)):
            np.testing.assert_array_equal(kept.read(first, last), padded[first + 10 : last + 10])


def test_a_full_disk_is_named():
    message = "the folder for temporary files: No space left on device; .*TMPDIR"

    def fill():
        with spool.Spool() as kept:
            kept._file = open("/dev/full", "r+b")  # noqa: SIM115 (it is closed with `kept`)
            kept.append(np.ones((10, 2), np.float32))

    with pytest.raises(errors.UserError, match=message):
        fill()
