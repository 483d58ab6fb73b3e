"""Freed memory stays with the process while it trains."""

import os
import subprocess
import sys

import pytest

LOOP = """
import resource, sys
if "keep" in sys.argv:
    from nucleus_course._util.memory import keep_freed
    keep_freed()
for _ in range(20):
    b"x" * (64 * 2**20)  # 16,384 pages of 4 KiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(*words, **env):
    """Page faults of a new process."""
    done = subprocess.run(
        [sys.executable, "-c", LOOP, *words],
        env={**os.environ, "GLIBC_TUNABLES": "", **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again():
    fresh = faults()
    if fresh < 20 * 16_000:
        pytest.skip("this system gives memory in larger pages")
    assert faults("keep") < fresh / 4
    said = {"MALLOC_MMAP_MAX_": "1000", "MALLOC_TRIM_THRESHOLD_": "1000000"}
    assert faults("keep", **said) > fresh / 2, "the environment decides"
