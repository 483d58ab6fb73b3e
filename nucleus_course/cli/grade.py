"""`nucleus-course grade`: learners' notebooks, checked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from nucleus_course._util.files import write_file
from nucleus_course._util.text import pluralize
from nucleus_course.cli import common


@common.friendly
def grade(
    folder: Annotated[Path, typer.Argument()],
    out: Path = Path("grades.csv"),
    seconds: Annotated[int, typer.Option(min=1)] = 60,
) -> None:
    """Check the exercises of learners' notebooks, each notebook in a fresh kernel.

    \b
    Example: nucleus-course grade submissions --out grades.csv

    Writes a table with one row for each exercise: passed, not attempted, failed (with the failing case) or missing.
    Only definitions and exercises run, so a notebook takes seconds. A kernel is not a sandbox: grade
    notebooks from strangers in a container without network.
    Exit code 1 if a notebook cannot be read, or its exercises are not recognised.

    Args:
        folder (FOLDER): A folder with learners' notebooks, or one notebook.
        out (FILE): The table, as CSV.
        seconds (N): The time limit for one cell.
    """
    from nucleus_course.course.grade import FAILED, NOT_ATTEMPTED, PASSED, to_csv
    from nucleus_course.course.grade import grade as grade_folder

    common.output_file(out, "grades.csv")
    grades = grade_folder(
        folder, seconds, on_notebook=lambda name: common.note(f"running {name} ...")
    )
    write_file(out, to_csv(grades))
    table = Table("notebook", PASSED, FAILED, NOT_ATTEMPTED, "missing", "first failing case")
    for name in dict.fromkeys(one.notebook for one in grades):
        rows = [one for one in grades if one.notebook == name]
        counts = Counter(one.result for one in rows)
        failing = [one for one in rows if one.result == FAILED]
        first = f"{failing[0].exercise} {failing[0].detail}".strip() if failing else ""
        numbers = [str(counts[key]) for key in (PASSED, FAILED, NOT_ATTEMPTED, "missing")]
        table.add_row(Text(name), *numbers, Text(first[:120]))
    common.out().print(table)
    left = [one for one in grades if not one.exercise]
    common.say(f"written: {out} ({pluralize(len(grades) - len(left), 'exercise')})")
    for one in left:
        common.note(": ".join(filter(None, (one.notebook, one.function, one.detail))))
    if left:
        raise typer.Exit(1)
