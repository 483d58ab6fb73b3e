"""The peak resident memory of a process and of its children, and glibc's allocator.

A child's ``ru_maxrss`` starts with its parent's peak, so on Linux the program's own peak, ``VmHWM``, is read.
"""

import ctypes
import gc
import os
import re
import sys
import threading
from pathlib import Path

import psutil


def peak_gib(pid: int | None = None) -> float:
    """Peak resident memory of a process in GiB; 0 if it has ended or this is unknown.

    Args:
        pid: a process; this one by default.
    """
    try:
        status = Path(f"/proc/{pid or os.getpid()}/status").read_text(encoding="utf-8")
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) / 2**20 if found else 0.0
    except OSError:
        pass
    if sys.platform == "darwin" and pid is None:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30
    try:
        return getattr(psutil.Process(pid).memory_info(), "peak_wset", 0) / 2**30
    except psutil.Error:
        return 0.0


def give_back() -> None:
    """Return freed memory to the system, with glibc's allocator; elsewhere nothing happens."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # no glibc here
        pass


def keep_freed() -> None:
    """Let glibc's allocator keep freed memory for the next training step; elsewhere nothing happens.

    TensorFlow frees and allocates the same hundreds of megabytes at each step, which the system would clear each
    time. From now on memory comes from one growing heap, so call this early. The options are those of mallopt(3);
    one that is set in the environment is not changed.
    """
    options = {
        "MALLOC_ARENA_MAX": (-8, 1),
        "MALLOC_MMAP_MAX_": (-4, 0),
        "MALLOC_TOP_PAD_": (-2, 2**26),
        "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
    }
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # no glibc here
        return
    for name, (option, value) in options.items():
        if name not in os.environ:
            mallopt(option, value)


class Watch(threading.Thread):
    """Watches the children of a process, and theirs, until :meth:`end`.

    Attributes:
        pid: the process; largest: peak memory of its largest child so far, GiB.

    Example:
        >>> watch = Watch(os.getpid())
        >>> watch.end() >= 0
        True
    """

    def __init__(self, pid: int, every: float = 0.2):
        super().__init__(daemon=True)
        self.pid, self.every, self.largest = pid, every, 0.0
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._ended.wait(self.every):
            try:
                started = psutil.Process(self.pid).children(recursive=True)
            except psutil.Error:
                return
            self.largest = max([self.largest, *(peak_gib(one.pid) for one in started)])

    def end(self) -> float:
        """Stop watching; returns the peak memory of the largest child, GiB."""
        self._ended.set()
        self.join()
        return self.largest
