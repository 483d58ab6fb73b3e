"""The learning curve: losses, rate and what validation said."""

import csv
import json
from pathlib import Path

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.figures.style import (
    BLUE,
    GREY,
    MODEL_COLOURS,
    MODEL_MARKERS,
    ORANGE,
    empty,
    new_figure,
    signed,
    tidy,
)

VALIDATION = ("coco_ap", "dsb_score", "mean_mask_iou")


def read_log(log):
    """Rows of a training: a list of dicts, a ``History``, a run folder, its log.jsonl or its log.csv.

    Raises:
        UserError: no log there, or none that can be read.
    """
    if not isinstance(log, (str, Path)):
        return list(getattr(log, "rows", log))
    path = Path(log)
    path = path / "log.jsonl" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if path.suffix != ".csv":
            return [json.loads(line) for line in lines if line.strip()]
        return [
            {key: _number(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(lines)
        ]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no training log there; a run folder holds log.jsonl and log.csv"
        ) from None
    except ValueError:
        raise UserError(f"{path}: not the log of a training") from None


def _number(value):
    try:
        return float(value)
    except ValueError:
        return value


def draw_learning_curve(log, *, synthetic=False):
    """Losses, learning rate and the validation metrics by epoch.

    Args:
        log: rows (list of dicts as in log.jsonl), a ``History``, a run folder, log.jsonl or log.csv.

    Returns:
        (Figure, caption).

    Raises:
        UserError: nothing to draw.
    """
    rows = read_log(log)
    if not rows:
        raise UserError("the training log is empty: nothing to draw")
    epochs = np.array([row["epoch"] for row in rows], float)
    figure, (left, middle, right) = new_figure(11.0, 3.2, 3, width_ratios=(1.35, 0.8, 1.1))
    marker = {"marker": ".", "markersize": 5 if len(rows) < 40 else 0}

    def column(key):
        return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])

    left.plot(epochs, column("loss"), color="black", linewidth=2, label="total", **marker)
    parts = [key for key in rows[-1] if key.endswith("_loss")]
    for number, key in enumerate(parts):
        name = key.removesuffix("_loss").replace("_", " ").replace("rpn", "RPN")
        left.plot(epochs, column(key), color=MODEL_COLOURS[number % 6], linewidth=1.2, label=name,
                  marker=MODEL_MARKERS[number % 6], markersize=3, markevery=max(1, len(rows) // 12))  # fmt: skip
    if (column("loss")[np.isfinite(column("loss"))] > 0).all():
        left.set_yscale("log")
    left.legend(fontsize=7, frameon=False, ncols=2)
    tidy(left, "epoch", "loss (log scale)", "losses on the training crops")

    middle.plot(epochs, column("rate"), color=BLUE, **marker)
    middle.set_yscale("log")
    tidy(middle, "epoch", "learning rate (log scale)", "learning rate")

    said = []
    for number, key in enumerate(VALIDATION):
        values = column(key)
        there = np.isfinite(values)
        if there.any():
            right.plot(
                epochs[there],
                values[there],
                color=MODEL_COLOURS[number],
                marker=MODEL_MARKERS[number],
                markersize=4,
                label=key,
            )
            said.append(f"{key} {values[there][-1]:.1f}")
    tidy(right, "epoch", "metric, percent", "validation split")
    if said:
        right.set_ylim(0, 100)
        right.legend(fontsize=8, frameon=False)
    else:
        empty(right, "not validated")
    stages = [
        (b["epoch"], b.get("stage"))
        for a, b in zip(rows, rows[1:])
        if a.get("stage") != b.get("stage")
    ]
    for axis in (left, middle, right):
        axis.set_xlim(min(epochs[0], 0), epochs[-1] + 0.5)
        for epoch, _ in stages:
            axis.axvline(float(epoch) - 0.5, color=GREY, linestyle="--", linewidth=1)
    best = column("coco_ap")
    if np.isfinite(best).any():
        at = int(np.nanargmax(best))
        right.plot(
            epochs[at],
            best[at],
            "o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=ORANGE,
            markeredgewidth=2,
        )
    caption = (
        f"{len(rows)} epochs: the total loss goes from {rows[0]['loss']:.2f} to {rows[-1]['loss']:.2f}. "
        + (
            f"Last on validation: {', '.join(said)}; the ring marks the weights that were kept. "
            if said
            else ""
        )
        + ("Dashed lines: a new stage begins. " if stages else "")
    )
    return signed(figure, caption.strip(), synthetic)
