"""Figures of notebook 02: the network drawn from a trace of itself."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nucleus_course.figures.base import (
    BLUE,
    FOUND,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    TRUTH,
    VERMILION,
    outlined,
    panels,
    picture,
    rectangle,
    stretch,
    tidy,
)


def _activity(feature: np.ndarray) -> np.ndarray:
    """Feature map (H, W, C) -> (H, W): its first principal component over the channels, 0..1 from the 1st to 99th percentile.

    The direction in which the cells differ most; its sign is chosen so that the rarer cells are bright.
    """
    cells = feature.reshape(-1, feature.shape[-1]).astype(np.float64)
    cells = cells - cells.mean(axis=0)
    _, vectors = np.linalg.eigh(cells.T @ cells)
    values = cells @ vectors[:, -1]
    values = values * (1 if (values**3).mean() >= 0 else -1)
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1).reshape(feature.shape[:2])


def _shape(array) -> str:
    return " x ".join(str(side) for side in np.shape(array))


def draw_architecture(trace):
    """The paper's Figure 1 from a live network: every box names a tensor and its shape in this run."""
    found = trace["detections"]
    figure = Figure(figsize=(10.4, 5.0))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(0, 104)
    axis.set_ylim(0, 50)
    axis.axis("off")

    def block(x, y, width, height, text, colour):
        axis.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0.3", fc="white", ec=colour, lw=1.8
            )
        )
        axis.text(
            x + width / 2,
            y + height / 2,
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            linespacing=1.35,
        )

    def arrow(a, b, text=""):
        axis.add_patch(
            FancyArrowPatch(
                a, b, arrowstyle="-|>", mutation_scale=10, color=GREY, lw=1.2, shrinkA=1, shrinkB=1
            )
        )
        if text:
            axis.text(
                (a[0] + b[0]) / 2,
                (a[1] + b[1]) / 2 + 0.8,
                text,
                ha="center",
                fontsize=7,
                color=GREY,
            )

    def thumbnail(x, y, side, image):
        inset = axis.inset_axes((x, y, side, side), transform=axis.transData)
        inset.imshow(image, cmap="gray", interpolation="nearest", aspect="auto")
        inset.set_xticks([])
        inset.set_yticks([])

    thumbnail(1, 20, 11, stretch(trace["image"]))
    axis.text(6.5, 17.6, f"input\n{_shape(trace['input'])}", ha="center", va="top", fontsize=7.5)
    for row, (stage, level) in enumerate(zip(trace["stages"], trace["pyramid"])):
        y = 3 + 12 * row
        block(19, y, 11, 7, f"C{row + 2}\n{_shape(stage)}", BLUE)
        block(35, y, 11, 7, f"P{row + 2}\n{_shape(level)}", GREEN)
        thumbnail(47.2, y + 0.6, 6, _activity(level))
        arrow((30.6, y + 3.5), (34.4, y + 3.5))
        if row:
            arrow((24.5, y - 4.2), (24.5, y - 0.6))
            arrow((40.5, y - 0.6), (40.5, y - 4.2))
    arrow((12.4, 25.5), (18.4, 8))
    axis.text(24.5, 48.2, "trunk (ResNet)", ha="center", fontsize=8.5, color=BLUE)
    axis.text(40.5, 48.2, "feature pyramid", ha="center", fontsize=8.5, color=GREEN)
    block(57, 33, 16, 10, f"RPN\n{len(trace['anchors'])} anchors scored\nand moved", ORANGE)
    block(57, 18, 16, 9, f"NMS\n{len(trace['proposals'])} proposals", ORANGE)
    arrow((53.8, 38), (56.4, 38))
    arrow((65, 32.4), (65, 27.6))
    block(57, 3, 16, 9, "RoIAlign\n" + f"{_shape(trace['pooled'][0])} a box", PURPLE)
    arrow((65, 17.4), (65, 12.6))
    arrow((53.8, 7.5), (56.4, 7.5))
    block(
        78,
        3,
        24,
        9,
        f"box head: score and new box\nscores {_shape(trace['class_scores'])}, deltas {_shape(trace['box_deltas'])}",
        VERMILION,
    )
    arrow((73.6, 7.5), (77.4, 7.5))
    block(78, 18, 24, 9, f"NMS, then RoIAlign again\n{_shape(trace['mask_pooled'])}", PURPLE)
    arrow((90, 12.6), (90, 17.4))
    block(
        78,
        33,
        24,
        10,
        f"mask head\n{_shape(trace['mask_logits'])}\npasted: {len(found)} detections",
        VERMILION,
    )
    arrow((90, 27.6), (90, 32.4))
    axis.text(90, 48.2, "heads", ha="center", fontsize=8.5, color=VERMILION)
    axis.text(65, 48.2, "proposals", ha="center", fontsize=8.5, color=ORANGE)
    return figure, (
        f"Mask R-CNN as it ran on one image: input {_shape(trace['input'])}; pyramid levels P2 to P5 of "
        f"{', '.join(_shape(level) for level in trace['pyramid'][:4])}; {len(trace['anchors'])} anchors; "
        f"{len(trace['proposals'])} proposals; {len(found)} boxes left after the final NMS, each with a "
        f"{_shape(trace['mask_logits'][0]) if len(found) else '28 x 28'} mask."
    )


def draw_pyramid(trace, strides):
    """What the pyramid's levels respond to: the first principal component of each level's channels."""
    levels = trace["pyramid"]
    figure, axes = panels(1 + len(levels), 3, side=2.9)
    picture(axes[0], stretch(trace["image"]), "the image")
    for number, (axis, level, stride) in enumerate(zip(axes[1:], levels, strides), start=2):
        axis.imshow(_activity(level), cmap="cividis", interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(
            f"P{number}: {level.shape[0]} x {level.shape[1]}, stride {stride}", fontsize=9
        )
    return figure, (
        "The image and the first principal component of each pyramid level's channels (one picture of what differs most): "
        + ", ".join(
            f"P{n} has {lv.shape[0]} x {lv.shape[1]} cells" for n, lv in enumerate(levels, start=2)
        )
        + "."
    )


def draw_anchors(trace, config):
    """One anchor of each level in place, and the objectness of the finest levels."""
    from nucleus_course.models.mask_rcnn.anchors import level_shapes

    shapes = level_shapes(*trace["input"].shape[:2], config.strides)
    sizes = [rows * columns * len(config.anchor_ratios) for rows, columns in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    figure, axes = panels(4, 4, side=2.6)
    colours = (BLUE, ORANGE, GREEN, PURPLE, VERMILION)
    picture(axes[0], stretch(trace["image"]), "anchors at one place")
    for number, ((rows, columns), colour) in enumerate(zip(shapes, colours)):
        middle = starts[number] + ((rows // 2) * columns + columns // 2) * len(config.anchor_ratios)
        for ratio in range(len(config.anchor_ratios)):
            rectangle(
                axes[0], trace["anchors"][middle + ratio] / config.upsample, colour, width=1.6
            )
    parts = []
    for axis, number in zip(axes[1:], range(3)):
        rows, columns = shapes[number]
        score = (
            trace["rpn_scores"][starts[number] : starts[number + 1]]
            .reshape(rows, columns, -1)
            .max(axis=-1)
        )
        axis.imshow(score, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"P{number + 2}: anchors of {config.anchor_sizes[number]:g}", fontsize=9)
        parts.append(
            f"P{number + 2} (anchors of {config.anchor_sizes[number]:g} pixels) {int((score > 0.5).sum())} of {score.size}"
        )
    return figure, (
        "Left, the anchors of every level at one place. Then the RPN's score for each cell of the three finest "
        f"levels, yellow is near 1. Cells above 0.5: {'; '.join(parts)}."
    )


def crowded_group(boxes: np.ndarray, scores: np.ndarray, reach: float = 0.25):
    """Indices of boxes that overlap the box with the most overlapping neighbours, by falling score."""
    from nucleus_course.course.numbers import box_iou_matrix

    iou = box_iou_matrix(boxes, boxes)
    centre = int((iou > reach).sum(axis=1).argmax())
    group = np.flatnonzero(iou[centre] > reach)
    return group[np.argsort(-scores[group], kind="stable")]


def draw_nms_steps(image, boxes, scores, threshold: float, steps: int = 4):
    """Greedy NMS on a few boxes, one kept box a panel; boxes (N, 4) by falling score, image pixels."""
    from nucleus_course.course.numbers import box_iou_matrix

    iou = box_iou_matrix(boxes, boxes)
    alive = np.ones(len(boxes), bool)
    history = []
    for index in range(len(boxes)):
        if not alive[index]:
            continue
        dropped = np.flatnonzero(alive & (iou[index] > threshold))
        dropped = dropped[dropped > index]
        alive[dropped] = False
        history.append((index, dropped, alive.copy()))
    shown = history[:steps]
    figure, axes = panels(1 + len(shown), 1 + len(shown), side=2.3)
    low, high = boxes[:, :2].min(axis=0) - 6, boxes[:, 2:].max(axis=0) + 6
    view = stretch(image)
    picture(axes[0], view, f"{len(boxes)} boxes")
    for box in boxes:
        rectangle(axes[0], box, FOUND, width=0.8)
    for axis, (number, (index, dropped, _left)) in zip(axes[1:], enumerate(shown, start=1)):
        picture(axis, view, f"step {number}: keep {scores[index]:.2f}\ndrop {len(dropped)}")
        for other in dropped:
            rectangle(axis, boxes[other], VERMILION, style=":", width=1.0)
        rectangle(axis, boxes[index], TRUTH, width=2.2)
    for axis in axes:
        axis.set_xlim(max(low[1], 0) - 0.5, min(high[1], image.shape[1]) - 0.5)
        axis.set_ylim(min(high[0], image.shape[0]) - 0.5, max(low[0], 0) - 0.5)
    kept = len(history)
    listed = "; ".join(
        f"keep {scores[index]:.2f}, drop {len(dropped)}" for index, dropped, _ in shown
    )
    return figure, (
        f"Greedy NMS at IoU {threshold:g} on {len(boxes)} overlapping boxes: {listed}. In all {kept} are kept. "
        "Solid orange: kept in this step; dotted vermilion: dropped because of it."
    )


def draw_roi_align(grid, box, bins: int, points, values):
    """A box over a 5 x 5 grid of numbers, its bins, the sampling points and their interpolated values.

    ``box`` in grid cells, ``points`` (K, 2) as (y, x), ``values`` (K,).
    """
    figure = Figure(figsize=(8.4, 4.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows, columns = grid.shape
    left.imshow(grid, cmap="cividis", extent=(0, columns, rows, 0), alpha=0.45)
    for r in range(rows):
        for c in range(columns):
            left.text(c + 0.5, r + 0.5, f"{grid[r, c]:g}", ha="center", va="center", fontsize=9)
    y1, x1, y2, x2 = box
    for k in range(bins + 1):
        left.plot((x1, x2), (y1 + (y2 - y1) * k / bins,) * 2, color=BLUE, lw=1.6)
        left.plot((x1 + (x2 - x1) * k / bins,) * 2, (y1, y2), color=BLUE, lw=1.6)
    left.plot(points[:, 1], points[:, 0], "x", color=VERMILION, ms=7, mew=2)
    left.set_xticks(range(columns + 1))
    left.set_yticks(range(rows + 1))
    left.set_title("a 5 x 5 feature map, a box, one sample a bin", fontsize=9)
    out = np.asarray(values).reshape(bins, bins)
    right.imshow(out, cmap="cividis", vmin=grid.min(), vmax=grid.max(), alpha=0.45)
    for r in range(bins):
        for c in range(bins):
            right.text(c, r, f"{out[r, c]:.2f}", ha="center", va="center", fontsize=11)
    right.set_xticks([])
    right.set_yticks([])
    right.set_title(f"the pooled {bins} x {bins} output", fontsize=9)
    return figure, (
        f"The box ({', '.join(f'{v:g}' for v in box)}) over a 5 x 5 feature map, cut into {bins} x {bins} bins with one "
        f"sample each (crosses). The pooled values, row by row: {', '.join(f'{v:.2f}' for v in out.ravel())}."
    )


def draw_refinement(trace, truth, upsample: float, count: int = 60):
    """Proposals and the boxes that the box head made of them; and how much closer to the nuclei they are."""
    from nucleus_course.course.numbers import box_iou_matrix

    best = np.argsort(-trace["class_scores"], kind="stable")[:count]
    before, after = trace["proposals"][best] / upsample, trace["boxes"][best] / upsample
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 3, width_ratios=(1, 1, 1.1))
    for axis, boxes, title in (
        (axes[0], before, "proposals"),
        (axes[1], after, "after the box head"),
    ):
        picture(axis, stretch(trace["image"]), title)
        for box in boxes:
            rectangle(axis, box, FOUND, width=0.9)
    gain = [
        box_iou_matrix(boxes, truth).max(axis=1) if len(truth) else np.zeros(len(boxes))
        for boxes in (before, after)
    ]
    axes[2].plot(*gain, "o", color=BLUE, ms=4, alpha=0.6)
    axes[2].plot((0, 1), (0, 1), "--", color=GREY, lw=1)
    axes[2].set_xlim(0, 1)
    axes[2].set_ylim(0, 1)
    tidy(axes[2], "IoU with the nearest nucleus, before", "after")
    return figure, (
        f"The {len(best)} proposals with the highest class scores, before and after the box head moved them. Mean IoU with the nearest "
        f"nucleus's box: {gain[0].mean():.2f} before, {gain[1].mean():.2f} after."
    )


def draw_masks(trace, upsample: float, count: int = 4):
    """From mask logits to pixels: the grid's probabilities, pasted, and cut at the threshold."""
    found = trace["detections"]
    order = np.argsort(
        -(found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)
        * (found.scores >= min(0.5, found.scores.max())),
        kind="stable",
    )
    chosen = order[:count]
    image = stretch(trace["image"])
    figure, axes = panels(2 * len(chosen), len(chosen), side=2.2)
    for place, index in enumerate(chosen):
        axes[place].imshow(
            found.mask_probs[index], cmap="cividis", vmin=0, vmax=1, interpolation="nearest"
        )
        axes[place].set_xticks([])
        axes[place].set_yticks([])
        axes[place].set_title(f"28 x 28 grid, score {found.scores[index]:.2f}", fontsize=8)
        y1, x1, y2, x2 = found.mask_boxes[index]
        rows = slice(max(int(y1) - 4, 0), int(y2) + 5)
        columns = slice(max(int(x1) - 4, 0), int(x2) + 5)
        mask = found.take(np.array([index])).masks[0]
        picture(
            axes[len(chosen) + place],
            outlined(image, mask.astype(np.int32), FOUND)[rows, columns],
            f"{y2 - y1:.0f} x {x2 - x1:.0f} pixels",
        )
    return figure, (
        f"Above, the mask probabilities of {len(chosen)} detections on their 28 x 28 grids (yellow is 1); below, the same "
        "stretched over their boxes and cut at the mask threshold (light blue outline)."
    )


def draw_levels(levels, sides, canonical: float):
    """How many proposals go to each level, and from which sizes."""
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    axis = figure.subplots()
    numbers = range(2, 6)
    for number, colour in zip(numbers, (BLUE, ORANGE, GREEN, PURPLE)):
        here = sides[levels == number]
        axis.hist(
            here,
            bins=np.geomspace(4, 256, 43),
            color=colour,
            label=f"P{number}: {len(here)} boxes",
            alpha=0.85,
        )
    for number in (3, 4, 5):
        axis.axvline(canonical * 2.0 ** (number - 4), color=GREY, ls="--", lw=1)
    axis.set_xscale("log", base=2)
    axis.legend(fontsize=8, frameon=False)
    tidy(axis, "square root of the box's area, network pixels", "proposals")
    listed = ", ".join(f"P{number} {int((levels == number).sum())}" for number in numbers)
    return (
        figure,
        f"Proposals by size and the level they are pooled from: {listed}. Dashed: where the rule changes level.",
    )
