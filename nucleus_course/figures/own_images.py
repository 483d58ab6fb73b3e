"""Figures of notebook 06: detections without truth, measurements, scales, scores."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course.figures.base import BLUE, FOUND, GREY, ORANGE, outlined, panels, picture, tidy


def _count(labels: np.ndarray) -> int:
    return len(np.unique(labels)) - int((labels == 0).any())


def draw_found(images: dict, labels: dict):
    """Images (uint8 RGB, by name) with the outlines of what was detected in each."""
    figure, axes = panels(len(images), len(images), side=4.4)
    for axis, (name, image) in zip(axes, images.items()):
        picture(
            axis,
            outlined(image, labels[name], ORANGE, thick=True),
            f"{name}: {_count(labels[name])} detections",
        )
    listed = ", ".join(f"{_count(labels[name])} in {name!r}" for name in images)
    return figure, f"Detections outlined in orange: {listed}."


def draw_measurements(diameters, eccentricities):
    """Histogram of equivalent diameters, and shape against size."""
    figure = Figure(figsize=(8.4, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(diameters, bins=24, color=BLUE)
    tidy(left, "equivalent diameter, micrometres", "nuclei")
    right.plot(diameters, eccentricities, "o", color=ORANGE, ms=4, alpha=0.7)
    right.set_ylim(0, 1)
    tidy(right, "equivalent diameter, micrometres", "eccentricity (0: round)")
    if not len(diameters):
        return figure, "No nuclei to measure."
    low, middle, high = np.percentile(diameters, (5, 50, 95))
    return figure, (
        f"{len(diameters)} nuclei: median diameter {middle:.1f} micrometres, 90% between {low:.1f} and {high:.1f}; "
        f"median eccentricity {np.median(eccentricities):.2f}."
    )


def draw_scales(scales, results):
    """Counts against the scale of the image; ``results`` holds (image, labels) a scale."""
    counts = [_count(labels) for _, labels in results]
    areas = [
        np.bincount(labels[labels > 0]) for _, labels in results
    ]  # 0 for a label that nothing bears
    sides = [np.median(np.sqrt(area[area > 0])) if area.any() else 0.0 for area in areas]
    figure, axes = panels(len(scales) + 1, 3, side=3.1)
    axes[0].plot(scales, counts, "o-", color=BLUE)
    axes[0].set_xscale("log")
    axes[0].set_xticks(scales, [f"{s:g}" for s in scales], fontsize=7)
    axes[0].minorticks_off()
    axes[0].set_ylim(bottom=0)
    tidy(axes[0], "scale", "detections")
    for axis, scale, count, (image, labels) in zip(axes[1:], scales, counts, results):
        rows, columns = (
            ((np.arange(256) + 0.5) * side / 256).astype(int) for side in labels.shape
        )  # lines equally wide in all
        picture(
            axis,
            outlined(image[rows][:, columns], labels[rows][:, columns], FOUND),
            f"scale {scale:g}: {count}",
        )
    listed = ", ".join(
        f"{scale:g}: {count} (median {side:.0f} pixels across)"
        for scale, count, side in zip(scales, counts, sides)
    )
    return figure, f"Detections by scale, the same view at each. {listed}."


def draw_scores(scores, threshold: float):
    """Histogram of all scores with the operating point."""
    figure = Figure(figsize=(5.6, 2.6), layout="constrained")
    axis = figure.subplots()
    axis.hist(scores, bins=np.linspace(0, 1, 41), color=BLUE)
    axis.axvline(threshold, color=GREY, ls="--", lw=1.5)
    tidy(axis, "score", "detections")
    above = scores[scores >= threshold]
    sure = 100 * np.mean(above >= threshold + 0.2) if len(above) else 0.0
    return figure, (
        f"{len(scores)} detections of any score, {len(above)} at or above the threshold {threshold:.2f} (dashed); {sure:.0f}% of those "
        "are above it by 0.2 or more."
    )
