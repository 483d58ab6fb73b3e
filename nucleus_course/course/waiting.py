"""A notebook cell that takes longer than five seconds says that it is working, and for how long.

One line on standard error, written over each second. ``NUCLEUS_COURSE_WAITING=off`` leaves it out.
"""

import os
import sys
import threading
import time

VARIABLE = "NUCLEUS_COURSE_WAITING"


class Ticker:
    """Writes the line while a cell runs; ``begin`` and ``end`` are called before and after each cell.

    Args:
        patience: seconds until the first line. every: seconds from line to line.
    """

    def __init__(self, patience: float = 5.0, every: float = 1.0):
        self.patience, self.every = patience, every
        self.what = ""
        self._done, self._thread = threading.Event(), None

    def begin(self, *_) -> None:
        self.end()
        self.what, self._done = "", threading.Event()
        self._thread = threading.Thread(target=self._tick, args=(self._done,), daemon=True)
        self._thread.start()

    def end(self, *_) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _tick(self, done: threading.Event) -> None:
        started, wait, last = time.monotonic(), self.patience, ""
        while not done.wait(wait):
            last = f"working, {time.monotonic() - started:.0f} s" + f": {self.what}" * bool(
                self.what
            )
            print(f"\r{last}  ", end="", file=sys.stderr, flush=True)
            wait = self.every
        if last:
            seconds = time.monotonic() - started
            print(f"\r{f'done, {seconds:.0f} s':<{len(last)}}", file=sys.stderr, flush=True)


_ticker: Ticker | None = None


def watch_cells() -> None:
    """Begin, once, where this is a notebook."""
    global _ticker
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if _ticker is None and hasattr(shell, "kernel") and os.environ.get(VARIABLE) != "off":
        _ticker = Ticker()
        shell.events.register("pre_run_cell", _ticker.begin)
        shell.events.register("post_run_cell", _ticker.end)
        _ticker.begin()  # this cell


def say(what: str) -> None:
    """How far a long task is; elsewhere than in a notebook on a line of its own."""
    if _ticker is not None:
        _ticker.what = what
    else:
        print(f"\r{what}", end="", file=sys.stderr, flush=True)
