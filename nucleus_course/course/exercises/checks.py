"""How an exercise is checked: run the learner's function on cases, report the first that fails.

A check never raises because of the learner's code. It returns a :class:`CheckResult` whose printed
form is the feedback, so that a notebook cell ending in ``check_nms(nms)`` shows one of

* ``passed``: every case gave the expected value,
* ``not attempted``: the stub is still there (it raises ``NotImplementedError``),
* ``not yet``: the first failing case, with its input, the expected and the returned value; for an
  error also the line of the learner's function that raised it.

An endless loop is stopped after :data:`TIME_LIMIT` seconds.
"""

import copy
import ctypes
import functools
import inspect
import linecache
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PASSED, NOT_ATTEMPTED, FAILED = "passed", "not attempted", "not yet"
TIME_LIMIT = 5.0  # seconds for one case; a correct answer needs milliseconds


@dataclass(frozen=True)
class Case:
    """One call of the learner's function: positional ``args``, the ``expected`` value, and ``about``, a few
    words that describe the case (shown only if it fails)."""

    args: tuple
    expected: Any
    about: str = ""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of a check. True in a boolean context only if every case passed."""

    name: str
    status: str
    message: str
    cases: int = 0

    def __bool__(self) -> bool:
        return self.status == PASSED

    def __repr__(self) -> str:
        head = f"{self.name}: {self.status.upper()}"
        return f"{head} - {self.message}" if "\n" not in self.message else f"{head}\n{self.message}"


def drawn_cases(
    reference: Callable, draw: Callable, about: str, count: int = 4, seed: int = 2018
) -> list[Case]:
    """``count`` random cases: arguments from ``draw(rng)``, expected values from ``reference``."""
    rng = np.random.default_rng(seed)
    return [Case(args, reference(*args), about) for args in (draw(rng) for _ in range(count))]


def run_check(
    answer: Callable, cases: Sequence[Case], *, name: str | None = None, tolerance: float = 1e-6
) -> CheckResult:
    """Call ``answer`` on a copy of each case's arguments and compare with the expected value.

    Numbers and arrays agree within ``tolerance`` (absolute, and relative for large values); array
    shapes must be equal; sets, strings and tuples of them must be equal. The arguments must be left
    as they are.
    """
    name = name or getattr(answer, "__name__", "answer")
    if not callable(answer):
        return CheckResult(
            name, FAILED, "give the check your function itself, without calling it.", len(cases)
        )
    for number, case in enumerate(cases, start=1):
        args = copy.deepcopy(case.args)
        got = _call(answer, args)
        if isinstance(got, _Raised) and isinstance(got.error, NotImplementedError):
            return CheckResult(
                name,
                NOT_ATTEMPTED,
                "replace the `raise NotImplementedError` line by your own and run both cells again.",
                len(cases),
            )
        reason = difference(case.expected, got, tolerance)
        if not reason and not _same(case.args, args):
            reason = "your function changed its input"
        if reason:
            return CheckResult(
                name, FAILED, _describe(answer, case, number, len(cases), got, reason), len(cases)
            )
    return CheckResult(name, PASSED, f"all {len(cases)} cases agree.", len(cases))


def check(cases: Callable[[], Sequence[Case]]) -> Callable[[Callable], CheckResult]:
    """The check of an exercise, from a function that returns its cases: ``check_nms`` checks an answer ``nms``."""
    name = cases.__name__.removeprefix("check_")

    @functools.wraps(cases)
    def run(answer: Callable) -> CheckResult:
        return run_check(answer, cases(), name=name)

    del run.__wrapped__  # it has another signature
    return run


class _Stopped(BaseException):
    """Raised inside a learner's function that takes too long. `except Exception` does not catch it."""


class _Raised:
    """The result of a call that raised."""

    def __init__(self, error: BaseException, answer: Callable):
        self.error = error
        self.stopped = isinstance(error, _Stopped)
        line = _line_of(error, answer)
        said = (
            f"stopped after {TIME_LIMIT:g} seconds"
            if self.stopped
            else (f"{type(error).__name__}: {error}")
        )
        self.text = f"{said}\n{line}" if line else said


def _let_others_run(*_event: Any) -> Callable:
    """A trace function that does nothing. Python 3.10 runs a loop that begins with ``try`` without ever letting another
    thread have its turn, not even for Ctrl-C; a trace function is such a turn."""
    return _let_others_run


def _call(answer: Callable, args: tuple) -> Any:
    """``answer(*args)`` in its own thread; a :class:`_Raised` if it raises or takes too long."""
    outcome: list[Any] = []

    def target():
        if sys.version_info < (3, 11):
            sys.settrace(_let_others_run)
        try:
            outcome.append(answer(*args))
        except BaseException as error:  # the learner's function may raise anything
            outcome.append(_Raised(error, answer))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    for _ in range(20):  # a bare `except:` may swallow the first ones
        if not thread.is_alive():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_Stopped)
        )
        thread.join(0.1)
    return outcome[0] if outcome else _Raised(_Stopped(), answer)


def _line_of(error: BaseException, answer: Callable) -> str:
    """``in line 3 of your cell: return x / 0``: the innermost line of the learner's code, or ""."""
    own = getattr(getattr(inspect.unwrap(answer), "__code__", None), "co_filename", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    if not frames:
        return ""
    source = linecache.getline(own, frames[-1].lineno).strip()
    return f"in line {frames[-1].lineno} of your cell" + (f": {source}" if source else "")


def difference(expected: Any, got: Any, tolerance: float = 1e-6) -> str:
    """How ``got`` differs from ``expected``, in a few words; an empty string if it does not."""
    if isinstance(got, _Raised):
        return "your function does not end" if got.stopped else "your function raised an error"
    if got is None and expected is not None:
        return "your function returned None (is the `return` missing?)"
    if isinstance(expected, str):
        return "" if isinstance(got, str) and got == expected else "a different answer"
    if isinstance(expected, (set, frozenset)):
        return _set_difference(expected, got)
    if isinstance(expected, dict):
        if not isinstance(got, dict) or set(got) != set(expected):
            return f"expected a dict with the keys {sorted(expected)}"
        reasons = (difference(expected[key], got[key], tolerance) for key in expected)
        return next((reason for reason in reasons if reason), "")
    if isinstance(expected, (list, tuple)) and any(_is_nested(item) for item in expected):
        if not isinstance(got, (list, tuple)) or len(got) != len(expected):
            return f"expected {len(expected)} items"
        reasons = (difference(one, other, tolerance) for one, other in zip(expected, got))
        return next((reason for reason in reasons if reason), "")
    return _array_difference(expected, got, tolerance)


def _same(one: Any, other: Any) -> bool:
    """Whether two arguments are equal, with all that they hold."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        equal_nan = one.dtype.kind in "fc"
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=equal_nan)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return set(one) == set(other) and all(_same(one[key], other[key]) for key in one)
    return bool(one == other or one != one)


def _is_nested(item: Any) -> bool:
    return isinstance(item, (str, tuple, list, dict, set)) or (
        isinstance(item, np.ndarray) and item.ndim > 0
    )


def _set_difference(expected: set, got: Any) -> str:
    try:
        items = [
            tuple(int(v) for v in item)
            if isinstance(item, (tuple, list, np.ndarray))
            else item
            if isinstance(item, str)
            else int(item)
            for item in got
        ]
    except (TypeError, ValueError):
        return "expected a set"
    missing, extra = expected - set(items), set(items) - expected
    parts = [f"missing {sorted(missing, key=str)}"] * bool(missing) + [
        f"too many: {sorted(extra, key=str)}"
    ] * bool(extra)
    if not parts and len(items) > len(expected):
        return "an id or pair occurs twice"
    return ", ".join(parts)


def _array_difference(expected: Any, got: Any, tolerance: float) -> str:
    expected = np.asarray(expected)
    try:
        got = np.asarray(got)
    except ValueError:  # lists of unequal lengths
        return "expected numbers"
    if got.dtype.kind not in "biuf" and got.size:
        return "expected numbers"
    if got.shape != expected.shape:
        return f"expected the shape {expected.shape}, got the shape {got.shape}"
    if got.size == 0 or np.allclose(
        got.astype(float), expected.astype(float), rtol=tolerance, atol=tolerance
    ):
        return ""
    return "different numbers"


def _describe(answer, case: Case, number: int, total: int, got: Any, reason: str) -> str:
    try:
        names = list(inspect.signature(answer).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i + 1}" for i in range(len(names), len(case.args))]
    lines = [
        f"case {number} of {total}" + (f", {case.about}" if case.about else "") + f": {reason}."
    ]
    for name, value in zip(names, case.args):
        lines.append(_labelled(f"input {name}", show(value)))
    lines.append(_labelled("expected", show(case.expected)))
    lines.append(_labelled("got", got.text if isinstance(got, _Raised) else show(got)))
    return textwrap.indent("\n".join(lines), "  ")


def _labelled(label: str, text: str) -> str:
    if "\n" in text:
        return f"{label} =\n" + textwrap.indent(text, "    ")
    return f"{label} = {text}"


def show(value: Any) -> str:
    """A value as short, readable text: arrays without their constructor, four decimals, large ones cut."""
    if isinstance(value, np.ndarray):
        if value.dtype == bool and value.ndim == 2 and value.size <= 400:
            return "\n".join("".join("#" if cell else "." for cell in row) for row in value)
        return np.array2string(
            value, precision=4, suppress_small=True, separator=", ", threshold=60
        )
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, np.generic):
        return str(value.item())
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, np.ndarray) and item.ndim > 1 for item in value):
            return "\n".join(show(item) for item in value)
        inner = ", ".join(show(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, (set, frozenset)):
        try:
            items = sorted(value)
        except TypeError:  # mixed types
            items = sorted(value, key=repr)
        return "{" + ", ".join(show(item) for item in items) + "}" if value else "set()"
    return repr(value)
