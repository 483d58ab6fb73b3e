"""Inside Mask R-CNN: the network drawn from the trace of a prediction, step by step."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from nucleus_course.figures import style
from nucleus_course.geometry.boxes import iou_matrix


def _activity(feature):
    """Feature map (H, W, C) -> (H, W): its first principal component over the channels, 0 to 1.

    The range is the 1st to the 99th percentile; the sign is chosen so that the rarer cells are bright.
    """
    cells = feature.reshape(-1, feature.shape[-1]).astype(np.float64)
    cells = cells - cells.mean(axis=0)
    _, vectors = np.linalg.eigh(cells.T @ cells)
    values = cells @ vectors[:, -1]
    values = values * (1 if (values**3).mean() >= 0 else -1)
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1).reshape(feature.shape[:2])


def _shape(array):
    return " x ".join(str(side) for side in np.shape(array))


class _Diagram:
    """Blocks, arrows and thumbnails on a sheet of 104 by 50 units."""

    def __init__(self):
        self.figure = Figure(figsize=(style.WIDEST, 5.4))
        self.axis = self.figure.add_axes((0, 0, 1, 1))
        self.axis.set(xlim=(0, 104), ylim=(0, 50))
        self.axis.axis("off")

    def words(self, x, y, text, **kwargs):
        self.axis.text(
            x, y, text, **{"ha": "center", "va": "center", "fontsize": style.TEXT, **kwargs}
        )

    def block(self, x, y, width, height, text, colour):
        look = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": colour, "lw": 1.8}
        self.axis.add_patch(FancyBboxPatch((x, y), width, height, **look))
        self.words(x + width / 2, y + height / 2, text, linespacing=1.35)

    def arrow(self, start, end):
        look = {"arrowstyle": "-|>", "mutation_scale": 10, "color": style.GREY, "lw": 1.2}
        self.axis.add_patch(FancyArrowPatch(start, end, shrinkA=1, shrinkB=1, **look))

    def thumbnail(self, x, y, side, image):
        inset = self.axis.inset_axes((x, y, side, side), transform=self.axis.transData)
        style.picture(inset, image, aspect="auto")


def draw_architecture(trace):
    """The paper's Figure 1, with the shape of each tensor in this run."""
    sheet = _Diagram()
    _draw_trunk(sheet, trace)
    _draw_heads(sheet, trace)
    found = trace["detections"]
    mask = _shape(trace["mask_logits"][0]) if len(found) else "28 x 28"
    return sheet.figure, (
        f"Mask R-CNN as it ran on one image: input {_shape(trace['input'])}; pyramid levels P2 to P5 of "
        f"{', '.join(_shape(level) for level in trace['pyramid'][:4])}; {len(trace['anchors'])} anchors; "
        f"{len(trace['proposals'])} proposals; {len(found)} boxes left after the final NMS, each with a {mask} mask."
    )


def _draw_trunk(sheet, trace):
    sheet.thumbnail(1, 20, 11, style.stretch(trace["image"]))
    sheet.words(6.5, 16.4, f"input\n{_shape(trace['input'])}")
    for row, (stage, level) in enumerate(zip(trace["stages"], trace["pyramid"])):
        y = 3 + 12 * row
        sheet.block(19, y, 11, 7, f"C{row + 2}\n{_shape(stage)}", style.BLUE)
        sheet.block(35, y, 11, 7, f"P{row + 2}\n{_shape(level)}", style.GREEN)
        sheet.thumbnail(47.2, y + 0.6, 6, _activity(level))
        sheet.arrow((30.6, y + 3.5), (34.4, y + 3.5))
        if row:
            sheet.arrow((24.5, y - 4.2), (24.5, y - 0.6))
            sheet.arrow((40.5, y - 0.6), (40.5, y - 4.2))
    sheet.arrow((12.4, 25.5), (18.4, 8))
    sheet.words(24.5, 48.6, "trunk (ResNet)", color=style.BLUE, fontsize=10)
    sheet.words(40.5, 48.6, "feature pyramid", color=style.GREEN, fontsize=10)


def _draw_heads(sheet, trace):
    anchors, proposals = len(trace["anchors"]), len(trace["proposals"])
    sheet.block(57, 33, 16, 10, f"RPN\n{anchors} anchors scored\nand moved", style.ORANGE)
    sheet.block(57, 18, 16, 9, f"NMS\n{proposals} proposals", style.ORANGE)
    sheet.block(57, 3, 16, 9, f"RoIAlign\n{_shape(trace['pooled'][0])} a box", style.PURPLE)
    scores, deltas = _shape(trace["class_scores"]), _shape(trace["box_deltas"])
    box_head = f"box head: score and new box\nscores {scores}, deltas {deltas}"
    sheet.block(78, 3, 24, 9, box_head, style.VERMILION)
    pooled, logits = _shape(trace["mask_pooled"]), _shape(trace["mask_logits"])
    sheet.block(78, 18, 24, 9, f"NMS, then RoIAlign again\n{pooled}", style.PURPLE)
    mask_head = f"mask head\n{logits}\npasted: {len(trace['detections'])} detections"
    sheet.block(78, 33, 24, 10, mask_head, style.VERMILION)
    for start, end in (
        ((53.8, 38), (56.4, 38)),  # pyramid to RPN
        ((65, 32.4), (65, 27.6)),
        ((65, 17.4), (65, 12.6)),
        ((53.8, 7.5), (56.4, 7.5)),  # pyramid to RoIAlign
        ((73.6, 7.5), (77.4, 7.5)),
        ((90, 12.6), (90, 17.4)),
        ((90, 27.6), (90, 32.4)),
    ):
        sheet.arrow(start, end)
    sheet.words(65, 48.6, "proposals", color=style.ORANGE, fontsize=10)
    sheet.words(90, 48.6, "heads", color=style.VERMILION, fontsize=10)


def draw_pyramid(trace, strides):
    """The first principal component of the channels of each pyramid level."""
    levels = trace["pyramid"]
    figure, axes = style.panels(1 + len(levels), 3, side=3.8)
    style.picture(axes[0], style.stretch(trace["image"]), "the image")
    sizes = [f"{level.shape[0]} x {level.shape[1]}" for level in levels]
    for number, (axis, level, size, stride) in enumerate(zip(axes[1:], levels, sizes, strides), 2):
        style.heat(axis, _activity(level), f"P{number}: {size}, stride {stride}")
    listed = ", ".join(f"P{n} has {size} cells" for n, size in enumerate(sizes, start=2))
    return figure, (
        "The image and the first principal component of each pyramid level's channels (what differs most, "
        f"as one picture): {listed}."
    )


def draw_anchors(trace, config):
    """One anchor of each level on the image, and the objectness on the finest levels."""
    from nucleus_course.models.mask_rcnn.anchors import level_shapes

    shapes, ratios = level_shapes(*trace["input"].shape[:2], config.strides), len(config.anchor_ratios)  # fmt: skip
    starts = np.cumsum([0, *(rows * columns * ratios for rows, columns in shapes)])
    figure, axes = style.panels(4, 2, side=5.2)
    style.picture(axes[0], style.stretch(trace["image"]), "anchors at one place")
    for start, (rows, columns), colour in zip(starts, shapes, style.CYCLE):
        middle = start + ((rows // 2) * columns + columns // 2) * ratios
        style.draw_boxes(
            axes[0], trace["anchors"][middle : middle + ratios] / config.upsample, colour
        )
    parts = []
    for number, axis in enumerate(axes[1:]):
        score = trace["rpn_scores"][starts[number] : starts[number + 1]]
        score = score.reshape(*shapes[number], -1).max(axis=-1)
        size = f"{config.anchor_sizes[number]:g}"
        style.heat(axis, score, f"P{number + 2}: anchors of {size}")
        sure = int((score > 0.5).sum())
        parts.append(f"P{number + 2} (anchors of {size} pixels) {sure} of {score.size}")
    return figure, (
        "First, the anchors of every level at one place. Then the RPN's score for each cell of the three finest "
        f"levels, yellow is near 1. Cells above 0.5: {'; '.join(parts)}."
    )


def draw_proposals(image, boxes, scores, truth, *, level, shown, what):
    """The best boxes of a pyramid level on the image; a thicker line is a higher score.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4) and scores (N,) by falling score, image pixels.
        truth: (G, 4) boxes of the nuclei.
        level, what: names of the level and of the boxes; shown: how many to draw.
    """
    figure, (axis,) = style.panels(1, 1, side=7.0)
    best, best_scores = boxes[:shown], np.asarray(scores[:shown], float)
    style.picture(axis, style.stretch(image), f"the {len(best)} best {what} of {level}")
    style.draw_boxes(axis, best[::-1], style.FOUND, widths=0.6 + 1.8 * best_scores[::-1])
    style.draw_boxes(axis, truth, style.TRUTH, style=":", widths=1.4)
    covered = 0
    if len(truth) and len(best):
        covered = int((iou_matrix(np.asarray(truth), np.asarray(best)).max(axis=1) >= 0.5).sum())
    scored = f", scores {best_scores[-1]:.2f} to {best_scores[0]:.2f}" if len(best) else ""
    return figure, (
        f"{len(boxes)} {what} of {level}; the {len(best)} best are drawn (light blue{scored}). "
        f"They cover {covered} of {len(truth)} nuclei (dotted orange) with an IoU of 0.5 or more."
    )


def crowded_group(boxes, scores, reach=0.25):
    """Indices of the boxes that overlap the box with the most overlapping neighbours, by falling score."""
    iou = iou_matrix(boxes, boxes)
    centre = int((iou > reach).sum(axis=1).argmax())
    group = np.flatnonzero(iou[centre] > reach)
    return group[np.argsort(-scores[group], kind="stable")]


def draw_nms_steps(image, boxes, scores, threshold, steps=4):
    """Greedy NMS on a few boxes, a panel for each kept box; boxes (N, 4) by falling score, image pixels."""
    iou = iou_matrix(boxes, boxes)
    alive = np.ones(len(boxes), bool)
    history = []
    for index in range(len(boxes)):
        if alive[index]:
            dropped = np.flatnonzero(alive & (iou[index] > threshold))
            dropped = dropped[dropped > index]
            alive[dropped] = False
            history.append((index, dropped))
    shown = history[:steps]
    figure, axes = style.panels(1 + len(shown), 3, side=3.4, ratio=1.1)
    low, high = boxes[:, :2].min(axis=0) - 6, boxes[:, 2:].max(axis=0) + 6
    view = style.stretch(image)
    style.picture(axes[0], view, f"{len(boxes)} boxes")
    style.draw_boxes(axes[0], boxes, style.FOUND, widths=0.8)
    parts = []
    for number, (axis, (index, dropped)) in enumerate(zip(axes[1:], shown), start=1):
        style.picture(axis, view, f"step {number}: keep {scores[index]:.2f}\ndrop {len(dropped)}")
        style.draw_boxes(axis, boxes[dropped], style.VERMILION, style=":", widths=1.0)
        style.draw_boxes(axis, boxes[[index]], style.TRUTH, widths=2.2)
        parts.append(f"keep {scores[index]:.2f}, drop {len(dropped)}")
    for axis in axes:
        axis.set_xlim(max(low[1], 0) - 0.5, min(high[1], image.shape[1]) - 0.5)
        axis.set_ylim(min(high[0], image.shape[0]) - 0.5, max(low[0], 0) - 0.5)
    return figure, (
        f"Greedy NMS at IoU {threshold:g} on {len(boxes)} overlapping boxes: {'; '.join(parts)}. In all {len(history)} are kept. "
        "Solid orange: kept in this step; dotted vermilion: dropped because of it."
    )


def draw_roi_align(grid, box, bins, points, values):
    """A box over a grid of numbers, its bins, the sampling points and their interpolated values.

    Args:
        grid: (H, W); box: (y1, x1, y2, x2) in grid cells; bins: their number along a side.
        points: (K, 2) as (y, x); values: (K,), row by row.
    """
    figure, (left, right) = style.new_figure(9.6, 4.6, 2)
    rows, columns = grid.shape
    left.imshow(grid, cmap="cividis", extent=(0, columns, rows, 0), alpha=0.45)
    y1, x1, y2, x2 = box
    for k in np.linspace(0, 1, bins + 1):
        left.plot((x1, x2), (y1 + (y2 - y1) * k,) * 2, color=style.BLUE, lw=1.6)
        left.plot((x1 + (x2 - x1) * k,) * 2, (y1, y2), color=style.BLUE, lw=1.6)
    left.plot(points[:, 1], points[:, 0], "x", color=style.VERMILION, ms=7, mew=2)
    paper = {"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none"}
    for r, c in np.ndindex(rows, columns):  # in the corner of the cell, above the lines
        place = {"ha": "left", "va": "top", "bbox": paper, "zorder": 5}
        left.text(c + 0.06, r + 0.08, f"{grid[r, c]:g}", fontsize=style.TEXT, **place)
    left.set_xticks(range(columns + 1))
    left.set_yticks(range(rows + 1))
    left.set_title(
        f"a {rows} x {columns} feature map, a box, one sample in each bin", fontsize=style.TEXT
    )
    out = np.asarray(values).reshape(bins, bins)
    title = f"the pooled {bins} x {bins} output"
    style.heat(right, out, title, vmin=grid.min(), vmax=grid.max(), alpha=0.45)
    for r, c in np.ndindex(bins, bins):
        right.text(c, r, f"{out[r, c]:.2f}", ha="center", va="center", fontsize=11)
    return figure, (
        f"The box ({', '.join(f'{v:g}' for v in box)}) over a {rows} x {columns} feature map, cut into {bins} x {bins} bins with one "
        f"sample each (crosses). The pooled values, row by row: {', '.join(f'{v:.2f}' for v in out.ravel())}."
    )


def draw_refinement(trace, truth, upsample, count=60):
    """Proposals before and after the box head, and their IoU with the nuclei.

    Args:
        truth: (G, 4) boxes of the nuclei, image pixels; upsample: network pixels per image pixel.
        count: how many of the best proposals.
    """
    best = np.argsort(-trace["class_scores"], kind="stable")[:count]
    both = [trace[name][best] / upsample for name in ("proposals", "boxes")]
    figure, axes = style.new_figure(style.WIDEST, 3.6, 3, width_ratios=(1, 1, 1.1))
    for axis, boxes, title in zip(axes, both, ("proposals", "after the box head")):
        style.picture(axis, style.stretch(trace["image"]), title)
        style.draw_boxes(axis, boxes, style.FOUND, widths=0.9)
    before, after = (
        iou_matrix(boxes, np.asarray(truth)).max(axis=1) if len(truth) else np.zeros(len(boxes))
        for boxes in both
    )
    axes[2].plot(before, after, "o", color=style.BLUE, ms=4, alpha=0.6)
    axes[2].plot((0, 1), (0, 1), "--", color=style.GREY, lw=1)
    axes[2].set(xlim=(0, 1), ylim=(0, 1))
    style.tidy(axes[2], "IoU with the nearest nucleus, before", "after")
    return figure, (
        f"The {len(best)} proposals with the highest class scores, before and after the box head moved them. Mean IoU with the "
        f"nearest nucleus's box: {before.mean():.2f} before, {after.mean():.2f} after."
    )


def draw_masks(trace, upsample, count=4):
    """From mask grids to pixels: the grid's probabilities, and the pasted mask at the threshold."""
    found = trace["detections"]
    sizes = found.boxes[:, 2:] - found.boxes[:, :2]
    good = found.scores >= min(0.5, found.scores.max(initial=0))
    chosen = np.argsort(-sizes.prod(axis=1) * good, kind="stable")[:count]
    if not len(chosen):
        return style.panels(1, 1)[0], "No detections, so no masks to show."
    size = found.mask_probs.shape[-1]
    figure, axes = style.panels(2 * len(chosen), len(chosen), side=2.9)
    for above, below, index in zip(axes, axes[len(chosen) :], chosen):
        style.heat(above, found.mask_probs[index], f"{size} x {size} grid, score {found.scores[index]:.2f}")  # fmt: skip
        y1, x1, y2, x2 = found.mask_boxes[index]
        style.picture(below, style.stretch(trace["image"]), f"{y2 - y1:.0f} x {x2 - x1:.0f} pixels")
        style.outline(below, found.take(np.array([index])).masks[0].astype(int), style.FOUND)
        below.set(xlim=(x1 - 4, x2 + 4), ylim=(y2 + 4, y1 - 4))
    return figure, (
        f"Above, the mask probabilities of {len(chosen)} detections on their {size} x {size} grids (yellow is 1); below, the same "
        "stretched over their boxes and cut at the mask threshold (light blue outline)."
    )


def draw_levels(levels, sides, canonical):
    """How many proposals are pooled from each level, by size.

    Args:
        levels: (P,) int; sides: (P,) square roots of the boxes' areas, network pixels.
        canonical: least side of a box on level 4.
    """
    figure, (axis,) = style.new_figure(8.0, 3.2)
    counts = {number: int((levels == number).sum()) for number in range(2, 6)}
    for (number, count), colour, hatch in zip(counts.items(), style.CYCLE, style.HATCHES):
        label = f"P{number}: {count} boxes"
        look = {"color": colour, "hatch": hatch, "edgecolor": "white", "label": label}
        axis.hist(sides[levels == number], bins=np.geomspace(4, 256, 43), **look)
    for number in (3, 4, 5):
        axis.axvline(canonical * 2.0 ** (number - 4), color=style.GREY, ls="--", lw=1)
    axis.set_xscale("log", base=2)
    style.legend(axis, "right")
    style.tidy(axis, "square root of the box's area, network pixels", "proposals")
    listed = ", ".join(f"P{number} {count}" for number, count in counts.items())
    return figure, (
        f"Proposals by size and the level they are pooled from: {listed}. "
        "Dashed: where the rule changes level."
    )
