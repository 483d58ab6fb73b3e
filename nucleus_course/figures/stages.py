"""Figures of notebook 03: schedules, what moves, learning curves."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course.figures.base import BLUE, CYCLE, GREEN, GREY, ORANGE, PURPLE, VERMILION, tidy

LOSSES = {
    "rpn_class_loss": "RPN class",
    "rpn_box_loss": "RPN box",
    "class_loss": "class",
    "box_loss": "box",
    "mask_loss": "mask",
}


def rates_of(stages) -> np.ndarray:
    """Learning rate of every epoch of a tuple of StageConfig, (epochs,)."""
    return np.array([stage.rate_at(epoch) for stage in stages for epoch in range(stage.epochs)])


def draw_schedules(schedules: dict):
    """Learning rate against epoch, one panel a preset; ``schedules[name]`` is a tuple of StageConfig."""
    figure = Figure(figsize=(4.7 * len(schedules), 3.0), layout="constrained")
    parts = []
    for axis, (name, stages) in zip(
        np.atleast_1d(figure.subplots(1, len(schedules))), schedules.items()
    ):
        start = 0
        for stage, colour, style in zip(
            stages, (BLUE, ORANGE, GREEN, PURPLE), ("-", "--", "-.", ":")
        ):
            rates = rates_of([stage])
            axis.step(
                np.arange(start, start + len(rates) + 1),
                np.append(rates, rates[-1]),
                where="post",
                color=colour,
                ls=style,
                lw=2,
                label=f"{stage.name} ({stage.epochs} epochs)",
            )
            start += stage.epochs
        axis.set_yscale("log")
        axis.legend(fontsize=8, frameon=False, loc="lower left")
        tidy(axis, "epoch", "learning rate (log scale)", name)
        every = rates_of(stages)
        parts.append(
            f"{name}: {len(every)} epochs, rate from {every.max():.2g} at most to {every[-1]:.2g} in the last"
        )
    return figure, "; ".join(parts) + "."


def draw_moving(table: dict):
    """Millions of weights that move and that are frozen, ``table[preset][stage] = (moving, all)``."""
    rows = [
        (preset, stage, moving, total)
        for preset, stages in table.items()
        for stage, (moving, total) in stages.items()
    ]
    figure = Figure(figsize=(8.4, 0.42 * len(rows) + 0.9), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(rows))
    share = np.array([100 * moving / total for _, _, moving, total in rows])
    axis.barh(places, share, color=BLUE, label="moves")
    axis.barh(
        places, 100 - share, left=share, color="white", edgecolor=GREY, hatch="///", label="frozen"
    )
    axis.set_yticks(places, [f"{preset}, {stage}" for preset, stage, _, _ in rows], fontsize=8)
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.18))
    tidy(axis, "percent of the weights", "")
    listed = "; ".join(
        f"{preset}, {stage}: {moving / 1e6:.1f} of {total / 1e6:.1f} million"
        for preset, stage, moving, total in rows
    )
    return figure, f"Weights that move in each stage. {listed}."


def draw_curves(rows, interrupted_after: int | None = None):
    """Losses by epoch from the log's rows (dicts), with the stages marked."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.array([row["epoch"] for row in rows])
    left.plot(epochs, [row["loss"] for row in rows], "o-", color=BLUE, ms=4)
    tidy(left, "epoch", "total loss")
    for (key, name), colour, marker in zip(LOSSES.items(), CYCLE, "os^Dv"):
        right.plot(
            epochs,
            [row.get(key, np.nan) for row in rows],
            marker=marker,
            color=colour,
            ms=4,
            lw=1.2,
            label=name,
        )
    right.set_yscale("log")
    right.legend(
        fontsize=7, edgecolor="none", framealpha=0.9, ncols=2
    )  # a stage's dashed line may pass behind it
    tidy(right, "epoch", "each loss (log scale)")
    for axis in (left, right):
        for before, after in zip(rows, rows[1:]):
            if before["stage"] != after["stage"]:
                axis.axvline(after["epoch"] - 0.5, color=GREY, ls="--", lw=1)
        if interrupted_after is not None and len(rows) > interrupted_after:
            axis.axvline(interrupted_after + 0.5, color=VERMILION, ls=":", lw=2)
        axis.set_xticks(epochs if len(epochs) <= 12 else epochs[:: len(epochs) // 8])
    changed = f"The total loss goes from {rows[0]['loss']:.2f} to {rows[-1]['loss']:.2f} in {len(rows)} epochs"
    parts = [
        f"{name} {rows[0][key]:.2f} to {rows[-1][key]:.2f}"
        for key, name in LOSSES.items()
        if key in rows[0] and key in rows[-1]
    ]
    changed += f" ({', '.join(parts)})" if parts else ""
    marks = "dashed lines: a new stage begins" + (
        "; dotted: the interruption" if interrupted_after is not None else ""
    )
    return figure, f"{changed}; {marks}."


class LiveCurves:
    """Learning curves with their caption, drawn again after each epoch in the cell that made them.

    Give the object to ``train(on_epoch=...)``. ``stop_after`` ends the training after that many epochs of
    this call, as a crash or a closed laptop would.
    """

    def __init__(
        self, rows=(), interrupted_after: int | None = None, stop_after: int | None = None
    ):
        self.rows, self.interrupted_after, self.stop_after = (
            list(rows),
            interrupted_after,
            stop_after,
        )
        self.seen, self.handles = 0, None

    def __call__(self, row) -> bool:
        from IPython.display import Image, Markdown, display

        from nucleus_course.course.setup import png

        self.rows.append(row)
        self.seen += 1
        figure, caption = draw_curves(self.rows, self.interrupted_after)
        views = Image(data=png(figure), format="png", alt=caption), Markdown(f"*{caption}*")
        if self.handles is None:
            self.handles = [display(view, display_id=True) for view in views]
        else:
            for handle, view in zip(self.handles, views):
                handle.update(view)
        return self.stop_after is not None and self.seen >= self.stop_after
