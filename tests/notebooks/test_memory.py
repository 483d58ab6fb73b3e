"""The measurement for the notebooks' memory limit: a run by nbval fails above it (notebooks/conftest.py)."""

import os
import subprocess
import sys
import time

import pytest

from nucleus_course._util.memory import Watch, peak_gib

HOLD = """
import sys
block = bytearray({mib} * 2**20)
del block
print("held", flush=True)
sys.stdin.read()
"""
STARTS = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stdin=subprocess.PIPE)
sys.stdin.read()
child.communicate()
"""

linux = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")


def started(code):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"held"
    return process


@linux
def test_a_peak_is_the_process_s_own_and_stays_after_the_memory_is_given_back():
    mine = bytearray(400 * 2**20)  # must not count in a new process
    process = started(HOLD.format(mib=150))
    assert 150 / 1024 < peak_gib(process.pid) < 250 / 1024
    del mine
    process.communicate()
    assert peak_gib(process.pid) == 0 and peak_gib() > 400 / 1024


@linux
def test_processes_that_a_process_starts_are_seen():
    process = started(STARTS.format(code=HOLD.format(mib=150)))
    watch = Watch(process.pid, every=0.02)
    for _ in range(500):
        if watch.largest:
            break
        time.sleep(0.02)
    assert 150 / 1024 < watch.end() < 250 / 1024
    process.communicate()


def test_the_limit_can_be_missed_and_the_kernels_run_as_on_binder(conftest_of_notebooks):
    rules = conftest_of_notebooks
    assert rules.LIMIT + rules.ALLOWANCE < 1.75  # of Binder's 2 GB; the server takes 0.1
    assert rules.too_much("a", 1.49, 0.0) == ""
    assert "a needs 1.70 GiB" in rules.too_much("a", 1.7, 0.0)
    assert "starts 1.70" in rules.too_much("a", 0.1, 1.7)
    caps = rules.environment()
    assert caps["OMP_NUM_THREADS"] == "2" and caps["MALLOC_ARENA_MAX"] == "2"
    assert {"TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PYTHONPATH"} <= set(caps)


@linux
def test_freed_memory_goes_back_to_the_system():
    import psutil

    from nucleus_course._util.memory import give_back

    size, process = 40_000, psutil.Process()
    many = [bytearray(1000) for _ in range(size)]
    last = bytearray(1000)  # above the freed memory: the heap cannot shrink by itself
    before = process.memory_info().rss
    del many
    give_back()
    assert process.memory_info().rss < before and len(last) == 1000
