"""Figures of a data set, of detections and of a training.

Each ``draw_*`` is a pure function that returns ``(Figure, caption)``: it shows nothing and touches no global state
of matplotlib. Colours are told apart by colour-blind readers (Okabe and Ito), and never carry a meaning alone.
"""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course.course_figures import data as panels_of
from nucleus_course.course_figures.base import BLUE, ORANGE, tidy


def draw_samples(dataset):
    """One image of each type with its merged masks below, after the paper's Figure 2.

    Of each type the image with the median number of nuclei is shown.
    """
    by_type = {}
    for image_id in dataset.ids:
        by_type.setdefault(dataset.types[image_id], []).append(image_id)
    chosen = []
    for kind in sorted(by_type):
        ordered = sorted(by_type[kind], key=lambda i: (dataset.counts[i], i))
        chosen.append(dataset[ordered[len(ordered) // 2]])
    figure, caption = panels_of.draw_samples(chosen)
    if dataset.synthetic:
        figure.suptitle("SYNTHETIC images, drawn by a program", fontsize=10)
        caption = f"Synthetic images. {caption}"
    return figure, caption


def draw_detections(record, detections):
    """Image, truth and detections side by side.

    Args:
        record: :class:`~nucleus_course.data.Record`.
        detections: :class:`~nucleus_course.detections.Detections` (drawn at its operating point) or a label
            image (H, W) of integers.
    """
    labels = detections.label_image() if hasattr(detections, "label_image") else np.asarray(detections)
    return panels_of.draw_detections(record, labels)


def draw_learning_curve(log):
    """Losses, and validation AP where it was measured, against the epoch.

    Args:
        log: rows of a training's log, as dicts: ``History.rows`` or the lines of log.jsonl.
    """
    epochs = [row["epoch"] for row in log]
    scored = [(row["epoch"], row["coco_ap"]) for row in log if row.get("coco_ap") is not None]
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    marker = "o" if len(log) < 40 else ""
    left.plot(epochs, [row["loss"] for row in log], color=BLUE, marker=marker, ms=3)
    tidy(left, "epoch", "loss", "total loss")
    parts = sorted(k for k in log[0] if k.endswith("_loss"))
    for name, style in zip(parts, ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))):
        right.plot(epochs, [row[name] for row in log], color="black", ls=style, lw=1.2, label=name.removesuffix("_loss"))
    tidy(right, "epoch", "loss", "its five parts")
    right.legend(fontsize=8, frameon=False, ncols=2)
    caption = f"Loss over {len(log)} epochs: from {log[0]['loss']:.2f} to {log[-1]['loss']:.2f}."
    if len(scored) > 1:
        axis = left.twinx()
        axis.plot(*zip(*scored), color=ORANGE, marker="s", ms=4, ls="--")
        axis.set_ylabel("validation AP, percent (squares)", color=ORANGE)
    if scored:
        caption += f" Validation AP {scored[-1][1]:.1f} at the end."
    return figure, caption
