"""Grading: every exercise of a learner's notebook is run in a fresh kernel, and the right outcome reported."""

import ast
import csv
import importlib.util
import io
from pathlib import Path

import nbformat
import pytest
from terminal import one_line_error, plain, run, table

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


@pytest.mark.parametrize(
    "line",
    [
        "SIDES = [LEFT, RIGHT]",
        "SIDE = 2 ** 5",
        "TURN = np.pi / 2",
        "NAMES = {f'{LEFT} side': LEFT, **{'other': RIGHT}}",
        "FIRST, *REST = (LEFT, RIGHT)[:1] if LEFT else ()",
        "BOTH: bool = not LEFT and RIGHT > -1",
        "LEFT += RIGHT",
        "TABLE[LEFT] = int",
        "EMPTY = set()",
        "half = lambda x: scaled(x) / 2",
    ],
)
def test_a_constant_may_be_made_of_others(line):
    cell = f"import numpy as np\nLEFT, RIGHT = (0, 1)\nTABLE = {{}}\n{line}"
    assert grade.definitions(cell) == ast.unparse(ast.parse(cell))


@pytest.mark.parametrize(
    "lines",
    [
        "SIDES = list((LEFT, 2))",
        "MORE = data + LEFT",
        "SHAPE = data.shape",
        "data[0] = LEFT",
        "LEFT += data",
        "(LEFT := data)",
        "TABLE['a'] = load()\nFIRST = TABLE['a']",
        "N = LEFT\nN = load()\nMORE = N + 1",
    ],
)
def test_what_is_made_of_anything_else_is_no_constant(lines):
    before = "LEFT = 1\nTABLE = {}"
    kept = grade.definitions(f"{before}\ndata = load()\n{lines}").splitlines()
    assert [line for line in kept if line != "N = LEFT"] == before.splitlines()


def test_a_constant_may_use_a_name_of_an_exercise_s_cell():
    cells = ["SIDE = int(4)\ndef answer(x):\n    return x", "AREA = SIDE ** 2\nB = other", "AREA"]
    assert grade.to_run(cells, {0, 2}) == [cells[0], "AREA = SIDE ** 2", cells[2]]


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


def write(path, *cells):
    """A notebook of cells: text that begins with ** is Markdown, all else code."""
    new = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    made = [new[not cell.startswith("**")](cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)


NO_EXERCISES = "no exercises recognised: the headings were changed"
DENSITY = """\
def density(count, height, width, side):
    return count / (height * width * side**2) * SQUARE

exercises.check_density(density)"""
RECALL = """\
def recall_under_cap(counts, cap):
    print(".", end=" ")
    return np.minimum(counts, cap).sum() / counts.sum()"""
WARMUP = """\
def warmup_cosine(step, total, warmup, peak):
    if step < warmup:
        return peak * step / warmup
    return peak * np.cos(QUARTER * (step - warmup) / (total - warmup)) ** POWERS[-1]"""


def test_a_right_answer_passes_whatever_else_its_notebook_does(tmp_path):
    """It prints, its cell calls the check, it uses constants made of others; one exercise has lost its heading."""
    write(
        tmp_path / "a.ipynb",
        "import numpy as np\nfrom nucleus_course.course import exercises\nMICRO = 10**3",
        "exercises.check_measure(measure)",
        "**Exercise 1.1: implement it.**",
        "ONE = 1\nPOWERS = [ONE, ONE + 1]\nQUARTER = np.pi / 2\nSQUARE = MICRO ** POWERS[1]",
        DENSITY,
        "**Exercise 1.2: implement it.**",
        RECALL,
        "exercises.check_recall_under_cap(recall_under_cap)",
        "**Exercise 1.3: implement it.**",
        WARMUP,
    )
    assert grade.grade(tmp_path) == [
        grade.Grade(
            "a.ipynb", "", "measure", "missing", "not recognised: the headings were changed"
        ),
        grade.Grade("a.ipynb", "1.1", "density", "passed"),
        grade.Grade("a.ipynb", "1.2", "recall_under_cap", "passed"),
        grade.Grade("a.ipynb", "1.3", "warmup_cosine", "passed"),
    ]


def test_without_notebooks_and_with_a_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no notebooks"):
        grade.grade(tmp_path)
    (tmp_path / "answers.txt").write_text("{")
    with pytest.raises(UserError, match=r"answers.txt is not a notebook .*: give .ipynb files"):
        grade.grade(tmp_path / "answers.txt")


def test_a_notebook_that_cannot_be_graded_has_a_row_and_the_others_are_read(tmp_path):
    (tmp_path / "a.ipynb").write_text("")
    (tmp_path / "b.ipynb").write_text("[]")
    write(tmp_path / "c.ipynb", "**Task 1**", DENSITY)
    write(tmp_path / "d.ipynb")
    assert grade.grade(tmp_path) == [
        grade.Grade("a.ipynb", "", "", "failed", "not a notebook (NotJSONError)"),
        grade.Grade("b.ipynb", "", "", "failed", "not a notebook (AttributeError)"),
        grade.Grade("c.ipynb", "", "", "missing", NO_EXERCISES),
        grade.Grade("d.ipynb", "", "", "missing", NO_EXERCISES),
    ]


def test_the_command_names_what_it_could_not_grade(tmp_path):
    (tmp_path / "a.ipynb").write_text("")
    write(tmp_path / "b.ipynb", "**Task 1**", DENSITY)
    result = run("grade", tmp_path, "--out", tmp_path / "grades.csv")
    assert result.exit_code == 1
    assert [row["result"] for row in table(tmp_path / "grades.csv")] == ["failed", "missing"]
    lines = plain(result.stderr).splitlines()
    assert "a.ipynb: not a notebook (NotJSONError)" in lines
    assert f"b.ipynb: {NO_EXERCISES}" in lines
    assert "(0 exercises)" in result.stdout


def test_a_folder_as_the_table_is_refused_before_any_notebook_runs(tmp_path):
    write(tmp_path / "a.ipynb", "**Exercise 1.1: implement it.**", DENSITY)
    result = run("grade", tmp_path, "--out", tmp_path)
    one_line_error(result, "is a folder", str(tmp_path / "grades.csv"))
    assert "running" not in result.stderr


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
