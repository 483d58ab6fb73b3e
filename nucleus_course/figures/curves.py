"""Curves: precision and recall, F1 against the IoU asked for, reliability of scores, choice of thresholds."""

import numpy as np

from nucleus_course.figures.style import (
    BLUE,
    GREY,
    MODEL_COLOURS,
    MODEL_MARKERS,
    ORANGE,
    any_synthetic,
    empty,
    looks,
    named,
    new_figure,
    signed,
    text,
    tidy,
)


def draw_pr_curves(reports, thresholds=(0.5, 0.75, 0.9)):
    """COCO's precision-recall curves.

    Args:
        reports: a :class:`~nucleus_course.evaluation.Report`, or {name: report}. One gets a curve for each IoU threshold;
            several get a panel for each, a curve a model.
        thresholds: IoUs, of 0.50, 0.55, ... 0.95.

    Returns:
        (Figure, caption). The area under a curve is the AP at that IoU, given in the legend in percent.
    """
    reports = named(reports)
    single = len(reports) == 1
    # Curves fill any corner of their axes, so legends lie outside: beside one, below several.
    size = (6.6, 3.8) if single else (3.9 * len(thresholds), 3.9 + 0.18 * len(reports))
    place = (
        {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        if single
        else {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
    )
    figure, axes = new_figure(*size, 1 if single else len(thresholds), sharey=True)
    said, drawn = [], 0
    for row, threshold in enumerate(thresholds):
        axis = axes[0 if single else row]
        for number, (name, report) in enumerate(reports.items()):
            precision = report.curves.get("precision", {}).get(f"{threshold:.2f}")
            if precision is None:
                continue
            drawn += 1
            area = 100 * float(np.mean(precision))
            label = f"IoU {threshold:.2f}: {area:.1f}" if single else f"{name}: {area:.1f}"
            axis.plot(
                report.curves["recall"], precision, label=label, **looks(row if single else number)
            )
            said.append(f"{'' if single else name + ' '}{area:.1f} at IoU {threshold:.2f}")
        if not single:
            axis.set_title(f"IoU {threshold:.2f}", fontsize=10)
    for axis in axes:
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        tidy(axis, "recall", "precision" if axis is axes[0] else "", axis.get_title())
        if drawn:
            axis.legend(
                fontsize=8, frameon=False, title="area = AP, percent", title_fontsize=8, **place
            )
        else:
            empty(axis, "undefined: no nuclei")
    who = next(iter(reports)) if single else f"{len(reports)} models"
    caption = (
        f"Precision and recall of {who} as the score threshold falls, all detections, COCO's interpolation at 101 recalls. "
        + (
            f"Average precision, the area under the curve, in percent: {'; '.join(said)}."
            if said
            else "Undefined without nuclei."
        )
    )
    return signed(figure, caption, any_synthetic(reports))


def draw_f1_curve(reports):
    """F1 at the operating point against the IoU that a match must exceed.

    Args:
        reports: a :class:`~nucleus_course.evaluation.Report`, or {name: report}.
    """
    reports = named(reports)
    figure, (axis,) = new_figure(5.2, 3.6)
    said = []
    for number, (name, report) in enumerate(reports.items()):
        curve = report.curves.get("f1", {})
        if not curve:
            continue
        place = [float(key) for key in curve]
        value = [100 * v for v in curve.values()]
        axis.plot(
            place,
            value,
            label=name,
            marker=MODEL_MARKERS[number % 6],
            markersize=4,
            **looks(number),
        )
        said.append(
            f"{name} {value[0]:.1f} at IoU {place[0]:.2f}, {text(dict(zip(curve, value)).get('0.75'))} at 0.75 and {value[-1]:.1f} at {place[-1]:.2f}"
        )
    axis.set(ylim=(0, 101), xlim=(0.48, 0.97))
    tidy(axis, "IoU that a match must exceed", "F1, percent")
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    caption = f"F1 at the operating point, pooled over all nuclei, against the IoU asked for: {'; '.join(said)}."
    return signed(figure, caption, any_synthetic(reports))


def draw_reliability(calibration, *, name="", synthetic=False):
    """Do scores mean what they say: precision of the detections in each bin of scores, and how many there are.

    Args:
        calibration: an :class:`~nucleus_course.evaluation.ErrorAnalysis`, or its ``calibration``
            (:func:`nucleus_course.evaluation.reliability`); None where scores are no probabilities.
    """
    if hasattr(calibration, "calibration"):
        name, synthetic = name or calibration.report.name, synthetic or calibration.report.synthetic
        calibration = calibration.calibration
    figure, (left, right) = new_figure(8.0, 3.5, 2, width_ratios=(1.2, 1))
    left.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="score = precision")
    bins = [] if calibration is None else calibration["bins"]
    used = [b for b in bins if b["count"]]
    middles = [(b["low"] + b["high"]) / 2 for b in bins]
    if used:
        width = bins[0]["high"] - bins[0]["low"]
        left.bar([(b["low"] + b["high"]) / 2 for b in used], [b["precision"] for b in used], width * 0.92, color=MODEL_COLOURS[4],
                 edgecolor=BLUE, label="precision of the bin")  # fmt: skip
        left.plot(
            [b["score"] for b in used],
            [b["precision"] for b in used],
            "o",
            color=ORANGE,
            markersize=5,
            label="at its mean score",
        )
        right.bar(
            middles,
            [b["count"] for b in bins],
            width * 0.92,
            color=MODEL_COLOURS[4],
            edgecolor=BLUE,
        )
        left.legend(fontsize=8, framealpha=0.8, edgecolor="none", loc="upper left")
        caption = (
            f"Reliability{' of ' + name if name else ''}: share of the detections in each bin of scores that match a nucleus at IoU "
            f"0.5 (left) and their number (right), all {calibration['detections']} detections without threshold. Expected calibration "
            f"error {calibration['ece']:.3f}, Brier score {calibration['brier']:.3f}. Bars above the line: the score is too modest; "
            "below: too sure."
        )
    else:
        reason = "scores are no probabilities" if calibration is None else "no detections"
        empty(left, reason)
        caption = f"Reliability{' of ' + name if name else ''}: not drawn, {reason}."
    left.set(xlim=(0, 1), ylim=(0, 1.02))
    right.set_xlim(0, 1)
    tidy(left, "score", "precision (share right)")
    tidy(right, "score", "detections")
    return signed(figure, caption, synthetic)


def draw_threshold_curve(choice, *, synthetic=False):
    """How the chosen metric depends on the score threshold, and which was chosen.

    Args:
        choice: :class:`~nucleus_course.evaluation.ThresholdChoice`.
    """
    chosen, curves = choice.thresholds, {}
    for row in choice.tried:
        curves.setdefault((row["nms_iou"], row["mask"], row["min_area"]), []).append(
            (row["score"], row["value"])
        )
    figure, (axis,) = new_figure(5.6, 3.6)
    several = len(curves) > 1
    for number, ((nms, mask, area), points) in enumerate(curves.items()):
        label = (
            f"NMS IoU {nms:g}, mask {mask:g}, smallest {area} px"
            if several
            else f"smallest area {area} px"
        )
        x, y = zip(*[(s, np.nan if v is None else v) for s, v in points])
        axis.plot(x, y, label=label, **looks(number))
    axis.axvline(chosen.score, color=GREY, linestyle=":", linewidth=1.2)
    if chosen.value is not None:
        axis.plot(chosen.score, chosen.value, "o", markersize=9, markerfacecolor="none", markeredgecolor=ORANGE, markeredgewidth=2,
                  label=f"chosen: {chosen.score:.2f}")  # fmt: skip
    axis.legend(fontsize=7, frameon=False)
    tidy(axis, "score threshold", f"{chosen.metric or 'metric'}, percent")
    where = " ".join(part for part in (chosen.dataset, chosen.split) if part)
    caption = (
        f"{chosen.metric} on {where or 'the split it was chosen on'} against the score threshold. Chosen: score {chosen.score:.2f}, smallest area "
        f"{chosen.min_area} pixels, NMS IoU {chosen.nms_iou:g}, mask threshold {chosen.mask:g}, which gives {text(chosen.value)}."
    )
    return signed(figure, caption, synthetic or "synthetic" in chosen.dataset)
