"""Figures of notebook 05: how many errors of each class, and a paired test of a hypothesis."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course._util.text import pluralize
from nucleus_course.figures.base import BLUE, GREY, ORANGE, VERMILION, tidy


def draw_error_counts(analysis):
    """How many nuclei and detections are in each class but matched, from an ErrorAnalysis."""
    counts = {name: both for name, both in analysis.counts.items() if name != "matched"}
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(counts))
    nuclei = [both["nuclei"] for both in counts.values()]
    detections = [both["detections"] for both in counts.values()]
    axis.barh(rows - 0.19, nuclei, 0.36, color=ORANGE, label="nuclei without a detection")
    axis.barh(
        rows + 0.19,
        detections,
        0.36,
        color=BLUE,
        hatch="///",
        edgecolor="white",
        label="detections without a nucleus",
    )
    axis.set_yticks(rows, list(counts))
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False)
    tidy(axis, "count", "")
    totals = analysis.totals
    listed = "; ".join(
        f"{name} {pluralize(both['nuclei'], 'nucleus', 'nuclei')} and {pluralize(both['detections'], 'detection')}"
        for name, both in counts.items()
    )
    return figure, f"{pluralize(totals['tp'], 'matched pair')}. Of the rest: {listed}."


def draw_paired_test(differences, interval, what: str):
    """Differences image by image, their mean, and its bootstrap interval."""
    figure = Figure(figsize=(7.4, 2.2), layout="constrained")
    axis = figure.subplots()
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(differences))
    axis.plot(differences, jitter, "o", color=BLUE, ms=4, alpha=0.5)
    axis.plot(interval, (0.5, 0.5), color=VERMILION, lw=4, solid_capstyle="butt")
    axis.plot(np.mean(differences), 0.5, "D", color=VERMILION, ms=7)
    axis.axvline(0, color=GREY, lw=1)
    axis.set_yticks([0, 0.5], ["each image", "mean and its\n95% interval"], fontsize=8)
    axis.set_ylim(-0.4, 0.8)
    tidy(axis, what, "")
    return figure, (
        f"{what}: {np.mean(differences):+.2f} on average over {pluralize(len(differences), 'image')}, 95% interval {interval[0]:+.2f} to "
        f"{interval[1]:+.2f}; better on {int((np.asarray(differences) > 0).sum())}, worse on {int((np.asarray(differences) < 0).sum())}."
    )
