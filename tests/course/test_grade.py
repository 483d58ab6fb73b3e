"""Grading: every exercise of a learner's notebook is run in a fresh kernel, and the right outcome reported."""

import csv
import importlib.util
import io
from pathlib import Path

import nbformat
import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.course import grade

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("builder", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_only_definitions_are_kept():
    source = "import os\nN = 3\ndata = load()\ndef f(x):\n    return x + N\nprint(f(1))\n"
    kept = [line for line in grade.definitions(source).splitlines() if line]
    assert kept == ["import os", "N = 3", "def f(x):", "    return x + N"]
    assert grade.definitions("%matplotlib inline") == "" == grade.definitions("x = = 3")


def test_of_other_cells_only_what_the_exercises_use_is_run():
    cells = [
        "import numpy as np\nimport keras\nmodel = keras.Model()",
        "SIDE = 4\nUNUSED = 5\nfrom math import pi as turn, sin",
        "def area(x):\n    return np.pi * x * SIDE * half(x)",
        "def half(x):\n    return x * turn\ndef other(x):\n    return keras",
        "def answer(x):\n    return area(x)\nprint(answer(1))",
    ]
    assert [cell.replace("\n", ";") for cell in grade.to_run(cells, {4})] == [
        "import numpy as np",
        "SIDE = 4;from math import pi as turn, sin",
        "def area(x):;    return np.pi * x * SIDE * half(x)",
        "def half(x):;    return x * turn",
        cells[4].replace("\n", ";"),
    ]


def test_every_exercise_of_the_course_is_found_with_its_number(builder):
    from nucleus_course.course import exercises

    found = {}
    for name in builder.names():
        of_notebook = grade.exercises_of(builder.build(name, "exercise"))
        assert all(number.startswith(f"{int(name[:2])}.") for number in of_notebook.values())
        found |= of_notebook
    assert set(found) == {
        n.removeprefix("check_") for n in exercises.__all__ if n.startswith("check_")
    }


def test_csv_holds_no_formula():
    text = grade.to_csv([grade.Grade("=cmd()", "0.3", "f", "failed", 'case 1, "quoted"')])
    assert list(csv.reader(io.StringIO(text)))[1] == [
        "'=cmd()",
        "0.3",
        "f",
        "failed",
        'case 1, "quoted"',
    ]


def test_a_folder_without_notebooks_and_a_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no notebooks"):
        grade.grade(tmp_path)
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UserError, match="not a notebook"):
        grade.grade(tmp_path)


ANSWERS = {
    "flip_boxes": "def flip_boxes(boxes, width):\n    return boxes / 0",
    "touching_pairs": "def touching_pairs(labels):\n    while True:\n        pass",
}


@pytest.mark.slow
def test_a_class_of_four(builder, tmp_path):
    """A perfect learner, one who did nothing, one with an error and an endless loop, one who broke a cell."""
    perfect = builder.build("01_inspect_the_data", "solution")
    nothing = builder.build("01_inspect_the_data", "exercise")
    wrong, broken = (builder.build("01_inspect_the_data", "exercise") for _ in range(2))
    for cell in wrong.cells:
        for name, answer in ANSWERS.items():
            if cell.source.startswith(f"def {name}"):
                cell.source = answer
    for cell in broken.cells:
        if cell.source.startswith("def recall_under_cap"):
            cell.source = "def recall_under_cap(counts, cap)\n    return 1"
    for name, notebook in {"a": perfect, "b": nothing, "c": wrong, "d": broken}.items():
        (tmp_path / name).mkdir()
        nbformat.write(notebook, tmp_path / name / "01.ipynb")
    grades = {(one.notebook[0], one.function): one for one in grade.grade(tmp_path, seconds=60)}
    assert len(grades) == 12
    assert {
        grades["a", f].result for f in ("touching_pairs", "flip_boxes", "recall_under_cap")
    } == {"passed"}
    assert all(one.result == "not attempted" for key, one in grades.items() if key[0] == "b")
    assert grades["c", "flip_boxes"].result == grades["c", "touching_pairs"].result == "failed"
    assert "expected" in grades["c", "flip_boxes"].detail
    assert "does not end" in grades["c", "touching_pairs"].detail
    assert grades["c", "recall_under_cap"].result == "not attempted"
    assert grades["d", "recall_under_cap"].result == "missing"
    assert "SyntaxError" in grades["d", "recall_under_cap"].detail
    assert grades["a", "flip_boxes"].exercise == "1.4"
