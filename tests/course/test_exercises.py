"""The exercises' checks: they accept the notebooks' solutions and refuse typical wrong answers."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nucleus_course.course import exercises
from nucleus_course.course.exercises import checks
from nucleus_course.course.exercises.checks import (
    FAILED,
    NOT_ATTEMPTED,
    PASSED,
    Case,
    run_check,
    show,
)

ROOT = Path(__file__).resolve().parents[2]


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MUTANTS, WRONG_ANSWERS, WRONG_ANSWERS_2, SUBTLE_ANSWERS = (
    load(Path(__file__).with_name(f"{name}.py"), name)
    for name in ("mutants", "wrong_answers", "wrong_answers_2", "subtle_answers")
)
CHECKS, WRONG, SUBTLE = (
    MUTANTS.CHECKS,
    WRONG_ANSWERS.WRONG | WRONG_ANSWERS_2.WRONG,
    SUBTLE_ANSWERS.SUBTLE,
)
BUILDER, SOURCES = MUTANTS.load_builder(), MUTANTS.solution_sources()


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
    assert all(len(answers) >= 3 for answers in WRONG.values())


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
    [(name, answer) for found in (WRONG, SUBTLE) for name in found for answer in found[name]],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_wrong_answer_fails_with_its_case(name, answer):
    result = CHECKS[name](answer)
    assert result.status == FAILED, f"{answer.__name__} slipped through"
    text = repr(result)
    for word in ("case", "input", "expected", "got"):
        assert word in text
    assert name in WRONG and (answer in WRONG[name] or "raised" not in text), "wrong for its reason"


# What differs is how a mutant is written down: Python 3.10's ast.unparse has other brackets.
texts_of_today = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="mutants are listed by their text from Python 3.11 on"
)


@texts_of_today
@pytest.mark.parametrize("name", sorted(SOURCES))
def test_no_mutant_of_the_solution_survives(name, monkeypatch):
    """At least ten of each family are killed, and the guide's table gives the right numbers."""
    monkeypatch.setattr(checks, "TIME_LIMIT", 0.5)
    cells, alive = MUTANTS.row(name, SOURCES[name])
    assert alive == [] and cells[2] >= 10 and cells[5] >= 10
    guide = (ROOT / "docs" / "instructor.md").read_text(encoding="utf-8")
    assert MUTANTS.line(name, cells) in guide


@texts_of_today
def test_every_mutant_called_equal_exists():
    lines = {(name, line) for name in SOURCES for _, line in MUTANTS.mutants(SOURCES[name])}
    assert set(MUTANTS.EQUAL) <= lines
    labels = {(n, label) for n in SOURCES for label, _ in MUTANTS.alterations(n, SOURCES[n])}
    assert set(MUTANTS.altered.EQUAL) <= labels


@pytest.mark.parametrize(
    "odd", [{1, "a"}, {(1, 2), (1, "a")}, [[1], [2, 3]], b"x", object(), np.array(["a"]), {1: {2}}]
)
@pytest.mark.parametrize("name", ["leaked", "flip_boxes", "measure", "classify_detection"])
def test_no_answer_breaks_a_check(name, odd):
    assert CHECKS[name](lambda *args: odd).status == FAILED


def test_an_error_shows_the_learner_s_own_line(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text(
        "def helper(x):\n    return x.nothing\n\ndef f(x):\n    y = helper(x)\n    return y\n"
    )
    module = load(path, "cell")
    text = repr(run_check(module.f, [Case((2,), 4)], name="f"))
    assert "in line 2 of your cell: return x.nothing" in text and "AttributeError" in text
    text = repr(run_check(lambda x: np.stack([]), [Case((2,), 4)], name="f"))
    assert "your cell: text = repr(run_check(lambda x: np.stack([])" in text, "not NumPy's line"


def forever(x):
    while True:
        x += 1


def forever_and_deaf(x):
    while True:
        try:
            x += 1
        except:  # noqa: E722
            if x < 0:
                break


deaf = pytest.param(
    forever_and_deaf,
    marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 may never stop it"),
)


@pytest.mark.parametrize("answer", [forever, deaf, lambda x: time.sleep(60)])
def test_an_endless_loop_is_stopped_and_said(answer, monkeypatch):
    monkeypatch.setattr(checks, "TIME_LIMIT", 0.2)
    result = run_check(answer, [Case((2,), 4)], name="f")
    assert result.status == FAILED
    assert "does not end" in repr(result) and "stopped after 0.2 seconds" in repr(result)
    if answer is forever:
        assert "of your cell:" in repr(result)


def test_leaving_python_is_an_error_like_any_other():
    assert run_check(lambda x: sys.exit(), [Case((2,), 4)], name="f").status == FAILED


@pytest.mark.parametrize("name", BUILDER.names())
def test_every_exercise_to_implement_has_a_hint_that_folds(name):
    for cell in BUILDER.parse((BUILDER.SOURCES / f"{name}.py").read_text(encoding="utf-8")):
        if ": implement it.**" in cell["source"]:
            assert "<details><summary>Hint</summary>" in cell["source"], cell["source"][:200]


def test_random_cases_of_pasting_do_not_hang_on_a_rounding():
    """No drawn probability lies so near 0.5 that float32 and float64 could disagree."""
    seen = []

    def answer(probs, box, height, width):
        from nucleus_course.course.numbers import sample_bilinear

        size, (y1, x1, y2, x2) = len(probs), (float(v) for v in box)
        row, column = np.arange(height) + 0.5, np.arange(width) + 0.5
        row, column = row[(row >= y1) & (row < y2)], column[(column >= x1) & (column < x2)]
        y, x = (row - y1) * size / (y2 - y1), (column - x1) * size / (x2 - x1)
        seen.append(np.abs(sample_bilinear(probs, y, x) - 0.5).min(initial=1.0))
        return SOLUTIONS["paste_mask"][0](probs, box, height, width)

    assert exercises.check_paste_mask(answer)
    assert min(margin for margin in seen if margin) > 1e-4


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


@pytest.mark.parametrize(
    "value, change",
    [
        (np.array([1.0, np.nan]), lambda a: a.fill(0)),
        (np.array([[1, 2]]), lambda a: setattr(a, "shape", (2, 1))),
        ([np.array([1.0]), "a"], lambda a: a[0].fill(0)),
        ([np.array([1.0]), "a"], list.pop),
        ([np.array([1.0]), "a"], lambda a: a.__setitem__(0, None)),
        ({"a": [1], "b": np.nan}, lambda a: a["a"].append(2)),
        ({"a": [1], "b": np.nan}, lambda a: a.pop("b")),
    ],
)
def test_the_input_must_stay_as_it_is(value, change):
    text = repr(run_check(lambda a: [change(a), 3][1], [Case((value,), 3)], name="f"))
    assert "your function changed its input" in text
    assert run_check(lambda a: 3, [Case((value,), 3)]).status == PASSED


def test_shapes_kinds_and_sets_are_compared():
    def status(expected, got):
        return run_check(lambda: got, [Case((), expected)]).status

    assert status(np.zeros((0, 4)), np.zeros((0, 4))) == PASSED
    assert status(np.zeros((0, 4)), np.zeros(0)) == FAILED
    assert status(1.0, np.float32(1.0)) == PASSED
    assert status(1.0, "1") == FAILED
    assert status({(1, 2)}, [(np.int64(1), np.int64(2))]) == PASSED
    assert status({1}, {1, 2}) == FAILED
    assert status({1}, [1, 1]) == status({"a"}, ("a", "a")) == FAILED
    assert status({(1, 2)}, np.array([[1, 2], [1, 2]])) == FAILED
    text = repr(run_check(lambda: [1, 1], [Case((), {1})]))
    assert "an id or pair occurs twice" in text
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
