"""Statistics of nuclei: sizes, crowding, limits of masks and anchors, measurements, scales."""

import numpy as np

from nucleus_course.figures import style
from nucleus_course.figures.images import count_labels


def draw_sizes(counts, areas):
    """Nuclei per image and sizes of nuclei, by image type.

    Args:
        counts: {type: numbers of nuclei, one for each image}; areas: {type: areas in pixels}.
    """
    types = [kind for kind in style.TYPE_COLOURS if counts.get(kind)]
    figure, (left, right) = style.new_figure(9.6, 3.2, 2)
    rng = np.random.default_rng(0)
    sides = {kind: np.sqrt(np.asarray(areas[kind], float)) for kind in types}
    for row, kind in enumerate(types):
        jitter = row + rng.uniform(-0.25, 0.25, len(counts[kind]))
        look = {"color": style.TYPE_COLOURS[kind], "alpha": 0.6}
        left.plot(np.maximum(counts[kind], 0.7), jitter, style.TYPE_MARKERS[kind], ms=4, **look)
        low, middle, high = np.percentile(sides[kind], (5, 50, 95))
        right.plot((low, high), (row, row), lw=6, solid_capstyle="butt", **look)
        for axis, place in ((left, np.median(counts[kind])), (right, middle)):
            axis.plot(place, row, "|", color="black", ms=22, mew=2)
    for axis, label in ((left, "nuclei in an image (log scale)"),
                        (right, "size of a nucleus: square root of its area, pixels (log scale)")):  # fmt: skip
        style.log_axis(axis)
        style.row_ticks(axis, types)
        style.tidy(axis, label, "")
    every = np.concatenate([np.asarray(counts[kind], float) for kind in types])
    low, high = np.percentile(np.concatenate(list(sides.values())), (5, 95))
    return figure, (
        "Left, one mark for each image; right, the middle 90% of the nuclei; black bars are medians. An image holds "
        f"{every.min():.0f} to {every.max():.0f} nuclei (median {np.median(every):.0f}); nuclei are "
        f"{low:.0f} to {high:.0f} pixels across (5th to 95th percentile)."
    )


def draw_crowding(shares):
    """Nuclei that touch another or the image's edge: ``shares[type] = (touching, edge)`` in percent."""
    types = [kind for kind in style.TYPE_COLOURS if kind in shares]
    figure, (axis,) = style.new_figure(7.6, 3.0)
    for number, label in enumerate(("touch another nucleus", "cut by the image's edge")):
        values = [shares[kind][number] for kind in types]
        axis.barh(np.arange(len(types)) + 0.38 * number - 0.19, values, 0.36, label=label, **style.bars(number))  # fmt: skip
    style.row_ticks(axis, types)
    style.legend(axis, "above", 2)
    style.tidy(axis, "percent of nuclei", "")
    listed = "; ".join(f"{k} {shares[k][0]:.0f}% and {shares[k][1]:.0f}%" for k in types)
    return figure, f"Percent of nuclei that touch another, and that the edge cuts: {listed}."


def draw_round_trip(mask, grid, pasted, sizes, ious):
    """A mask on its grid and pasted back, and the IoU of many such round trips against size.

    Args:
        mask, grid, pasted: as from :func:`~nucleus_course.geometry.masks.round_trip`.
        sizes, ious: (N,) of many nuclei, pixels and fractions.
    """
    figure, axes = style.new_figure(style.WIDEST, 3.0, 4, width_ratios=(1, 1, 1, 1.9))
    one = (mask & pasted).sum() / (mask | pasted).sum()
    style.picture(axes[0], mask, "the mask")
    style.picture(axes[1], grid, f"on a {grid.shape[0]} x {grid.shape[1]} grid")
    style.picture(axes[2], style.difference(mask, pasted), f"pasted back: IoU {one:.3f}")
    axes[3].plot(sizes, ious, ".", color=style.BLUE, ms=3, alpha=0.4)
    style.log_axis(axes[3])
    axes[3].set_ylim(min(0.7, min(ious)), 1.005)
    style.tidy(
        axes[3], "longer side of the nucleus, pixels (log scale)", "IoU after the round trip"
    )
    return figure, (
        "A mask, the same on the grid, and pasted back (white: kept; striped: lost; light blue: gained). "
        f"Right, {len(ious)} nuclei: mean IoU {np.mean(ious):.3f}, worst {np.min(ious):.3f}."
    )


def draw_anchor_coverage(sizes, coverage):
    """The best IoU of an anchor with each nucleus, against its size; ``coverage[preset]`` are IoUs (N,)."""
    figure, axes = style.panels(len(coverage), len(coverage), side=4.8, ratio=0.66)
    parts = []
    for axis, (name, best) in zip(axes, coverage.items()):
        axis.plot(sizes, best, ".", color=style.BLUE, ms=3, alpha=0.35)
        axis.axhline(0.5, color=style.GREY, lw=1, ls="--")
        style.log_axis(axis)
        axis.set_ylim(0, 1)
        style.tidy(
            axis, "longer side of the nucleus, pixels (log)", "IoU with its best anchor", name
        )
        half, more = (100 * np.mean(best >= iou) for iou in (0.5, 0.7))
        parts.append(f"{name}: {half:.0f}% of nuclei have an anchor at IoU 0.5 or more, {more:.0f}% at 0.7")  # fmt: skip
    return figure, "; ".join(parts) + ". The dashed line is IoU 0.5."


def draw_measurements(diameters, eccentricities):
    """Histogram of equivalent diameters (micrometres), and shape against size."""
    figure, (left, right) = style.new_figure(8.8, 3.1, 2)
    left.hist(diameters, bins=24, color=style.BLUE)
    style.tidy(left, "equivalent diameter, micrometres", "nuclei")
    right.plot(diameters, eccentricities, "o", color=style.ORANGE, ms=4, alpha=0.7)
    right.set_ylim(0, 1)
    style.tidy(right, "equivalent diameter, micrometres", "eccentricity (0: round)")
    if not len(diameters):
        return figure, "No nuclei to measure."
    low, middle, high = np.percentile(diameters, (5, 50, 95))
    return figure, (
        f"{len(diameters)} nuclei: median diameter {middle:.1f} micrometres, 90% between {low:.1f} and {high:.1f}; "
        f"median eccentricity {np.median(eccentricities):.2f}."
    )


def draw_scales(scales, results):
    """Counts against the scale of the image; ``results`` holds (image, labels) for each scale."""
    counts = [count_labels(labels) for _, labels in results]
    areas = [np.bincount(labels[labels > 0]) for _, labels in results]
    sides = [np.median(np.sqrt(area[area > 0])) if area.any() else 0.0 for area in areas]
    figure, axes = style.panels(len(scales) + 1, 3, side=3.6)
    axes[0].plot(scales, counts, "o-", color=style.BLUE)
    axes[0].set_xscale("log")
    axes[0].set_xticks(scales, [f"{s:g}" for s in scales], fontsize=style.TEXT)
    axes[0].minorticks_off()
    axes[0].set_ylim(bottom=0)
    style.tidy(axes[0], "scale", "detections")
    for axis, scale, count, (image, labels) in zip(axes[1:], scales, counts, results):
        style.picture(axis, image, f"scale {scale:g}: {count}")
        style.outline(axis, labels, style.FOUND)
    listed = ", ".join(
        f"{scale:g}: {count} (median {side:.0f} pixels across)"
        for scale, count, side in zip(scales, counts, sides)
    )
    return figure, f"Detections by scale, the same view at each. {listed}."


def draw_scores(scores, threshold):
    """Histogram of all scores (N,) with the operating point."""
    figure, (axis,) = style.new_figure(6.0, 2.8)
    axis.hist(scores, bins=np.linspace(0, 1, 41), color=style.BLUE)
    axis.axvline(threshold, color=style.GREY, ls="--", lw=1.5)
    style.tidy(axis, "score", "detections")
    above = scores[scores >= threshold]
    sure = 100 * np.mean(above >= threshold + 0.2) if len(above) else 0.0
    return figure, (
        f"{len(scores)} detections of any score, {len(above)} at or above the threshold {threshold:.2f} (dashed); {sure:.0f}% of those "
        "are above it by 0.2 or more."
    )
