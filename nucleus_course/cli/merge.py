"""`nucleus-course merge`: the tables of an array job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.cli import common


@common.friendly
def merge(folders: Annotated[list[Path], typer.Argument()], out: Path | None = None) -> None:
    """Merge the tables of an array job, or several folders of results into one.

    \b
    Examples
      nucleus-course merge results
      nucleus-course merge node1/results node2/results --out results

    Writes predictions.json, counts.csv and measurements.csv from the rows of all images that are done. With --out it also
    copies the label images, overlays and exports. It needs no model. All folders must come from the same model and score threshold.

    Args:
        folders (DIR...): Folders that `predict` wrote.
        out (DIR): The folder for the merged results; needed for more than one folder.
    """
    from nucleus_course.prediction.results import TABLES, ResultsFolder

    if out is None and len(folders) > 1:
        raise UserError("several folders are merged into one: name it with --out DIR")
    opened = [ResultsFolder(folder, None) for folder in folders]
    target = opened[0] if out is None else ResultsFolder(out, opened[0].settings)
    taken: dict[str, str] = {}
    renamed: list[str] = []
    for folder in opened if out is not None else ():
        target.check_same(folder.settings, target.settings)
        renamed += target.take_from(folder, taken)
    common.note_renamed(renamed, target.path)
    found = target.write_tables()
    nuclei, images = pluralize(found.nuclei, "nucleus", "nuclei"), pluralize(found.images, "image")
    common.say(f"{nuclei} in {images}")
    if out is not None and found.images > len(taken):
        more = pluralize(found.images - len(taken), "image")
        common.note(f"the tables also hold {more} that were already in {out}")
    common.written(*(target.path / name for name in TABLES))
