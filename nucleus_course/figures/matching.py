"""Figures of notebook 04: overlap, precision and recall, intervals."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course._util.text import pluralize
from nucleus_course.figures.base import BLUE, GREY, VERMILION, picture, tidy


def disc_mask(diameter: int, shift: float = 0.0, margin: int = 12) -> np.ndarray:
    """A disc as a bool mask, moved right by ``shift`` pixels."""
    side = diameter + 2 * margin
    rows, columns = np.mgrid[:side, :side] + 0.5
    centre = side / 2
    return (rows - centre) ** 2 + (columns - centre - shift) ** 2 <= (diameter / 2) ** 2


def draw_shifted_discs(diameter: int, shifts):
    """What an IoU looks like: a disc and the same disc moved; returns the IoUs in the caption."""
    figure = Figure(figsize=(2.3 * len(shifts), 2.6), layout="constrained")
    parts = []
    for axis, shift in zip(figure.subplots(1, len(shifts)), shifts):
        truth, found = disc_mask(diameter), disc_mask(diameter, shift)
        view = np.full((*truth.shape, 3), 245, np.uint8)
        view[truth & ~found] = (230, 159, 0)
        view[found & ~truth] = (86, 180, 233)
        view[truth & found] = (60, 60, 60)
        iou = (truth & found).sum() / (truth | found).sum()
        picture(axis, view, f"moved by {shift:g}: IoU {iou:.2f}")
        parts.append(f"{pluralize(shift, 'pixel')} {iou:.2f}")
    return figure, (
        f"A disc {diameter} pixels across and the same disc moved to the right (dark: shared, orange: only the "
        f"first, light blue: only the second). IoU after a move by {', '.join(parts)}."
    )


def draw_precision_recall(precision, recall, grid, interpolated, ap: float):
    """Precision and recall detection by detection, and COCO's 101 interpolated points."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.plot(recall, precision, "o-", color=GREY, ms=4, lw=0.8, label="after each detection")
    axis.plot(
        grid, interpolated, ".", color=BLUE, ms=5, label="best precision at that recall or beyond"
    )
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(0, 1.05)
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    tidy(axis, "recall", "precision", f"AP at IoU 0.5: {100 * ap:.1f}")
    end = (
        f"the last point has recall {recall[-1]:.2f} at precision {precision[-1]:.2f}"
        if len(recall)
        else "no detections"
    )
    return (
        figure,
        f"Precision against recall for {pluralize(len(recall), 'detection')} in order of score; {end}. The mean of the blue points is the AP, {100 * ap:.1f}.",
    )


def draw_intervals(report, keys):
    """Bootstrap intervals of a report's metrics as points with bars."""
    known = [key for key in keys if report.intervals.get(key)]
    figure = Figure(figsize=(7.6, 0.32 * len(known) + 0.9), layout="constrained")
    axis = figure.subplots()
    parts = []
    for row, key in enumerate(known):
        low, high = report.intervals[key]
        axis.plot((low, high), (row, row), color=BLUE, lw=3, solid_capstyle="butt")
        axis.plot(report.metrics[key], row, "o", color=VERMILION, ms=6)
        parts.append(f"{key} {report.metrics[key]:.1f} ({low:.1f} to {high:.1f})")
    axis.set_yticks(range(len(known)), known)
    axis.invert_yaxis()
    axis.grid(axis="x", color="#dddddd", lw=0.8)
    tidy(axis, "percent", "")
    return (
        figure,
        f"Each metric and its 95% interval over {pluralize(report.counts['images'], 'image')}: {'; '.join(parts)}.",
    )
