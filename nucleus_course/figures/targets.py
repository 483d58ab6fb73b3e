"""The targets of a training step: its sampled anchors and RoIs, and mask targets."""

from nucleus_course.figures import style


def draw_targets(image, truth, targets, upsample, count=2):
    """Anchors and RoIs of one training step on the image, and the first mask targets.

    Args:
        image: (H, W, 3) uint8; truth: (G, 4) boxes of the nuclei, image pixels.
        targets: :class:`~nucleus_course.course.targets.StepTargets`, network pixels.
        upsample: network pixels per image pixel; count: mask targets to show.
    """
    shown = min(count, len(targets.masks))
    figure, axes = style.panels(2 + shown, 2 if shown else 1, side=5.2)
    view, parts = style.stretch(image), []
    rows = (
        ("anchors", targets.anchors, targets.anchor_labels),
        ("RoIs", targets.rois, targets.roi_labels),
    )
    for axis, (name, boxes, positive) in zip(axes, rows):
        boxes = boxes / upsample
        style.picture(axis, view, f"{positive.sum()} positive {name}, {(~positive).sum()} negative")
        style.draw_boxes(axis, truth, style.TRUTH, style="--", widths=1.0)
        style.draw_boxes(axis, boxes[~positive], style.VERMILION, style=":", widths=0.8)
        style.draw_boxes(axis, boxes[positive], style.FOUND, widths=1.4)
        axis.set_xlim(-0.5, image.shape[1] - 0.5)
        axis.set_ylim(image.shape[0] - 0.5, -0.5)
        parts.append(f"{positive.sum()} positive and {(~positive).sum()} negative {name}")
    for number, (axis, mask) in enumerate(zip(axes[2:], targets.masks), start=1):
        style.picture(
            axis, mask, f"mask target of positive RoI {number}", cmap="gray", vmin=0, vmax=1
        )
    return figure, (
        f"One training step on this image: {' and '.join(parts)}. Solid light blue: positive; dotted "
        f"vermilion: negative; dashed orange: the {len(truth)} nuclei. Below: {shown} mask targets of "
        f"{'x'.join(map(str, targets.masks.shape[1:]))} cells, the share of each cell that the nucleus covers."
    )
