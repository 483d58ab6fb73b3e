"""What the figures share: error classes' colours, the note on synthetic images, several models in one figure."""

from matplotlib.figure import Figure

from nucleus_course.figures.base import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    tidy,
)

# A line's look for each model, a bar's for each class: style, marker or hatch say the same as the colour.
MODEL_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
MODEL_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MODEL_MARKERS = "os^Dv*"
MODEL_HATCHES = ("", "//", "..", "xx", "\\\\", "++")

CLASS_COLOURS = {
    "matched": "#B8B8B8",
    "poor boundary": SKY,
    "missed": ORANGE,
    "spurious": VERMILION,
    "duplicate": YELLOW,
    "split": PURPLE,
    "merged": BLUE,
    "cut by the edge": GREEN,
}
CLASS_HATCHES = {
    "matched": "", "poor boundary": "//", "missed": "xx", "spurious": "..", "duplicate": "oo", "split": "||",
    "merged": "--", "cut by the edge": "\\\\",
}  # fmt: skip
# Named beside an object on an error map.
CLASS_LETTERS = {
    "poor boundary": "B", "missed": "M", "spurious": "S", "duplicate": "D", "split": "/", "merged": "+", "cut by the edge": "E",
}  # fmt: skip


def new_figure(width=6.4, height=4.0, columns=1, **kwargs):
    """A figure and its axes in one row: (Figure, [axes])."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, **kwargs)[0]
    return figure, list(axes)


def signed(figure, caption, synthetic):
    """The finished pair (figure, caption); both say so where the images are synthetic."""
    if synthetic:
        figure.suptitle("Synthetic images", fontsize=8, x=0.01, ha="left", color=GREY)
        caption = f"Synthetic images, drawn by a program. {caption}"
    return figure, caption


def named(reports):
    """One report, a list of them, or {name: report} as {name: report}."""
    if isinstance(reports, dict):
        return reports
    reports = list(reports) if isinstance(reports, (list, tuple)) else [reports]
    found = {}
    for report in reports:
        name, number = report.name, 2
        while name in found:
            name, number = f"{report.name} ({number})", number + 1
        found[name] = report
    return found


def any_synthetic(reports):
    """Whether one of {name: report} is about synthetic images."""
    return any(bool(getattr(report, "synthetic", False)) for report in reports.values())


def looks(index):
    """Line keywords of the index-th model."""
    return {
        "color": MODEL_COLOURS[index % 6],
        "linestyle": MODEL_STYLES[index % 6],
        "linewidth": 1.8,
    }


def empty(axis, text):
    """Say in the middle of an axes why there is nothing in it."""
    axis.text(
        0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, fontsize=9, color=GREY
    )


def percent_axis(axis, which="y", top=100.0):
    """An axis from 0 to ``top`` percent."""
    getattr(axis, f"set_{which}lim")(0, top)


def text(value, digits=1):
    """A number for a caption; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


__all__ = [
    "BLUE", "GREEN", "GREY", "ORANGE", "PURPLE", "SKY", "VERMILION", "YELLOW", "CLASS_COLOURS", "CLASS_HATCHES",
    "CLASS_LETTERS", "MODEL_COLOURS", "MODEL_HATCHES", "MODEL_MARKERS", "MODEL_STYLES", "any_synthetic", "empty", "looks",
    "named", "new_figure", "percent_axis", "signed", "text", "tidy",
]  # fmt: skip
