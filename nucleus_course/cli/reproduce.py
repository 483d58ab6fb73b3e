"""`nucleus-course reproduce`: the paper's table and side experiments, from run folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common


@common.friendly
def reproduce(
    what: Annotated[str | None, typer.Argument()] = None,
    runs: Path = Path("runs"),
    data: str = "DATA",
    run: bool = False,
    only: str | None = None,
    backend: str | None = None,
) -> None:
    """Build the paper's table, or that of its side experiments, from run folders, next to the published values.

    \b
    Examples
      nucleus-course reproduce
      nucleus-course reproduce table1 --runs runs
      nucleus-course reproduce table1 --data D.zip --run --only paper-resnet50

    A run folder DIR/<preset> holds config.json, log.jsonl and report.json. Missing runs are marked, and the commands
    for them are printed. An interrupted training continues where it stopped.

    \b
    Writes to DIR
      <table>.json          the rows
      <table>.png           AP and mask IoU of every run, and learning curves

    Args:
        what ([TABLE]): table1, experiments or experiments-scratch. Without it all presets and variants are listed.
        runs (DIR): The folder that holds the run folders.
        data (DATA): The real images, for the commands: a zip or a folder in BBBC038's layout.
        run: Run what is missing, one after the other. Without a GPU this takes days.
        only (PRESET): Only this row of the table.
    """
    from nucleus_course.reports import reproduction

    console = common.out()
    if what is None:
        if run or only is not None:
            raise UserError(
                "--run and --only need a table: table1, experiments or experiments-scratch"
            )
        _list(console)
        return
    rows = reproduction.collect(what, runs)
    if only is not None:
        rows = [row for row in rows if row.preset == only]
        if not rows:
            known = ", ".join(reproduction.TABLES[what])
            raise UserError(f"{what} has no run '{only}': choose one of {known}")
    if run:
        if data == "DATA":
            raise UserError("--run needs the images: name them with --data")
        for row in rows:
            _run(row, data, backend)
        rows = [r for r in reproduction.collect(what, runs) if only in (None, r.preset)]
    console.print(reproduction.table_of(what, rows))
    _write(what, rows, runs)
    todo = [words for row in rows for words in reproduction.commands(row, data)]
    if todo:
        console.print("Commands for the missing runs (--run runs them)")
        for words in todo:
            common.say(f"  {reproduction.shell(words)}")


def _list(console) -> None:
    """Print every preset and variant with a line of description."""
    from rich.table import Table

    from nucleus_course.presets import PRESETS
    from nucleus_course.presets.variants import VARIANTS

    presets = {name: preset.summary for name, preset in PRESETS.items()}
    variants = {f"+{name}": about for name, (about, _) in VARIANTS.items()}
    behind = "Variants, appended to a preset's name: paper-resnet50+mirror"
    look: dict[str, Any] = {
        "title_justify": "left",
        "box": None,
        "pad_edge": False,
        "show_header": False,
    }
    for title, rows in (("Presets", presets), (behind, variants)):
        table = Table(title=title, width=80, **look)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, about in rows.items():
            table.add_row(name, about)
        console.print(table)
        console.print()
    console.print("Tables: nucleus-course reproduce table1, experiments or experiments-scratch")


def _run(row, data: str, backend: str | None) -> None:
    """Run the row's commands, each in its own process, so that a crash ends only one run."""
    from nucleus_course.reports.reproduction import commands, shell

    for words in commands(row, data):
        words = words + (["--backend", backend] if backend else [])
        common.note(shell(words))
        code = subprocess.run([sys.executable, "-m", "nucleus_course.cli", *words]).returncode
        if code == 130:
            raise KeyboardInterrupt
        if code:
            advice = "follow its message and repeat; finished runs are kept"
            raise UserError(f"`{shell(words)}` failed: {advice}")


def _write(what: str, rows, runs: Path) -> None:
    """Write the table as JSON, and its figure."""
    from nucleus_course._util.files import atomic_write, write_json
    from nucleus_course.reports.reproduction import draw_table, to_json

    figure, caption = draw_table(what, rows)
    table, picture = runs / f"{what}.json", runs / f"{what}.png"
    write_json(table, to_json(what, rows))
    look = {"format": "png", "dpi": 110, "facecolor": "white"}
    with atomic_write(picture) as place:
        figure.savefig(place, metadata={"Description": caption}, **look)
    common.written(table, picture)
