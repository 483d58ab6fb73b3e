"""Check learners' notebooks: every exercise, in a fresh kernel, with time limits, as a table.

Only the cells of the exercises run, and the definitions that they use from other cells: imports, functions, classes,
constants. Training and prediction do not run, so a notebook takes seconds. A kernel is a separate process in an empty
folder with limits on time and memory, but it is not a sandbox: grade strangers' notebooks in a container without network.
"""

import ast
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
# Compared with None, because a result is false unless every case passed.
GRADE = """\
_result = _checks["check_{name}"]({name}) if "{name}" in globals() else None
_said = [None, None] if _result is None else [_result.status, repr(_result)]
print("{mark}" + _json.dumps(["{name}", *_said]))
"""


@dataclass(frozen=True)
class Grade:
    """One exercise of one notebook.

    Attributes:
        notebook: path relative to the folder; exercise: its number, such as "2.4"; function: its name.
        result: "passed", "not attempted", "failed" or "missing" (no such function, or its cell raises).
        detail: the failing case or the error, on one line.
    """

    notebook: str
    exercise: str
    function: str
    result: str
    detail: str = ""


def definitions(source: str, used: set[str] | None = None) -> str:
    """The imports, functions, classes and literal constants of a cell; empty for a cell that is not Python.

    Args:
        used: keep only definitions of these names.
    """
    kept = [node for node in _statements(source) if _defines(node)]
    if used is not None:
        kept = [node for node in kept if _bound(node) & {*used, "*"}]
    return "\n".join(ast.unparse(node) for node in kept)


def to_run(cells: list[str], exercise_cells: set[int]) -> list[str]:
    """Cells as they run for a grade: those of exercises whole, of others the definitions needed, also indirectly."""
    needed = [node for index in exercise_cells for node in _statements(cells[index])]
    known = [
        node
        for index, cell in enumerate(cells)
        if index not in exercise_cells
        for node in _statements(cell)
        if _defines(node)
    ]
    used: set[str] = set()
    while needed:
        used |= _names(needed)
        needed = [node for node in known if _bound(node) & used and not _names([node]) <= used]
    return [
        cell if index in exercise_cells else definitions(cell, used)
        for index, cell in enumerate(cells)
    ]


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:
        return []


def _names(nodes) -> set[str]:
    return {one.id for node in nodes for one in ast.walk(node) if isinstance(one, ast.Name)}


def _bound(node: ast.stmt) -> set[str]:
    """The names that a definition binds."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return {(one.asname or one.name).split(".")[0] for one in node.names}
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return _names(targets)


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError, SyntaxError):
            return False
        return True
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))


def exercises_of(notebook) -> dict[str, str]:
    """{function: number} of a notebook's exercises, in order."""
    found, number = {}, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            number = (NUMBER.findall(cell.source) or [number])[-1]
        elif cell.cell_type == "code":
            names = CHECK.findall(cell.source) + re.findall(r"^def (\w+)", cell.source, re.M)
            for name in names:
                if f"check_{name}" in exercises.__all__ and name not in found and number:
                    found[name] = number
    return found


def grade_notebook(path: Path, seconds: int = 60) -> list[tuple[str, str, str, str]]:
    """(exercise, function, result, detail) of each exercise of a notebook.

    Args:
        seconds: time limit for one cell, and for the checks of one exercise.

    Raises:
        UserError: not a notebook, or nbclient is not installed.
    """
    try:
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellTimeoutError, DeadKernelError
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'nucleus-course[course]'"
        ) from None
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise UserError(
            f"{path} is not a notebook ({type(error).__name__}): give .ipynb files"
        ) from None
    wanted = exercises_of(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    whole = {
        index
        for index, cell in enumerate(code)
        if CHECK.search(cell.source) is None
        and (
            "exercise" in cell.metadata.get("tags", [])
            or set(re.findall(r"^def (\w+)", cell.source, re.M)) & set(wanted)
        )
    }
    cells = [PREAMBLE, *to_run([cell.source for cell in code], whole)]
    cells += [GRADE.format(name=name, mark=MARK) for name in wanted]
    run = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells if source.strip()]
    )
    said, stopped = {}, ""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
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
        except (CellTimeoutError, DeadKernelError) as error:
            stopped = f"the kernel was stopped: {type(error).__name__}"
    errors = {}
    for cell in run.cells:
        for output in cell.outputs:
            if output.output_type == "error":
                for name in re.findall(r"^def (\w+)", cell.source, re.M):
                    errors[name] = f"{output.ename}: {output.evalue}"
                stopped = stopped or f"a cell raised {output.ename}: {output.evalue}"
            for line in str(output.get("text", "")).splitlines():
                if line.startswith(MARK):
                    name, status, text = json.loads(line.removeprefix(MARK))
                    said[name] = (status, text)
    rows = []
    for name, number in wanted.items():
        status, text = said.get(name, (None, None))
        result = {None: MISSING, "not yet": FAILED}.get(status, status)
        why = text if result == FAILED else errors.get(name) or stopped or "no such function"
        detail = "" if result in (PASSED, NOT_ATTEMPTED) else " ".join(why.split())
        rows.append((number, name, result, detail))
    return rows


def grade(folder: Path, seconds: int = 60, on_notebook=None) -> list[Grade]:
    """Every exercise of every notebook in a folder and its subfolders.

    Args:
        on_notebook: called with the relative path before each notebook.

    Raises:
        UserError: no notebooks there.
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
        grades += [Grade(name, *row) for row in grade_notebook(path, seconds)]
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
