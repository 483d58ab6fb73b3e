"""The look of every figure: colours, panels, outlines, legends, and the picture as bytes.

Colours are Okabe and Ito's, which colour-blind readers can distinguish. Meaningful colours come with a
line style, marker, hatch or letter, so that figures can be printed in grey. The smallest text has 9
points, and no figure is wider than a notebook's page, so it is shown at that size. No global matplotlib
state is changed.
"""

import base64
import io
from html import escape

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#666666"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW)
TRUTH, FOUND = ORANGE, SKY  # outlines: the annotation (dashed) and the detection (solid)
TEXT = 9  # points
DPI = 96  # of a web page, so that nine points stay nine points
WIDEST = 10.4  # inches; the page would shrink a wider picture, and its text
DASHES = {"--": (4, 2), ":": (1.2, 1.8)}  # of boxes, in line widths

# For models and curves, in the order of the colours.
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
MARKERS = "os^Dv*"
HATCHES = ("", "//", "..", "xx", "\\\\", "++")

TYPE_COLOURS = {
    "small fluorescent": BLUE,
    "large fluorescent": SKY,
    "purple stain": PURPLE,
    "pink-and-purple stain": VERMILION,
    "grey tissue": GREY,
}
TYPE_MARKERS = dict(zip(TYPE_COLOURS, "osD^v"))

# Classes of error: colour and hatch of their bars, and the letter on an error map.
_CLASS_LOOKS = {
    "matched": ("#B8B8B8", "", ""),
    "poor boundary": (SKY, "//", "B"),
    "missed": (ORANGE, "xx", "M"),
    "spurious": (VERMILION, "..", "S"),
    "duplicate": (YELLOW, "oo", "D"),
    "split": (PURPLE, "||", "/"),
    "merged": (BLUE, "--", "+"),
    "cut by the edge": (GREEN, "\\\\", "E"),
}
CLASS_COLOURS = {name: colour for name, (colour, _, _) in _CLASS_LOOKS.items()}
CLASS_HATCHES = {name: hatch for name, (_, hatch, _) in _CLASS_LOOKS.items()}
CLASS_LETTERS = {name: letter for name, (_, _, letter) in _CLASS_LOOKS.items() if letter}


# ---------------------------------------------------------------- figures and captions


def new_figure(width=6.4, height=4.0, columns=1, rows=1, **kwargs):
    """A figure of ``width`` (at most :data:`WIDEST`) by ``height`` inches and its axes, row by row: (Figure, [axes])."""
    figure = Figure(figsize=(min(width, WIDEST), height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **kwargs).ravel())


def panels(count, columns, side=3.0, ratio=1.0):
    """``count`` axes in rows of ``columns``, each ``side`` inches wide and ``ratio`` times as high."""
    rows, side = -(-count // columns), min(side, WIDEST / columns)
    figure, axes = new_figure(side * columns, side * ratio * rows, columns, rows)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def signed(figure, caption, synthetic):
    """(figure, caption); both say so if the images are synthetic."""
    if synthetic:
        figure.suptitle("Synthetic images", fontsize=TEXT, x=0.01, ha="left", color=GREY)
        caption = f"Synthetic images, drawn by a program. {caption}"
    return figure, caption


def png(figure, dpi=DPI):
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def html(figure, caption, dpi=DPI):
    """A figure as an HTML ``<figure>``; ``caption`` stands below it and is its alternative text."""
    picture = base64.b64encode(png(figure, dpi)).decode("ascii")
    text = escape(caption)
    return (
        f'<figure style="margin:0"><img alt="{text}" style="max-width:100%" '
        f'src="data:image/png;base64,{picture}">'
        f'<figcaption style="max-width:60em"><em>{text}</em></figcaption></figure>'
    )


def named(reports):
    """One report, or {name: report}, as {name: report}."""
    return reports if isinstance(reports, dict) else {reports.name: reports}


def any_synthetic(reports):
    """Whether any of {name: report} is about synthetic images."""
    return any(bool(getattr(report, "synthetic", False)) for report in reports.values())


def text(value, digits=1):
    """A number for a caption; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def short(image_id):
    """An image id that fits a line: BBBC038's have 64 characters, and their first 8 are unique."""
    return image_id if len(image_id) <= 32 else image_id[:8]


# ---------------------------------------------------------------- axes


def tidy(axis, xlabel, ylabel, title=""):
    """Axis labels, an open frame, and text that can be read."""
    axis.set_xlabel(xlabel, fontsize=TEXT)
    axis.set_ylabel(ylabel, fontsize=TEXT)
    axis.tick_params(labelsize=TEXT)
    axis.spines[["top", "right"]].set_visible(False)
    if title:
        axis.set_title(title, fontsize=10)


def log_axis(axis):
    """A logarithmic x axis with plain numbers at 1, 2, 5, 10, 20, 50, ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def row_ticks(axis, names):
    """Label the rows of a horizontal bar chart, the first on top."""
    axis.set_yticks(range(len(names)), names, fontsize=TEXT)
    axis.set_ylim(len(names) - 0.5, -0.5)


def legend(axis, place="inside", ncols=1, **kwargs):
    """A legend without a frame: inside the axes, or above, below or right of them."""
    places = {
        "inside": {},
        "above": {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)},
        "below": {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)},
        "right": {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)},
    }
    kwargs = {**places[place], "title_fontsize": TEXT, **kwargs}
    return axis.legend(fontsize=TEXT, frameon=False, ncols=ncols, **kwargs)


def note(axis, x, y, words, offset=(0, 2), **kwargs):
    """Text at a point of the axes, ``offset`` points away from it."""
    kwargs = {"ha": "center", **kwargs}
    axis.annotate(words, (x, y), offset, textcoords="offset points", fontsize=TEXT, **kwargs)


def empty(axis, words):
    """Text in the middle of empty axes."""
    place = {"ha": "center", "va": "center", "transform": axis.transAxes}
    axis.text(0.5, 0.5, words, fontsize=TEXT, color=GREY, **place)


def looks(index):
    """Matplotlib keywords of the index-th line."""
    return {"color": CYCLE[index % 6], "linestyle": STYLES[index % 6], "linewidth": 1.8}


def bars(number):
    """Matplotlib keywords of the index-th group of bars."""
    return {"color": CYCLE[number % 6], "hatch": HATCHES[number % 6], "edgecolor": "white"}


# ---------------------------------------------------------------- images


def rgb(colour):
    """'#E69F00' -> (3,) uint8."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)


def picture(axis, image, title="", **kwargs):
    """Show an image without ticks or smoothing."""
    cmap = None if np.ndim(image) == 3 else "gray"
    axis.imshow(image, **{"interpolation": "nearest", "cmap": cmap, **kwargs})
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=TEXT)


def heat(axis, values, title="", **kwargs):
    """Show values (H, W) in [0, 1] as colours, yellow for 1."""
    picture(axis, values, title, **{"cmap": "cividis", "vmin": 0, "vmax": 1, **kwargs})


def stretch(image):
    """Brighten a dim image: its 1st to 99.5th percentile becomes 0 to 255. A bright one is not changed."""
    low, high = np.percentile(image, (1, 99.5))
    if high > 180 or high <= low:
        return image
    scaled = (image.astype(np.float32) - low) * (255.0 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def filled(labels):
    """A label image (H, W) as colours, uint8 (H, W, 3), with white lines between touching nuclei."""
    palette = np.stack([rgb(colour) for colour in CYCLE])
    out = np.zeros((*labels.shape, 3), np.uint8)
    inside = labels > 0
    out[inside] = palette[(labels[inside] * 3) % len(palette)]
    for view, colours in ((labels, out), (labels.T, out.transpose(1, 0, 2))):
        meet = (view[1:] != view[:-1]) & (view[1:] > 0) & (view[:-1] > 0)
        colours[1:][meet] = 255
    return out


def difference(truth, found):
    """Two masks (H, W) as colours: white for both, striped vermilion for ``truth`` alone, light blue for ``found`` alone."""
    out = np.full((*truth.shape, 3), 30, np.uint8)
    striped = np.add(*np.indices(truth.shape)) % 3 > 0
    out[truth & ~found & striped] = rgb(VERMILION)
    out[found & ~truth] = rgb(SKY)
    out[truth & found] = 255
    return out


def outline_segments(labels, ids=None, dashed=False):
    """The lines between pixels that bound the nuclei of a label image.

    Args:
        labels: (H, W) int.
        ids: the labels to outline; None for all.
        dashed: leave gaps.

    Returns:
        (S, 2, 2) float64: from (x, y) to (x, y), one pixel long; pixel centres are whole numbers.
    """
    labels = np.asarray(labels)
    padded = np.pad(labels if ids is None else np.where(np.isin(labels, ids), labels, 0), 1)
    period = max(2, max(labels.shape) // 100)
    parts = []
    for view, turned in ((padded, False), (padded.T, True)):
        row, column = np.nonzero(view[1:] != view[:-1])
        if dashed:
            shown = column // period % 2 == 0
            row, column = row[shown], column[shown]
        ends = np.stack([column - 1.5, row - 0.5, column - 0.5, row - 0.5], axis=1)
        ends = ends.reshape(-1, 2, 2)
        parts.append(ends[..., ::-1] if turned else ends)
    return np.concatenate(parts)


def outline(axis, labels, colour=TRUTH, ids=None, dashed=None, rim=True):
    """Draw outlines on an image shown by :func:`picture`, with a black rim so that they are visible on any stain.

    Args:
        labels: (H, W) int; ids: the labels to outline, None for all.
        dashed: whether the line has gaps; by default for the annotation's colour.
        rim: draw the black rim; leave it out for the second of two outlines on one image.
    """
    segments = outline_segments(labels, ids, colour == TRUTH if dashed is None else dashed)
    width = float(np.clip(450 / max(labels.shape), 0.7, 1.5))
    for line, factor in (("black", 2.0), (colour, 1.0))[not rim :]:
        axis.add_collection(
            LineCollection(segments, colors=line, linewidths=factor * width), autolim=False
        )


def draw_boxes(axis, boxes, colour, style="-", widths=1.5):
    """Draw boxes (N, 4) as (y1, x1, y2, x2) in pixels on an image shown by :func:`picture`, with a black rim.

    ``style`` is "-", "--" or ":"; ``widths`` in points; solid lines may have one for each box.
    """
    y1, x1, y2, x2 = (np.asarray(boxes, float).reshape(-1, 4) - 0.5).T  # pixel 0 spans -0.5 to 0.5
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2, x1, y1], axis=1).reshape(-1, 5, 2)
    widths = np.asarray(widths, float)
    for line, wide in (("black", widths + 1.0), (colour, widths)):
        dashes = [w * float(widths / wide) for w in DASHES[style]] if style in DASHES else None
        look = {"linestyles": (0, dashes) if dashes else "-", "linewidths": wide}
        axis.add_collection(LineCollection(corners, colors=line, **look), autolim=False)
