"""Curves: overlap, precision and recall, F1, reliability, thresholds."""

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.figures import style


def disc_mask(diameter, shift=0.0, margin=12):
    """A disc as a bool mask (H, W), moved right by ``shift`` pixels."""
    side = diameter + 2 * margin
    rows, columns = np.mgrid[:side, :side] + 0.5 - side / 2
    return rows**2 + (columns - shift) ** 2 <= (diameter / 2) ** 2


def draw_shifted_discs(diameter, shifts):
    """Examples of IoU: a disc and the same disc moved."""
    figure, axes = style.panels(len(shifts), len(shifts), side=2.6, ratio=1.12)
    parts = []
    for axis, shift in zip(axes, shifts):
        truth, found = disc_mask(diameter), disc_mask(diameter, shift)
        iou = (truth & found).sum() / (truth | found).sum()
        style.picture(axis, style.difference(truth, found), f"moved by {shift:g}: IoU {iou:.2f}")
        parts.append(f"{pluralize(shift, 'pixel')} {iou:.2f}")
    return figure, (
        f"A disc {diameter} pixels across and the same disc moved to the right (white: shared, striped: only the "
        f"first, light blue: only the second). IoU after a move by {', '.join(parts)}."
    )


def draw_precision_recall(precision, recall, grid, interpolated, ap):
    """Precision and recall (D,) detection by detection, and COCO's interpolated points (101,)."""
    figure, (axis,) = style.new_figure(6.2, 3.8)
    axis.plot(recall, precision, "o-", color=style.GREY, ms=4, lw=0.8, label="after each detection")
    axis.plot(grid, interpolated, ".", color=style.BLUE, ms=5, label="best precision at that recall or beyond")  # fmt: skip
    axis.set(xlim=(-0.02, 1.02), ylim=(0, 1.05))
    style.legend(axis, "below")
    style.tidy(axis, "recall", "precision", f"AP at IoU 0.5: {100 * ap:.1f}")
    end = "no detections"
    if len(recall):
        end = f"the last point has recall {recall[-1]:.2f} at precision {precision[-1]:.2f}"
    return figure, (
        f"Precision against recall for {pluralize(len(recall), 'detection')} in order of score; {end}. "
        f"The mean of the blue points is the AP, {100 * ap:.1f}."
    )


def draw_operating_point(image, labels, truth, curve, point, settings, counts):
    """Detections on the image beside the precision-recall curve with the operating point on it.

    Args:
        image: (H, W, 3) uint8; labels, truth: label images (H, W).
        curve: (recall, precision), each (D,); point: the pair (recall, precision) at the current threshold.
        settings: the thresholds in words.
        counts: {"found", "nuclei", "matched", "missed", "spurious"}.
    """
    figure, (left, right) = style.new_figure(10.4, 5.0, 2, width_ratios=(1.1, 1))
    found = pluralize(counts["found"], "detection")
    style.picture(
        left, style.stretch(image), f"{found}, {pluralize(counts['nuclei'], 'nucleus', 'nuclei')}"
    )
    style.outline(left, labels, style.FOUND)
    style.outline(left, truth, style.TRUTH, rim=False)
    right.step(*curve, where="post", color=style.BLUE, lw=1.5)
    right.set(xlim=(0, 1.02), ylim=(0, 1.02))
    style.tidy(right, "recall", "precision", "at IoU 0.5, on this image")
    said = f"Recall {point[0]:.2f}, precision undefined without detections"
    if counts["found"]:
        right.plot(*point, "o", color=style.VERMILION, ms=9)
        said = f"Precision {point[1]:.2f}, recall {point[0]:.2f}"
    return figure, (
        f"{settings}: {found}, {counts['matched']} of them matched with a nucleus at an IoU of 0.5 or more and "
        f"{counts['spurious']} not; {counts['missed']} of {counts['nuclei']} nuclei missed. "
        f"{said}. Detections solid light blue, annotation dashed orange."
    )


def draw_pr_curves(report, thresholds=(0.5, 0.75, 0.9)):
    """COCO's precision-recall curves of a :class:`~nucleus_course.evaluation.Report`, one for each IoU threshold.

    Args:
        thresholds: IoUs, from 0.50, 0.55, ... 0.95.

    Returns:
        (Figure, caption). The legend gives the area under each curve, the AP at that IoU, in percent.
    """
    figure, (axis,) = style.new_figure(7.0, 3.8)
    said = []
    for number, threshold in enumerate(thresholds):
        precision = report.curves.get("precision", {}).get(f"{threshold:.2f}")
        if precision is None:
            continue
        area = 100 * float(np.mean(precision))
        label = f"IoU {threshold:.2f}: {area:.1f}"
        axis.plot(report.curves["recall"], precision, label=label, **style.looks(number))
        said.append(f"{area:.1f} at IoU {threshold:.2f}")
    axis.set(xlim=(0, 1), ylim=(0, 1.02))
    style.tidy(axis, "recall", "precision")
    if said:  # beside the axes, because curves may fill any corner
        style.legend(axis, "right", title="area = AP, percent")
    else:
        style.empty(axis, "undefined: no nuclei")
    areas = f"Average precision, the area under the curve, in percent: {'; '.join(said)}."
    caption = (
        f"Precision and recall of {report.name} as the score threshold falls, all detections, COCO's interpolation at 101 recalls. "
        + (areas if said else "Undefined without nuclei.")
    )
    return style.signed(figure, caption, report.synthetic)


def draw_f1_curve(reports):
    """F1 at the operating point against the IoU that a match must exceed.

    Args:
        reports: a :class:`~nucleus_course.evaluation.Report`, or {name: report}.
    """
    reports = style.named(reports)
    figure, (axis,) = style.new_figure(5.8, 3.8)
    said = []
    for number, (name, report) in enumerate(reports.items()):
        curve = {key: 100 * value for key, value in report.curves.get("f1", {}).items()}
        if curve:
            look = {**style.looks(number), "marker": style.MARKERS[number % 6], "markersize": 4}
            axis.plot([float(key) for key in curve], list(curve.values()), label=name, **look)
            (first, low), *_, (last, high) = curve.items()
            said.append(f"{name} {low:.1f} at IoU {first}, {style.text(curve.get('0.75'))} at 0.75 and {high:.1f} at {last}")  # fmt: skip
    axis.set(ylim=(0, 101), xlim=(0.48, 0.97))
    style.tidy(axis, "IoU that a match must exceed", "F1, percent")
    style.legend(axis, loc="lower left")
    caption = f"F1 at the operating point, pooled over all nuclei, by the IoU that a match must exceed: {'; '.join(said)}."
    return style.signed(figure, caption, style.any_synthetic(reports))


def draw_reliability(analysis):
    """Reliability of the scores: precision of the detections in each bin of scores, and their number.

    Args:
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis`.
    """
    calibration, of = analysis.calibration, f" of {analysis.report.name}"
    figure, (left, right) = style.new_figure(8.8, 4.0, 2, width_ratios=(1.2, 1))
    left.plot((0, 1), (0, 1), color=style.GREY, ls="--", lw=1, label="score = precision")
    used = [b for b in (calibration or {"bins": ()})["bins"] if b["count"]]
    if used:
        rows = calibration["bins"]
        width = 0.92 * (rows[0]["high"] - rows[0]["low"])
        look = {"color": style.SKY, "edgecolor": style.BLUE}
        left.bar([_middle(b) for b in used], [b["precision"] for b in used], width, label="precision of the bin", **look)  # fmt: skip
        left.plot([b["score"] for b in used], [b["precision"] for b in used], "o", color=style.ORANGE, ms=5, label="at its mean score")  # fmt: skip
        right.bar([_middle(b) for b in rows], [b["count"] for b in rows], width, **look)
        style.legend(left, "below")
        caption = (
            f"Reliability{of}: share of the detections in each bin of scores that match a nucleus at IoU 0.5 (left) and their "
            f"number (right), all {calibration['detections']} detections without threshold. Expected calibration error "
            f"{calibration['ece']:.3f}, Brier score {calibration['brier']:.3f}. Bars above the dashed line: the scores are too low; "
            "below it: too high."
        )
    else:
        reason = "scores are not probabilities" if calibration is None else "no detections"
        style.empty(left, reason)
        caption = f"Reliability{of}: not drawn, {reason}."
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    right.set_xlim(0, 1)
    style.tidy(left, "score", "precision (share right)")
    style.tidy(right, "score", "detections")
    return style.signed(figure, caption, analysis.report.synthetic)


def _middle(row):
    return (row["low"] + row["high"]) / 2


def draw_threshold_curve(choice, *, synthetic=False):
    """The metric against the score threshold, and the threshold that was chosen.

    Args:
        choice: :class:`~nucleus_course.evaluation.ThresholdChoice`.
    """
    chosen, curves = choice.thresholds, {}
    for row in choice.tried:
        key = (row["nms_iou"], row["mask"], row["min_area"])
        curves.setdefault(key, []).append((row["score"], row["value"]))
    figure, (axis,) = style.new_figure(6.0, 4.0)
    for number, ((nms, mask, area), points) in enumerate(curves.items()):
        others = f"NMS IoU {nms:g}, mask {mask:g}, " if len(curves) > 1 else ""
        x, y = zip(*[(s, np.nan if v is None else v) for s, v in points])
        axis.plot(x, y, label=f"{others}smallest area {area} px", **style.looks(number))
    axis.axvline(chosen.score, color=style.GREY, linestyle=":", linewidth=1.2)
    if chosen.value is not None:
        ring = {"mfc": "none", "mec": style.ORANGE, "mew": 2, "ms": 9}
        axis.plot(chosen.score, chosen.value, "o", label=f"chosen: {chosen.score:.2f}", **ring)
    style.legend(axis, "below")
    style.tidy(axis, "score threshold", f"{chosen.metric or 'metric'}, percent")
    where = " ".join(part for part in (chosen.dataset, chosen.split) if part)
    caption = (
        f"{chosen.metric} on {where or 'the split it was chosen on'} against the score threshold. Chosen: score {chosen.score:.2f}, "
        f"smallest area {chosen.min_area} pixels, NMS IoU {chosen.nms_iou:g}, mask threshold {chosen.mask:g}, which gives {style.text(chosen.value)}."
    )
    return style.signed(figure, caption, synthetic or "synthetic" in chosen.dataset)
