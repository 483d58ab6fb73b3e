"""The largest resident memory that a process had, and that of the processes it starts.

``ru_maxrss`` is no answer for a process that was started: it begins with its parent's peak. Linux keeps
each program's own high-water mark, ``VmHWM``.
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
    """GiB of resident memory that a process had at the most; 0 where it has ended or the system does not say.

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
    """Return what this process has freed to the system, where the allocator can (glibc); else nothing happens."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # no glibc here
        pass


def keep_freed() -> None:
    """Let glibc's allocator keep what this process frees for its next step; elsewhere nothing happens.

    TensorFlow frees and asks for the same hundreds of megabytes at each training step, and the system would clear
    them anew each time. Memory comes from one growing heap from now on, so the earlier this is called, the
    better. Each option is mallopt(3)'s; one that the environment sets already stays.
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
    """Looks at the processes that a process starts, and those they start, until :meth:`end`.

    Attributes:
        pid: the process. largest: GiB that the largest process started by it has had so far.

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
        """Stop looking; the largest of what was seen, in GiB."""
        self._ended.set()
        self.join()
        return self.largest
