"""The nuclei of a slide: label image, measurements and RLEs from their masks' runs, one window at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nucleus_course.data.slides import Plane
from nucleus_course.geometry.masks import ranges
from nucleus_course.geometry.rle import rles_from_runs
from nucleus_course.prediction.export_images import write_tiff

WINDOW = 1024  # side of the squares in which nuclei are measured, pixels


class Nuclei:
    """The nuclei of a slide, best first: boxes, scores, quality, and masks as runs of pixels.

    ``kept`` are the indices of those with a label, that of label i + 1 at i; ``warnings`` are the bands'.
    """

    def __init__(self, plan, boxes, scores, quality, masks, min_area, warnings=()):
        self.plan, self.boxes, self.scores, self.quality = plan, boxes, scores, quality
        self.warnings = warnings
        self.first = np.searchsorted(masks.mask, np.arange(len(scores) + 1))
        self.masks = masks
        column, row = np.divmod(masks.start, plan.height)
        some = np.diff(self.first) > 0
        low, high = np.zeros((2, len(scores), 2), np.int64)
        at = self.first[:-1][some]
        if len(at):
            low[some] = np.stack([np.minimum.reduceat(v, at) for v in (row, column)], axis=1)
            ends = row + masks.length, column + 1
            high[some] = np.stack([np.maximum.reduceat(v, at) for v in ends], axis=1)
        self.low, self.high = low, high  # first and end (row, column) of each mask
        self.labels = np.arange(1, len(scores) + 1, dtype=np.int32)
        area = np.zeros(len(scores) + 1, np.int64)
        for _, window in self.windows():
            area += np.bincount(window.ravel(), minlength=len(area))
        keep = area[1:] >= max(1, min_area)
        self.labels = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
        self.kept = np.flatnonzero(keep)

    def window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """A rectangle of the label image, int32; where masks overlap, the higher score keeps the pixel."""
        near = (self.low < (bottom, right)).all(axis=1) & (self.high > (top, left)).all(axis=1)
        index = np.flatnonzero(near & (self.labels > 0))
        counts = self.first[index + 1] - self.first[index]
        place = ranges(self.first[index], counts)
        length = self.masks.length[place]
        pixel = ranges(self.masks.start[place], length)
        label = np.repeat(np.repeat(self.labels[index], counts), length)
        column, row = np.divmod(pixel, self.plan.height)
        inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)
        found = np.zeros((bottom - top, right - left), np.int32)
        worst_first = np.flatnonzero(inside)[::-1].copy()  # NumPy may reorder a reversed view
        found[row[worst_first] - top, column[worst_first] - left] = label[worst_first]
        return found

    def windows(self, side: int = WINDOW) -> Iterator[tuple[tuple[int, int, int, int], np.ndarray]]:
        """Yield ((top, left, bottom, right), label image) of squares that partition the image, row by row."""
        height, width = self.plan.shape
        for top in range(0, height, side):
            for left in range(0, width, side):
                box = top, left, min(top + side, height), min(left + side, width)
                yield box, self.window(*box)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the slide."""
        return self.plan.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the label image: 16 bits, or 32 above 65,535 labels."""
        return np.dtype("uint16" if len(self.kept) <= 65535 else "uint32")

    def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """:meth:`window` as :attr:`dtype`."""
        return self.window(top, left, bottom, right).astype(self.dtype)

    def groups(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """Yield ((top, left), labels (h, w)): rectangles that hold whole nuclei, each nucleus once.

        Nuclei whose upper left corners lie in the same square of :data:`WINDOW` pixels form a group.
        """
        home = self.low[self.kept] // WINDOW
        for cell in np.unique(home, axis=0):
            mine = self.kept[(home == cell).all(axis=1)]
            (top, left), (bottom, right) = self.low[mine].min(axis=0), self.high[mine].max(axis=0)
            chosen = np.zeros(len(self.kept) + 1, np.int32)
            chosen[self.labels[mine]] = self.labels[mine]
            yield (int(top), int(left)), chosen[self.window(top, left, bottom, right)]

    def write_labels(self, path: Path) -> None:
        """Write the label image as a compressed TIFF in tiles; BigTIFF if it may exceed 4 GB."""
        write_tiff(path, self)

    def rles(self) -> list[dict[str, Any]]:
        """COCO's compressed run-length encoding of each mask."""
        areas = np.zeros(len(self.scores), np.int64)
        return rles_from_runs(dataclasses.replace(self.masks, areas=areas), *self.plan.shape)

    def measure(self, plane: Plane, table_of: Callable) -> list[dict[str, Any]]:
        """A dict of measurements for each label, from windows of the image.

        Args:
            table_of: a function (labels, values, scores, quality) -> {column: values}, as
                :func:`~nucleus_course.prediction.measurements.measurement_table` for a whole image.
        """
        rows: list[dict[str, Any]] = []
        height, width = self.plan.shape
        for (top, left), labels in self.groups():
            bottom, right = top + labels.shape[0], left + labels.shape[1]
            ids = np.unique(labels[labels > 0])
            values = plane.read(top, left, bottom, right)
            here = self.kept[ids - 1]
            table = table_of(labels, values, self.scores[here], self.quality[here])
            low, high = self.low[here], self.high[here]
            at_edge = (low == 0).any(axis=1) | (high == (height, width)).any(axis=1)
            table = moved(table, top, left) | {"touches_edge": at_edge.tolist()}
            rows += [dict(zip(table, row)) for row in zip(*table.values())]
        return sorted(rows, key=lambda row: row["label"])


def moved(table: dict[str, list], top: int, left: int) -> dict[str, list]:
    """A table of measurements of a window that starts at (top, left), with positions in the whole image."""
    size = None
    if table.get("centroid_x_um"):
        size = table["centroid_x_um"][0] / (table["centroid_column"][0] + 0.5)
    shifts = {"centroid_row": top, "centroid_column": left}
    if size is not None:
        shifts |= {"centroid_y_um": top * size, "centroid_x_um": left * size}
    for name in ("centroid", "centroid_weighted", "bbox"):
        shifts |= {f"{name}-{i}": (top, left)[i % 2] for i in range(4)}
    return {
        name: [value + shifts[name] for value in values] if name in shifts else values
        for name, values in table.items()
    }
