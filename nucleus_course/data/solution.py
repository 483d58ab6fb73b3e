"""The truth of stage1_test, which BBBC038 publishes as run lengths in a table.

``stage1_test.zip`` holds images only. If ``stage1_solution.csv`` lies beside it (or in the folder
with the images, or beside that), its rows become the masks: one row per nucleus, with the columns
ImageId, EncodedPixels, Height and Width. EncodedPixels are pairs of start and length, where pixels
are counted from 1 down the columns, left to right.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course._util.tables import read_table, whole_number
from nucleus_course.data.files import MAX_BYTES

NAME = "stage1_solution.csv"
COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width")


class SolvedSource:
    """A :class:`~nucleus_course.data.bbbc038.Source` whose masks come from the table; ``read`` gives them as arrays."""

    def __init__(self, source, table):
        self._source, self._table = source, Path(table)
        self.path, self.issues, self.synthetic = source.path, source.issues, source.synthetic
        self.hint, self.annotations, self.names = "", NAME, source.names
        self.outside = source.outside
        self._rows = read_solution(table)
        self._masks, self.entries = {}, {}
        for image_id, entry in source.entries.items():
            masks = {
                f"{NAME}/{image_id}/{number:04d}": row
                for number, row in enumerate(self._rows.get(image_id, []), 1)
            }
            self._masks.update(masks)
            self.entries[image_id] = dataclasses.replace(
                entry, masks=list(masks), has_mask_folder=image_id in self._rows
            )

    @property
    def fingerprint(self):
        stat = self._table.stat()
        text = (
            f"{self._source.fingerprint} {self._table.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        )
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def read(self, name):
        if name not in self._masks:
            return self._source.read(name)
        runs, height, width = self._masks[name]
        return decode_runs(runs, height, width)

    def close(self):
        self._source.close()


def with_solution(source):
    """The source, with masks from stage1_solution.csv if it has none of its own."""
    if any(entry.masks for entry in source.entries.values()):
        return source
    for folder in (source.path, source.path.parent):
        table = folder / NAME
        if table.is_file():
            solved = SolvedSource(source, table)
            if any(entry.masks for entry in solved.entries.values()):
                return solved
    return source


def read_solution(path):
    """{image id: [(runs, height, width), ...]} of a solution table, in the order of its rows."""
    rows = {}
    for number, row in enumerate(read_table(path, COLUMNS), 2):
        masks = rows.setdefault(row["ImageId"], [])
        if not row["EncodedPixels"]:
            continue
        try:
            height, width = whole_number(row["Height"]), whole_number(row["Width"])
        except ValueError as error:
            raise UserError(
                f"{path}: row {number}: Height and Width are pixels ({error})"
            ) from None
        if min(height, width) < 1 or height * width > MAX_BYTES:
            raise UserError(f"{path}: row {number}: an image of {height} x {width} pixels")
        masks.append((row["EncodedPixels"].split(), height, width))
    return rows


def decode_runs(runs, height, width):
    """Bool (height, width) from pairs of start (from 1, down the columns) and length, as numbers or
    strings. Raises ValueError if they do not fit the image."""
    if len(runs) % 2:
        raise ValueError("run lengths must come in pairs of start and length")
    pairs = np.array(runs, dtype=np.int64).reshape(-1, 2)
    starts, stops = pairs[:, 0] - 1, pairs[:, 0] - 1 + pairs[:, 1]
    if (starts < 0).any() or (pairs[:, 1] < 1).any() or (stops > height * width).any():
        raise ValueError(f"run lengths that do not fit {height} rows and {width} columns")
    edges = np.zeros(height * width + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, stops, -1)
    return (np.cumsum(edges[:-1]) > 0).reshape(width, height).T
