"""How many cores there are to work with."""

import os


def usable_cores():
    """Cores that this process may run on: fewer than the machine's where it is confined to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
