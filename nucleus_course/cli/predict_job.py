"""The messages of `predict` about many images, while they are processed and afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from rich.text import Text

from nucleus_course._util.progress import progress
from nucleus_course._util.text import pluralize
from nucleus_course.backend import explain
from nucleus_course.cli import common
from nucleus_course.prediction.many import Recipe

FULL_DISK = 3  # give up after this many images in a row that find the disk full


class Job:
    """Counts images as they are processed.

    Attributes:
        counts: the rows of counts.csv of the images processed now.
        passed: how many were done before.
        failed: how many failed.
        no_tables: whether the tables could not be written.
        renamed: stems of results with another name than their files.
    """

    def __init__(self, recipe: Recipe, results: Any, formats: Iterable[str]) -> None:
        self.overlay, self.results, self.formats = recipe.overlay, results, formats
        self.counts: list[dict[str, Any]] = []
        self.passed = self.failed = 0
        self.renamed: list[str] = []
        self.no_tables = False

    def run(self, outcomes: Iterable[tuple[Any, Any]], total: int) -> None:
        """Count (file, :class:`~nucleus_course.prediction.cluster.Outcome`) as they come; failures are named."""
        full = 0
        with progress() as bar:
            task = bar.add_task("detecting", total=total)
            for file, outcome in outcomes:
                for line in outcome.notes:
                    bar.console.print(Text(line, style="dim"), soft_wrap=True)
                if outcome.row is not None:
                    self.counts.append(outcome.row)
                    if outcome.row["image"] != file.file_name:
                        self.renamed.append(PurePosixPath(outcome.row["image"]).stem)
                self.passed += outcome.passed
                if outcome.error:
                    self.failed += 1
                    line = f"skipped: {outcome.error}"
                    bar.console.print(Text(line, style="bold red"), soft_wrap=True)
                full = full + 1 if outcome.full else full if outcome.error else 0
                bar.advance(task)
                common.raise_if_terminated()
                if full == FULL_DISK:
                    left = total - len(self.counts) - self.passed - self.failed
                    self.failed += left
                    common.note(
                        f"the disk is full: {pluralize(left, 'image')} not tried. Free some space and repeat with --resume"
                    )
                    return

    def tables(self) -> None:
        """Write the tables of all results in the folder."""
        try:
            found = self.results.write_tables()
        except OSError as error:
            self.no_tables = True
            reason = explain(error) or str(error)
            common.note(
                f"the tables could not be written: {reason}. `nucleus-course merge {self.results.path}` writes them"
            )
            return
        more = found.images - len(self.counts) - self.passed
        if more > 0:
            common.note(f"the tables also hold {pluralize(more, 'image')} that were already in DIR")

    def say_scales(self, weights: str) -> None:
        """Say how many images were resized."""
        scaled = sum(row.get("scale") not in (None, "", 1.0) for row in self.counts)
        if scaled:
            common.note(
                f"{pluralize(scaled, 'image')} scaled so that nuclei have the size that {weights} "
                "knows best (scale in counts.csv); --diameter none turns this off"
            )

    def say_where(self) -> None:
        """Name the files that were written."""
        from nucleus_course.prediction.results import TABLES

        folder = self.results.path
        names = [folder / name for name in TABLES if (folder / name).is_file()]
        pictures = [f"{folder / 'overlays'}/"] if self.overlay else []
        pictures += [f"{folder / name}/" for name in self.formats]
        common.written(*names, f"{folder / 'labels'}/", *pictures)
