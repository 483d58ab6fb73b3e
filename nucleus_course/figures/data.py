"""Figures of the data notebooks (00, 01): the task, the images, sizes, crowding, augmentation."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course.figures.base import (
    BLUE,
    FOUND,
    GREY,
    ORANGE,
    TRUTH,
    TYPE_COLOURS,
    TYPE_MARKERS,
    filled,
    log_axis,
    outlined,
    panels,
    picture,
    rectangle,
    short,
    stretch,
    tidy,
)


def draw_task(record):
    """Image, its foreground cut into connected pieces, and the nuclei one by one."""
    from skimage.measure import label

    pieces = label(record.labels > 0, connectivity=1)
    figure, axes = panels(3, 3, side=3.1)
    picture(axes[0], stretch(record.image), "the image")
    picture(axes[1], filled(pieces), f"foreground: {pieces.max()} connected pieces")
    picture(axes[2], filled(record.labels), f"instances: {record.count} nuclei")
    return figure, (
        f"Left, a {record.type} image. Middle, its foreground: {pieces.max()} connected pieces. "
        f"Right, its annotation: {record.count} nuclei, white lines where two of them touch."
    )


def draw_detections(record, labels, *, what="detections"):
    """Image, annotation and detections side by side; ``labels`` (H, W) is the detected label image."""
    figure, axes = panels(3, 3, side=3.1)
    image = stretch(record.image)
    found = len(np.unique(labels)) - (0 in labels)
    picture(axes[0], image, "the image")
    picture(axes[1], outlined(image, record.labels, TRUTH), f"annotation: {record.count} nuclei")
    picture(axes[2], outlined(image, labels, FOUND), f"{what}: {found} nuclei")
    return figure, (
        f"A {record.type} image with {record.count} annotated nuclei (orange outlines, middle) and "
        f"{found} {what} (light blue outlines, right)."
    )


def draw_samples(records):
    """After the paper's Figure 2: images above, their merged masks below."""
    figure, axes = panels(2 * len(records), len(records), side=1.9)
    for index, record in enumerate(records):
        picture(
            axes[index], stretch(record.image), f"{record.type}\n{record.height} x {record.width}"
        )
        picture(axes[len(records) + index], filled(record.labels), f"{record.count} nuclei")
    listed = "; ".join(f"{record.type}, {record.count} nuclei" for record in records)
    return (
        figure,
        f"Top, one image of each type; below, its masks merged into one label image. {listed}.",
    )


def draw_record(record, show="outlines"):
    """One image for the browser: ``show`` is image, outlines, masks or boxes."""
    figure = Figure(figsize=(5.2, 5.2), layout="constrained")
    axis = figure.subplots()
    image = stretch(record.image)
    title = f"{record.type}, {record.height} x {record.width}, {record.count} nuclei"
    if show == "masks":
        picture(axis, filled(record.labels), title)
    else:
        picture(axis, outlined(image, record.labels) if show == "outlines" else image, title)
    if show == "boxes":
        for box in record.boxes:
            rectangle(axis, box, TRUTH, width=0.9)
    area = f", median area {np.median(record.areas):.0f} pixels" if record.count else ""
    return figure, f"Image {short(record.id)}: {title}{area}. Shown: {show}."


def draw_sizes(counts: dict, areas: dict):
    """Nuclei an image and size of a nucleus, by image type.

    ``counts[type]`` are nuclei an image, ``areas[type]`` areas in pixels; both lists of numbers.
    """
    types = [kind for kind in TYPE_COLOURS if counts.get(kind)]
    figure = Figure(figsize=(9.2, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    rng = np.random.default_rng(0)
    for row, kind in enumerate(types):
        jitter = row + rng.uniform(-0.25, 0.25, len(counts[kind]))
        left.plot(
            np.maximum(counts[kind], 0.7),
            jitter,
            TYPE_MARKERS[kind],
            color=TYPE_COLOURS[kind],
            ms=4,
            alpha=0.6,
        )
        left.plot(np.median(counts[kind]), row, "|", color="black", ms=22, mew=2)
        side = np.sqrt(np.asarray(areas[kind], float))
        low, middle, high = np.percentile(side, (5, 50, 95))
        right.plot(
            (low, high),
            (row, row),
            color=TYPE_COLOURS[kind],
            lw=6,
            alpha=0.6,
            solid_capstyle="butt",
        )
        right.plot(middle, row, "|", color="black", ms=22, mew=2)
    for axis, label in (
        (left, "nuclei an image (log scale)"),
        (right, "size of a nucleus: square root of its area, pixels (log scale)"),
    ):
        log_axis(axis)
        axis.set_yticks(range(len(types)), types)
        axis.set_ylim(len(types) - 0.5, -0.5)
        tidy(axis, label, "")
    every = np.concatenate([np.asarray(counts[kind], float) for kind in types])
    sides = np.sqrt(np.concatenate([np.asarray(areas[kind], float) for kind in types]))
    return figure, (
        f"Left, one mark an image; right, the middle 90% of nuclei; black bars are medians. An image holds "
        f"{every.min():.0f} to {every.max():.0f} nuclei (median {np.median(every):.0f}); nuclei are "
        f"{np.percentile(sides, 5):.0f} to {np.percentile(sides, 95):.0f} pixels across (5th to 95th percentile)."
    )


def draw_crowding(shares: dict):
    """Share of nuclei that touch another nucleus or the image's edge: ``shares[type] = (touching, edge)`` in percent."""
    types = [kind for kind in TYPE_COLOURS if kind in shares]
    figure = Figure(figsize=(7.6, 2.6), layout="constrained")
    axis = figure.subplots()
    rows = np.arange(len(types))
    touching, edge = ([shares[kind][i] for kind in types] for i in (0, 1))
    axis.barh(rows - 0.19, touching, 0.36, color=BLUE, label="touch another nucleus")
    axis.barh(
        rows + 0.19,
        edge,
        0.36,
        color=ORANGE,
        hatch="///",
        edgecolor="white",
        label="cut by the image's edge",
    )
    axis.set_yticks(rows, types)
    axis.invert_yaxis()
    axis.legend(fontsize=8, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    tidy(axis, "percent of nuclei", "")
    listed = "; ".join(
        f"{kind} {shares[kind][0]:.0f}% and {shares[kind][1]:.0f}%" for kind in types
    )
    return figure, f"Percent of nuclei that touch another, and that the edge cuts: {listed}."


def draw_augmentations(record, views):
    """The original and its augmented views, outlines included; ``views`` is a list of (image, labels)."""
    figure, axes = panels(1 + len(views), 4, side=2.3)
    picture(
        axes[0], outlined(stretch(record.image), record.labels), f"original\n{record.count} nuclei"
    )
    for number, (axis, (image, labels)) in enumerate(zip(axes[1:], views), start=1):
        picture(
            axis,
            outlined(stretch(image), labels),
            f"view {number}\n{len(np.unique(labels)) - 1} nuclei",
        )
    counts = ", ".join(str(len(np.unique(labels)) - 1) for _, labels in views)
    return figure, (
        f"One image and {len(views)} augmented views of it. The outlines move with the pixels; "
        f"cropping leaves {counts} of {record.count} nuclei in view."
    )


def draw_round_trip(mask, grid, pasted, sizes, ious):
    """One mask through a 28x28 grid and back, and the IoU of many such trips against size."""
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.9))
    both = np.zeros((*mask.shape, 3), np.uint8)
    both[mask & pasted] = 255
    both[mask & ~pasted] = (213, 94, 0)
    both[~mask & pasted] = (86, 180, 233)
    one = (mask & pasted).sum() / (mask | pasted).sum()
    picture(axes[0], mask, "the mask")
    picture(axes[1], grid, f"on a {grid.shape[0]} x {grid.shape[1]} grid")
    picture(axes[2], both, f"pasted back: IoU {one:.3f}")
    axes[3].plot(sizes, ious, ".", color=BLUE, ms=3, alpha=0.4)
    log_axis(axes[3])
    axes[3].set_ylim(min(0.7, min(ious)), 1.005)
    tidy(axes[3], "longer side of the nucleus, pixels (log scale)", "IoU after the round trip")
    return figure, (
        f"A mask, the same on the grid, and pasted back (white: kept; vermilion: lost; light blue: gained). "
        f"Right, {len(ious)} nuclei: mean IoU {np.mean(ious):.3f}, worst {np.min(ious):.3f}."
    )


def draw_anchor_coverage(sizes, coverage: dict):
    """Best IoU that any anchor has with a nucleus, against its size; ``coverage[preset]`` are IoUs (N,)."""
    figure, axes = panels(len(coverage), len(coverage), side=4.3, ratio=0.66)
    parts = []
    for axis, (name, best) in zip(axes, coverage.items()):
        axis.plot(sizes, best, ".", color=BLUE, ms=3, alpha=0.35)
        axis.axhline(0.5, color=GREY, lw=1, ls="--")
        log_axis(axis)
        axis.set_ylim(0, 1)
        tidy(
            axis, "longer side of the nucleus, pixels (log scale)", "IoU with its best anchor", name
        )
        parts.append(
            f"{name}: {100 * np.mean(best >= 0.5):.0f}% of nuclei have an anchor at IoU 0.5 or more, "
            f"{100 * np.mean(best >= 0.7):.0f}% at 0.7"
        )
    return figure, "; ".join(parts) + ". The dashed line is IoU 0.5."
