"""How an exercise is checked: run the learner's function on cases, report the first that fails.

A check never raises because of the learner's code. It returns a :class:`CheckResult` whose printed
form is the feedback, so that a notebook cell ending in ``check_nms(nms)`` shows one of

* ``passed``: every case gave the expected value,
* ``not attempted``: the stub is still in place (it raises ``NotImplementedError``),
* ``not yet``: the first failing case, with its input, what was expected and what came back.
"""

import copy
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PASSED, NOT_ATTEMPTED, FAILED = "passed", "not attempted", "not yet"


@dataclass(frozen=True)
class Case:
    """One question to the learner's function: positional ``args``, the ``expected`` value, and
    ``about``, a few words that say what the case is for (shown only when it fails)."""

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


def run_check(
    answer: Callable, cases: Sequence[Case], *, name: str | None = None, tolerance: float = 1e-6
) -> CheckResult:
    """Call ``answer`` on a copy of each case's arguments and compare with the expected value.

    Numbers and arrays agree within ``tolerance`` (absolute, and relative for large values); array
    shapes must be equal; sets, strings and tuples of them must be equal.
    """
    name = name or getattr(answer, "__name__", "answer")
    if not callable(answer):
        return CheckResult(
            name, FAILED, "give the check your function itself, without calling it.", len(cases)
        )
    for number, case in enumerate(cases, start=1):
        try:
            got = answer(*copy.deepcopy(case.args))
        except NotImplementedError:
            return CheckResult(
                name,
                NOT_ATTEMPTED,
                "replace the `raise NotImplementedError` line by your own and run both cells again.",
                len(cases),
            )
        except Exception as error:  # the learner's function may raise anything at all
            got = _Raised(error)
        reason = difference(case.expected, got, tolerance)
        if reason:
            return CheckResult(
                name, FAILED, _describe(answer, case, number, len(cases), got, reason), len(cases)
            )
    return CheckResult(name, PASSED, f"all {len(cases)} cases agree.", len(cases))


class _Raised:
    """Stands for the value of a call that raised."""

    def __init__(self, error: Exception):
        self.text = f"{type(error).__name__}: {error}"


def difference(expected: Any, got: Any, tolerance: float = 1e-6) -> str:
    """Say in a few words how ``got`` differs from ``expected``; an empty string if it does not."""
    if isinstance(got, _Raised):
        return "your function raised an error"
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


def _is_nested(item: Any) -> bool:
    return isinstance(item, (str, tuple, list, dict, set)) or (
        isinstance(item, np.ndarray) and item.ndim > 0
    )


def _set_difference(expected: set, got: Any) -> str:
    try:
        got = {
            tuple(int(v) for v in item)
            if isinstance(item, (tuple, list, np.ndarray))
            else int(item)
            for item in got
        }
    except (TypeError, ValueError):
        return "expected a set"
    missing, extra = expected - got, got - expected
    parts = [f"missing {sorted(missing)}"] * bool(missing) + [f"too many: {sorted(extra)}"] * bool(
        extra
    )
    return ", ".join(parts)


def _array_difference(expected: Any, got: Any, tolerance: float) -> str:
    expected = np.asarray(expected)
    try:
        got = np.asarray(got)
        numeric = np.issubdtype(got.dtype, np.number) or got.dtype == bool
    except ValueError:
        numeric = False
    if not numeric and got.size:
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
        return "{" + ", ".join(show(item) for item in sorted(value)) + "}" if value else "set()"
    return repr(value)
