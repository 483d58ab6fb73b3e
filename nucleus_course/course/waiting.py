"""A line below notebook cells that take more than five seconds: "working, 7 s", updated each second.

``NUCLEUS_COURSE_WAITING=off`` turns it off.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

VARIABLE = "NUCLEUS_COURSE_WAITING"


class Ticker:
    """Shows the line while a cell runs; ``begin`` and ``end`` are called before and after each cell.

    Args:
        show: called with the line's text, to show it and then to change it.
        patience: seconds until the line appears; every: seconds between updates.
    """

    def __init__(self, show: Callable[[str], None], patience: float = 5.0, every: float = 1.0):
        self.show, self.patience, self.every = show, patience, every
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
        started, wait, said = time.monotonic(), self.patience, False
        while not done.wait(wait):
            what = f": {self.what}" if self.what else ""
            self.show(f"working, {time.monotonic() - started:.0f} s{what}")
            wait, said = self.every, True
        if said:
            self.show(f"done, {time.monotonic() - started:.0f} s")


class Line:
    """A line of text among a cell's outputs that can be changed in place."""

    def __init__(self) -> None:
        self.handle: Any = None

    def new(self, *_) -> None:
        """Show the next text as a new line, for another cell."""
        self.handle = None

    def __call__(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


_ticker: Ticker | None = None


def watch_cells() -> None:
    """Start the line for slow cells, once, in a notebook."""
    global _ticker
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if _ticker is None and hasattr(shell, "kernel") and os.environ.get(VARIABLE) != "off":
        line = Line()
        _ticker = Ticker(line)
        shell.events.register("pre_run_cell", line.new)
        shell.events.register("pre_run_cell", _ticker.begin)
        shell.events.register("post_run_cell", _ticker.end)
        _ticker.begin()  # this cell


def say(what: str) -> None:
    """Report the progress of a long task: in a notebook on the cell's line, elsewhere on standard error."""
    if _ticker is not None:
        _ticker.what = what
    else:
        print(f"\r{what}", end="", file=sys.stderr, flush=True)
