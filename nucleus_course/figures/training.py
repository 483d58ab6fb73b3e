"""Training: schedules, trainable weights, and learning curves."""

import json
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from nucleus_course._util.errors import UserError
from nucleus_course.figures import style

VALIDATION = ("coco_ap", "dsb_score", "mean_mask_iou")


def draw_schedules(schedules):
    """Learning rate by epoch, one panel for each preset; ``schedules[name]`` is a tuple of StageConfig."""
    figure, axes = style.new_figure(5.0 * len(schedules), 3.4, len(schedules))
    parts = []
    for axis, (name, stages) in zip(axes, schedules.items()):
        every = []
        for number, stage in enumerate(stages):
            rates = [stage.rate_at(epoch) for epoch in range(stage.epochs)]
            epochs = np.arange(len(every), len(every) + len(rates) + 1)
            label = f"{stage.name} ({stage.epochs} epochs)"
            axis.step(epochs, [*rates, rates[-1]], where="post", label=label, **style.looks(number))
            every += rates
        axis.set_yscale("log")
        style.legend(axis, "below")
        style.tidy(axis, "epoch", "learning rate (log scale)", name)
        parts.append(f"{name}: {len(every)} epochs, rate from {max(every):.2g} at most to {every[-1]:.2g} in the last")  # fmt: skip
    return figure, "; ".join(parts) + "."


def draw_moving(table):
    """Trainable and frozen weights, ``table[preset][stage] = (trainable, all)``."""
    rows = {f"{preset}, {stage}": pair for preset, stages in table.items() for stage, pair in stages.items()}  # fmt: skip
    figure, (axis,) = style.new_figure(8.4, 0.42 * len(rows) + 1.2)
    places = np.arange(len(rows))
    share = np.array([100 * moving / total for moving, total in rows.values()])
    axis.barh(places, share, color=style.BLUE, label="moves")
    frozen = {"color": "white", "edgecolor": style.GREY, "hatch": "///", "label": "frozen"}
    axis.barh(places, 100 - share, left=share, **frozen)
    style.row_ticks(axis, list(rows))
    style.legend(axis, "above", 2)
    style.tidy(axis, "percent of the weights", "")
    listed = "; ".join(
        f"{name}: {moving / 1e6:.1f} of {total / 1e6:.1f} million"
        for name, (moving, total) in rows.items()
    )
    return figure, f"Weights that move in each stage. {listed}."


def read_log(log):
    """The rows of a training log, from a list of dicts or a run folder's log.jsonl.

    Raises:
        UserError: no log there, or it cannot be read.
    """
    if not isinstance(log, (str, Path)):
        return list(log)
    path = Path(log) / "log.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read ({reason}): give a run folder") from None
    except ValueError as error:
        raise UserError(f"{path}: cannot be read as a training log ({error})") from None


def draw_learning_curve(log, *, interrupted_after=None, synthetic=False):
    """Losses by epoch, and the learning rate and validation metrics if the log holds them.

    Args:
        log: rows (a list of dicts as in log.jsonl), or a run folder.
        interrupted_after: an epoch after which a dotted line marks an interruption.

    Raises:
        UserError: nothing to draw.
    """
    rows = read_log(log)
    if not rows:
        raise UserError("the training log is empty: nothing to draw")
    epochs = np.array([row["epoch"] for row in rows], float)

    def column(key):
        return np.array([np.nan if row.get(key) is None else float(row[key]) for row in rows])

    rate, scored = column("rate"), [key for key in VALIDATION if np.isfinite(column(key)).any()]
    shown = 1 + bool(np.isfinite(rate).any()) + bool(scored)
    figure, (left, *others) = style.new_figure(4.2 * shown + 1.0, 4.2, shown)
    _draw_losses(left, rows, epochs, column)
    said = f"{len(rows)} epochs: the total loss goes from {rows[0]['loss']:.2f} to {rows[-1]['loss']:.2f}"
    parts = [
        f"{_loss_name(key)} {rows[0][key]:.2f} to {rows[-1][key]:.2f}"
        for key in rows[0]
        if key.endswith("_loss") and key in rows[-1]
    ]
    caption = said + (f" ({', '.join(parts)}). " if parts else ". ")
    if np.isfinite(rate).any():
        others[0].plot(epochs, rate, color=style.BLUE, marker=".")
        others[0].set_yscale("log")
        style.tidy(others[0], "epoch", "learning rate (log scale)", "learning rate")
    if scored:
        _draw_validation(others[-1], epochs, {key: column(key) for key in scored})
        last = (f"{k} {column(k)[np.isfinite(column(k))][-1]:.1f}" for k in scored)
        caption += f"Last on validation: {', '.join(last)}"
        ring = "; the ring marks the best epoch" if "coco_ap" in scored else ""
        caption += f"{ring}. "
    begins = [b["epoch"] for a, b in zip(rows, rows[1:]) if a.get("stage") != b.get("stage")]
    for axis in (left, *others):
        axis.set_xlim(min(epochs[0] - 0.5, 0), epochs[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for epoch in begins:
            axis.axvline(float(epoch) - 0.5, color=style.GREY, ls="--", lw=1)
        if interrupted_after is not None and len(rows) > interrupted_after:
            axis.axvline(interrupted_after + 0.5, color=style.VERMILION, ls=":", lw=2)
    caption += "Dashed lines: a new stage begins. " if begins else ""
    caption += "Dotted line: the interruption. " if interrupted_after is not None else ""
    return style.signed(figure, caption.strip(), synthetic)


def _loss_name(key):
    return key.removesuffix("_loss").replace("_", " ").replace("rpn", "RPN")


def _draw_losses(axis, rows, epochs, column):
    axis.plot(epochs, column("loss"), color="black", lw=2, marker=".", label="total")
    every = max(1, len(rows) // 12)
    for number, key in enumerate(k for k in rows[-1] if k.endswith("_loss")):
        look = {
            "color": style.CYCLE[number % 6],
            "marker": style.MARKERS[number % 6],
            "markevery": every,
        }
        axis.plot(epochs, column(key), lw=1.2, ms=4, label=_loss_name(key), **look)
    if np.nanmin(column("loss"), initial=1) > 0:
        axis.set_yscale("log")
    style.legend(axis, "below", 3)
    style.tidy(axis, "epoch", f"loss ({axis.get_yscale()} scale)", "losses on the training crops")


def _draw_validation(axis, epochs, columns):
    for number, (key, values) in enumerate(columns.items()):
        there = np.isfinite(values)
        axis.plot(epochs[there], values[there], marker=style.MARKERS[number], ms=4, label=key, **style.looks(number))  # fmt: skip
    axis.set_ylim(0, 100)
    style.legend(axis, "below", 3)
    style.tidy(axis, "epoch", "metric, percent", "validation split")
    if "coco_ap" in columns:
        best = int(np.nanargmax(columns["coco_ap"]))
        ring = {"mfc": "none", "mec": style.ORANGE, "mew": 2, "ms": 11}
        axis.plot(epochs[best], columns["coco_ap"][best], "o", **ring)


def draw_fine_tuning(curves):
    """F1 on training images and on unseen ones, epoch by epoch, a panel for each experiment.

    Args:
        curves: {name: (E + 1, 3)}: F1 on learned images, F1 on unseen images, loss; row 0 is before training.
    """
    figure, axes = style.new_figure(max(6.0, 4.6 * len(curves)), 4.0, len(curves), sharey=True)
    parts = []
    for axis, (name, curve) in zip(axes, curves.items()):
        epochs = np.arange(len(curve))
        for column, label in enumerate(("learned from", "not learned from")):
            axis.plot(
                epochs,
                curve[:, column],
                marker=style.MARKERS[column],
                label=label,
                **style.looks(column),
            )
        axis.set_ylim(0, 1)
        style.legend(axis, "below", 2)
        style.tidy(axis, "epoch", "F1 at IoU 0.75", name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        parts.append(
            f"{name}: {curve[0, 0]:.2f} to {curve[-1, 0]:.2f} on what was learned from, "
            f"{curve[0, 1]:.2f} to {curve[-1, 1]:.2f} on other images, "
            f"loss {curve[1, 2]:.2f} to {curve[-1, 2]:.2f}"
        )
    return (
        figure,
        f"F1 at an IoU of 0.75, before training and after each epoch. {'; '.join(parts)}.",
    )


class LiveCurves:
    """Learning curves with their caption, updated in a notebook cell after each epoch.

    Pass the object to ``train(on_epoch=...)``.

    Args:
        rows: epochs of an earlier call, dicts as in log.jsonl.
        interrupted_after: see :func:`draw_learning_curve`.
        stop_after: stop the training after so many epochs of this call, like a crash.
    """

    def __init__(self, rows=(), interrupted_after=None, stop_after=None):
        self.rows, self.interrupted_after, self.stop_after = (
            list(rows),
            interrupted_after,
            stop_after,
        )
        self.seen, self.handle = 0, None

    def __call__(self, row):
        from IPython.display import display

        self.rows.append(row)
        self.seen += 1
        figure, caption = draw_learning_curve(self.rows, interrupted_after=self.interrupted_after)
        view = {"text/html": style.html(figure, caption), "text/plain": caption}
        if self.handle is None:
            self.handle = display(view, display_id=True, raw=True)
        else:
            self.handle.update(view, raw=True)
        return self.stop_after is not None and self.seen >= self.stop_after
