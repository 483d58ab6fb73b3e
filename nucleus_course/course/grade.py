"""Check learners' notebooks: every exercise, in a fresh kernel, with time limits, as a table.

Only the cells of the exercises run, and the definitions that they use from other cells: imports, functions, classes,
constants. Training and prediction do not run, so a notebook takes seconds. A kernel is a separate process in an empty
folder with limits on time and memory, but it is not a sandbox: grade strangers' notebooks in a container without network.
"""

import ast
import builtins
import csv
import io
import json
import re
import tempfile
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course.course import exercises

PASSED, NOT_ATTEMPTED, FAILED, MISSING = "passed", "not attempted", "failed", "missing"
NUMBER = re.compile(r"\*\*Exercise (\d+\.\d+): implement it")
CHECK = re.compile(r"\bcheck_(\w+)\(\s*\w*\s*\)")
MEMORY_GIB = 4
MARK = "nucleus-course-grade:"
PREAMBLE = f"""\
import json as _json, warnings as _warnings
_warnings.simplefilter("ignore")
try:
    import resource as _resource
    _resource.setrlimit(_resource.RLIMIT_DATA, ({MEMORY_GIB} * 2**30,) * 2)
except (ImportError, ValueError, OSError):
    pass
import numpy as np
from nucleus_course.course import exercises as _exercises
_checks = dict(vars(_exercises))
"""
# Compared with None, because a result is false unless every case passed. The mark gets its own line, in one piece:
# an answer may print without ending the line.
GRADE = """\
_result = _checks["check_{name}"]({name}) if "{name}" in globals() else None
_said = [None, None] if _result is None else [_result.status, repr(_result)]
print("\\n{mark}" + _json.dumps(["{name}", *_said]) + "\\n", end="")
"""
# What a constant may be made of: everything but calls, and what hides them.
PLAIN = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Starred),
    *(ast.List, ast.Tuple, ast.Set, ast.Dict, ast.JoinedStr, ast.FormattedValue, ast.IfExp),
    *(ast.UnaryOp, ast.BinOp, ast.BoolOp, ast.Compare),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
CHANGED = "the headings were changed"


class NotANotebook(UserError):
    """A file that cannot be read as a notebook."""


@dataclass(frozen=True)
class Grade:
    """One exercise of one notebook.

    Attributes:
        notebook: path relative to the folder; exercise: its number, such as "2.4"; function: its name. Without a number
            the row says what is wrong with the notebook.
        result: "passed", "not attempted", "failed" or "missing" (no such function, or its cell raises).
        detail: the failing case or the error, on one line.
    """

    notebook: str
    exercise: str
    function: str
    result: str
    detail: str = ""


def definitions(source: str) -> str:
    """The imports, functions, classes and constants of a cell; empty for a cell that is not Python."""
    return _text(_definitions([source], set())[0])


def to_run(cells: list[str], exercise_cells: set[int]) -> list[str]:
    """Cells as they run for a grade: those of exercises whole, of others the definitions needed, also indirectly."""
    needed = [node for index in exercise_cells for node in _statements(cells[index])]
    known = _definitions(cells, exercise_cells)
    used: set[str] = {"*"}
    while needed:
        used |= _names(needed)
        needed = [
            node
            for nodes in known
            for node in nodes
            if _bound(node) & used and not _names([node]) <= used
        ]
    return [
        cell
        if index in exercise_cells
        else _text([node for node in known[index] if _bound(node) & used])
        for index, cell in enumerate(cells)
    ]


def _text(nodes: list[ast.stmt]) -> str:
    return "\n".join(ast.unparse(node) for node in nodes)


def _definitions(cells: list[str], whole: set[int]) -> list[list[ast.stmt]]:
    """The definitions of each cell. Cells that run ``whole`` have none, but constants may use their names."""
    names, found = {*dir(builtins)}, []
    for index, cell in enumerate(cells):
        found.append([])
        for node in _statements(cell):
            if index in whole:
                names |= _bound(node)
            elif _defines(node, names):
                found[-1].append(node)
                names |= _bound(node)
            else:  # these names have other values than in the notebook, or none
                names -= _bound(node)
    return found


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def _names(nodes) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement binds, or changes by assignment."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(one.asname or one.name).split(".")[0] for one in node.names}
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    names = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    return _names(_targets(node)) | {one.id for one in names if isinstance(one.ctx, ast.Store)}


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, (ast.AnnAssign, ast.AugAssign)) else []


def _defines(node: ast.stmt, names: set[str]) -> bool:
    """Whether a statement only defines: an import, a function, a class, or a constant made from ``names``."""
    if isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
        return True
    value = getattr(node, "value", None)
    if not _targets(node) or value is None:
        return False
    runs = not (isinstance(value, ast.Lambda) or ast.unparse(value) == "set()")
    parts = [part for one in [value] * runs + _targets(node) for part in ast.walk(one)]
    used = {
        one.id
        for one in parts
        if isinstance(one, ast.Name)
        and (isinstance(one.ctx, ast.Load) or isinstance(node, ast.AugAssign))
    }
    return used <= names and all(isinstance(one, PLAIN) for one in parts)


def exercises_of(notebook) -> dict[str, str]:
    """{function: number} of a notebook's exercises, in order; no number where no heading comes before the check."""
    found, number = {}, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            number = (NUMBER.findall(cell.source) or [number])[-1]
        elif cell.cell_type == "code":
            for name in CHECK.findall(cell.source) + (_functions(cell) if number else []):
                if f"check_{name}" in exercises.__all__ and not found.get(name):
                    found[name] = number
    return found


def _functions(cell) -> list[str]:
    return re.findall(r"^def (\w+)", cell.source, re.M)


def _jupyter():
    """nbformat and nbclient.

    Raises:
        UserError: not installed.
    """
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'nucleus-course[course]'"
        ) from None
    return nbformat, nbclient


def grade_notebook(path: Path, seconds: int = 60) -> list[tuple[str, str, str, str]]:
    """(exercise, function, result, detail) of each exercise of a notebook.

    Args:
        seconds: time limit for one cell, and for the checks of one exercise.

    Raises:
        NotANotebook: it cannot be read.
        UserError: nbclient is not installed.
    """
    nbformat, _ = _jupyter()
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise NotANotebook(f"not a notebook ({type(error).__name__})") from None
    wanted = exercises_of(notebook)
    numbered = [name for name, number in wanted.items() if number]
    if not numbered:
        return [("", "", MISSING, f"no exercises recognised: {CHANGED}")]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    whole = {
        index
        for index, cell in enumerate(code)
        if "exercise" in (cell.metadata.get("tags") or []) or {*_functions(cell)} & {*wanted}
    }
    cells = [PREAMBLE, *to_run([cell.source for cell in code], whole)]
    cells += [GRADE.format(name=name, mark=MARK) for name in numbered]
    said, errors, stopped = _run(cells, seconds)
    rows = []
    for name, number in wanted.items():
        status, text = said.get(name, (None, None))
        result = {None: MISSING, "not yet": FAILED}.get(status, status)
        why = text if result == FAILED else errors.get(name) or stopped or "no such function"
        if not number:
            why = f"not recognised: {CHANGED}"
        detail = "" if result in (PASSED, NOT_ATTEMPTED) else " ".join(why.split())
        rows.append((number, name, result, detail))
    return rows


def _run(cells: list[str], seconds: int) -> tuple[dict, dict[str, str], str]:
    """What the checks said, {function: (status, text)}; the errors of cells, by function; what stopped the kernel."""
    nbformat, nbclient = _jupyter()
    run = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells if source.strip()]
    )
    said, errors, stopped = {}, {}, ""
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            run,
            timeout=seconds,
            kernel_name="python3",
            allow_errors=True,
            interrupt_on_timeout=True,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        try:
            client.execute()
        except (nbclient.exceptions.CellTimeoutError, nbclient.exceptions.DeadKernelError) as error:
            stopped = f"the kernel was stopped: {type(error).__name__}"
    for cell in run.cells:
        for output in cell.outputs:
            if output.output_type == "error":
                for name in _functions(cell):
                    errors[name] = f"{output.ename}: {output.evalue}"
                stopped = stopped or f"a cell raised {output.ename}: {output.evalue}"
            for line in str(output.get("text", "")).splitlines():
                if line.startswith(MARK):
                    name, status, text = json.loads(line.removeprefix(MARK))
                    said[name] = (status, text)
    return said, errors, stopped


def grade(folder: Path, seconds: int = 60, on_notebook=None) -> list[Grade]:
    """Every exercise of every notebook in a folder and its subfolders; one row for a notebook that cannot be read.

    Args:
        folder: a folder, or one notebook.
        on_notebook: called with the relative path before each notebook.

    Raises:
        UserError: no notebooks there, or ``folder`` is a file that cannot be read as one.
    """
    folder = Path(folder)
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*.ipynb"))
    paths = [path for path in paths if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise UserError(f"no notebooks in {folder}: give a folder with .ipynb files")
    grades = []
    for path in paths:
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        if on_notebook is not None:
            on_notebook(name)
        try:
            rows = grade_notebook(path, seconds)
        except NotANotebook as error:
            if folder.is_file():
                raise UserError(f"{path} is {error}: give .ipynb files") from None
            rows = [("", "", FAILED, str(error))]
        grades += [Grade(name, *row) for row in rows]
    return grades


def to_csv(grades: list[Grade]) -> str:
    """The table as CSV, with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([field.name for field in fields(Grade)])
    writer.writerows(_plain(astuple(one)) for one in grades)
    return buffer.getvalue()


def _plain(row: tuple) -> list[str]:
    """Quote cells that a spreadsheet would read as a formula."""
    return [f"'{value}" if value[:1] in "=+-@" and value else value for value in row]
