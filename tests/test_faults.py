"""A quick part of tests/faults.py: one kill, one full disk and one signal for jobs that need no network."""

import os

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_nothing_is_lost(tmp_path):
    from tiny import python

    code = "import faults; table, lost = faults.run(2, {'cache', 'thresholds', 'weights', 'download'}, seed=5); assert not lost and table['the data cache']['kill -9'] == 2"
    done = python(code, backend="tensorflow")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "lost: 0" in done.stdout
