"""The exercises' checks: they accept the notebooks' solutions and refuse typical wrong answers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from nucleus_course.course import exercises
from nucleus_course.course.exercises.checks import (
    FAILED,
    NOT_ATTEMPTED,
    PASSED,
    Case,
    run_check,
    show,
)

ROOT = Path(__file__).resolve().parents[2]
CHECKS = {
    name.removeprefix("check_"): getattr(exercises, name)
    for name in exercises.__all__
    if name.startswith("check_")
}


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILDER = load(ROOT / "notebooks" / "build.py", "notebook_builder")
WRONG = load(Path(__file__).with_name("wrong_answers.py"), "wrong_answers").WRONG


def solutions():
    """Every function that a notebook's solution defines: name -> (solution, stub)."""
    found = {}
    for name in BUILDER.names():
        for cell in BUILDER.parse((BUILDER.SOURCES / f"{name}.py").read_text(encoding="utf-8")):
            if cell["kind"] == "code" and BUILDER.has_solution(cell["source"]):
                spaces = []
                for source in (BUILDER.keep_solution(cell["source"]), BUILDER.stub(cell["source"])):
                    space = {"np": np}
                    exec(source, space)  # the course's own text
                    spaces.append(space)
                for key, value in spaces[0].items():
                    if (
                        callable(value)
                        and getattr(value, "__module__", "") != "numpy"
                        and key in CHECKS
                    ):
                        found[key] = (value, spaces[1][key])
    return found


SOLUTIONS = solutions()


def test_every_check_has_a_solution_and_three_wrong_answers():
    assert set(SOLUTIONS) == set(CHECKS) == set(WRONG)
    assert all(len(answers) == 3 for answers in WRONG.values())


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_solution_passes(name):
    result = CHECKS[name](SOLUTIONS[name][0])
    assert result.status == PASSED, result
    assert bool(result) and "PASSED" in repr(result)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_the_stub_is_not_attempted(name):
    result = CHECKS[name](SOLUTIONS[name][1])
    assert result.status == NOT_ATTEMPTED and not result
    assert "NOT ATTEMPTED" in repr(result)


@pytest.mark.parametrize(
    "name, answer",
    [(name, answer) for name in WRONG for answer in WRONG[name]],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_answer_fails_with_its_case(name, answer):
    result = CHECKS[name](answer)
    assert result.status == FAILED, f"{answer.__name__} slipped through"
    text = repr(result)
    for word in ("case", "input", "expected", "got"):
        assert word in text


def test_a_missing_return_and_an_error_are_explained():
    cases = [Case((2,), 4, "twice two")]
    assert "is the `return` missing" in repr(run_check(lambda x: None, cases, name="f"))
    text = repr(run_check(lambda x: x / 0, cases, name="f"))
    assert "ZeroDivisionError" in text and "twice two" in text
    assert "without calling" in repr(run_check(4, cases, name="f"))


def test_the_learner_cannot_spoil_the_cases():
    def greedy(values):
        values[:] = 0
        return values

    array = np.array([1.0, 2.0])
    case = Case((array,), np.array([1.0, 2.0]))
    assert run_check(greedy, [case]).status == FAILED
    assert array.tolist() == [1.0, 2.0]


def test_shapes_kinds_and_sets_are_compared():
    def status(expected, got):
        return run_check(lambda: got, [Case((), expected)]).status

    assert status(np.zeros((0, 4)), np.zeros((0, 4))) == PASSED
    assert status(np.zeros((0, 4)), np.zeros(0)) == FAILED
    assert status(1.0, np.float32(1.0)) == PASSED
    assert status(1.0, "1") == FAILED
    assert status({(1, 2)}, [(np.int64(1), np.int64(2))]) == PASSED
    assert status({1}, {1, 2}) == FAILED
    assert status("matched", "duplicate") == FAILED
    assert status((1, 2), np.array([1, 2])) == PASSED
    assert status({"a": 1}, {"a": 2}) == FAILED
    assert status(np.nan, np.nan) == FAILED


def test_values_are_shown_short():
    assert show(np.array([[True, False]])) == "#."
    assert show({(1, 2)}) == "{(1, 2)}"
    assert show(np.float64(0.5)) == "0.5"
    assert len(show(np.zeros((100, 100)))) < 500


def test_importing_the_exercises_loads_no_backend():
    import subprocess

    code = "import sys, nucleus_course.course.exercises, nucleus_course.course.setup; print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
