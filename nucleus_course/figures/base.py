"""Shared by the notebooks' figures: colours, panels, outlines.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; wherever colour carries a
meaning, line style, marker or text carries it too. Every ``draw_*`` function of the course returns
``(Figure, caption)`` and touches no global matplotlib state.
"""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course.data.labels import outlines

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#666666"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
TRUTH, FOUND = ORANGE, SKY  # outlines on images: the annotation, the detection
TYPE_COLOURS = {
    "small fluorescent": BLUE,
    "large fluorescent": SKY,
    "purple stain": PURPLE,
    "pink-and-purple stain": VERMILION,
    "grey tissue": GREY,
}
TYPE_MARKERS = dict(zip(TYPE_COLOURS, "osD^v"))


def rgb(colour: str) -> np.ndarray:
    """'#E69F00' -> (3,) uint8."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def panels(count: int, columns: int, side: float = 3.0, ratio: float = 1.0):
    """A figure with ``count`` axes in rows of ``columns``, each ``side`` inches wide; spare axes are hidden."""
    rows = -(-count // columns)
    figure = Figure(figsize=(side * columns, side * ratio * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, list(axes[:count])


def short(image_id: str) -> str:
    """An image id that fits a line: BBBC038's have 64 characters."""
    return image_id if len(image_id) <= 32 else image_id[:8]


def picture(axis, image, title: str = "") -> None:
    """An image without ticks, its pixels unsmoothed, under a title."""
    axis.imshow(image, interpolation="nearest", cmap=None if np.ndim(image) == 3 else "gray")
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=9)


def filled(labels: np.ndarray) -> np.ndarray:
    """A label map (H, W) as colours uint8 (H, W, 3): one colour a nucleus, white lines where two meet."""
    palette = np.stack([rgb(colour) for colour in CYCLE])
    out = np.zeros((*labels.shape, 3), np.uint8)
    inside = labels > 0
    out[inside] = palette[(labels[inside] * 3) % len(palette)]
    for axis in (0, 1):
        a = labels if axis == 0 else labels.T
        meet = (a[1:] != a[:-1]) & (a[1:] > 0) & (a[:-1] > 0)
        (out if axis == 0 else out.transpose(1, 0, 2))[1:][meet] = 255
    return out


def outlined(
    image: np.ndarray, labels: np.ndarray, colour: str = TRUTH, thick: bool = False
) -> np.ndarray:
    """A copy of ``image`` uint8 (H, W, 3) with the nuclei's boundary pixels painted."""
    out = np.array(image)
    edge = outlines(labels)
    if thick:
        grown = edge.copy()
        grown[1:] |= edge[:-1]
        grown[:, 1:] |= edge[:, :-1]
        edge = grown
    out[edge] = rgb(colour)
    return out


def rectangle(axis, box, colour, style="-", width=1.5, label=None) -> None:
    """Draw a box (y1, x1, y2, x2) given in pixels on an image shown by :func:`picture`."""
    from matplotlib.patches import Rectangle

    y1, x1, y2, x2 = (float(v) - 0.5 for v in box)  # imshow puts pixel 0 at -0.5 .. 0.5
    axis.add_patch(
        Rectangle(
            (x1, y1), x2 - x1, y2 - y1, fill=False, ec=colour, ls=style, lw=width, label=label
        )
    )


def stretch(image: np.ndarray) -> np.ndarray:
    """Dim images made visible for the eye: 1st to 99.5th percentile to 0 to 255. Bright ones stay as they are."""
    low, high = np.percentile(image, (1, 99.5))
    if high > 180 or high <= low:
        return image
    return np.clip((image.astype(np.float32) - low) * (255.0 / (high - low)), 0, 255).astype(
        np.uint8
    )


def tidy(axis, xlabel: str, ylabel: str, title: str = "") -> None:
    """Axis labels and an open frame."""
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if title:
        axis.set_title(title, fontsize=10)


def log_axis(axis) -> None:
    """A logarithmic x axis with plain numbers at 1, 2, 5, 10, 20, 50, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
