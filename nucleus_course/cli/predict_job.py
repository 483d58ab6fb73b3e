"""What `predict` does with many images: one after the other, whatever happens to one of them."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.progress import progress
from nucleus_course._util.text import pluralize
from nucleus_course.backend import is_out_of_memory
from nucleus_course.cli import common
from nucleus_course.cli.inputs import ImageFile, read_picture

FULL_DISK = 3  # images in a row that find the disk full, after which there is no point in going on


class Job:
    """Images one after the other, whatever happens to one of them.

    Attributes:
        counts: the rows of counts.csv of the images that were done here.
        passed: how many were done before.
        failed: how many could not be done, or whose tables could not be written.
    """

    def __init__(self, model, results, threshold: float, overlay: bool, reading, how, outputs):
        self.model, self.results, self.threshold = model, results, threshold
        self.overlay, self.reading, self.how, self.outputs = overlay, reading, how, outputs
        self.counts: list[dict[str, Any]] = []
        self.passed = self.failed = self.full = 0

    def run(self, files: list[ImageFile], resume: bool) -> None:
        """Detect on every file; those that fail are named and counted."""
        with progress() as bar:
            task = bar.add_task("detecting", total=len(files))
            for file in files:
                try:
                    if resume and self.results.done(file):
                        self.passed += 1
                    else:
                        self.counts.append(self.one(file))
                    self.full = 0
                except Exception as error:
                    self.failed += 1
                    line = f"skipped: {self.reason(error, file)}"
                    bar.console.print(Text(line, style="bold red"), soft_wrap=True)
                bar.advance(task)
                if self.full == FULL_DISK:
                    left = len(files) - len(self.counts) - self.passed - self.failed
                    self.failed += left
                    common.note(
                        f"the disk is full: {pluralize(left, 'image')} not tried; free some space and repeat with --resume"
                    )
                    return

    def one(self, file: ImageFile) -> dict[str, Any]:
        """Detect on one file and write its results: its row of counts.csv."""
        from nucleus_course.data import to_rgb8
        from nucleus_course.prediction.interchange import ImagePredictions
        from nucleus_course.prediction.measurements import count_image, to_rows, view_columns

        pixels = read_picture(file.path, **self.reading)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            found = self.model.predict(pixels.values, **self.how)
        for message in dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning):
            common.note(f"{file.path}: {message}")
        rles = found.rles()  # first: the label image then has the masks pasted already
        labels, scores = found.labels_and_scores(self.threshold)
        table = self.outputs.measure(labels, pixels, scores)
        shape = height, width = labels.shape
        everything = ImagePredictions(
            height, width, rles, found.scores, found.boxes, file.file_name
        )
        picture = to_rgb8(pixels.values) if self.overlay else None
        seen = view_columns(found.canonical, found.novelty)
        nuclei = to_rows(table)

        def export():
            self.outputs.write(self.results.path, file.stem, labels, pixels, scores, table)

        self.results.add(file, everything, labels, nuclei, picture, seen, export)
        return count_image(file.file_name, shape, nuclei, seen)

    def reason(self, error: Exception, file: ImageFile) -> str:
        """One line on why an image could not be done; what looks like a bug shows its traceback as well."""
        if isinstance(error, UserError):
            text = str(error)
        elif is_out_of_memory(error):
            text = "too large for this machine's memory: try a smaller --tile"
        else:
            self.full += common.is_full_disk(error)
            text = common.explain(error) or f"{type(error).__name__}: {error}"
            if not isinstance(error, OSError):
                traceback.print_exception(error)
        text = " ".join(text.split())
        return text if str(file.path) in text else f"{file.path}: {text}"

    def tables(self) -> None:
        """Write the tables of everything that the folder holds."""
        try:
            found = self.results.write_tables()
        except OSError as error:
            self.failed += 1
            reason = common.explain(error) or str(error)
            common.note(
                f"the tables are not written: {reason}; `nucleus-course merge {self.results.path}` writes them"
            )
            return
        more = found.images - len(self.counts) - self.passed
        if more > 0:
            common.note(f"the tables also hold {pluralize(more, 'image')} that were in DIR already")

    def say_where(self) -> None:
        """Name what was written."""
        from nucleus_course.prediction.results import TABLES

        folder = self.results.path
        names = [folder / name for name in TABLES if (folder / name).is_file()]
        pictures = [f"{folder / 'overlays'}/"] if self.overlay else []
        pictures += [f"{folder / name}/" for name in self.outputs.formats]
        common.written(*names, f"{folder / 'labels'}/", *pictures)
