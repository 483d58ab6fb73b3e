"""Metrics as bars and intervals: several models, image types, uncertainty."""

from collections import Counter

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.evaluation.metrics import METRICS
from nucleus_course.figures import style

COMPARED = ("coco_ap", "coco_ap50", "coco_ap75", "dsb_score", "mean_mask_iou", "f1_70", "aji")
BY_TYPE = ("coco_ap", "dsb_score", "mean_mask_iou")
LABELS = {metric.key: metric.label for metric in METRICS}


def _grouped_bars(axis, groups, series, spans=None):
    """Draw ``series[name]`` (len(groups),) in percent, NaN for none, with error bars ``spans[name]`` (2, len(groups))."""
    width = 0.8 / max(1, len(series))
    for number, (name, values) in enumerate(series.items()):
        place = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        values = np.asarray(values, float)
        axis.bar(
            place, np.nan_to_num(values), width * 0.94, label=name, lw=0.5, **style.bars(number)
        )
        span = (spans or {}).get(name)
        if span is not None:
            axis.errorbar(place, values, yerr=span, fmt="none", ecolor="black", elinewidth=1, capsize=2)  # fmt: skip
        if len(series) * len(groups) <= 24:
            tops = values if span is None else values + span[1]
            for x, top, value in zip(place, tops, values):
                if np.isfinite(value):
                    style.note(axis, x, top, f"{value:.0f}")
                else:
                    style.note(axis, x, 0, "none", color=style.GREY)
    axis.set_xticks(range(len(groups)), groups, fontsize=style.TEXT)
    axis.set_ylim(0, 112)
    axis.set_yticks(range(0, 101, 20))


def _or_nan(values):
    return [np.nan if value is None else value for value in values]


def draw_comparison(reports, keys=COMPARED):
    """Several models' metrics side by side, with intervals if the reports hold them.

    Args:
        reports: {name: :class:`~nucleus_course.evaluation.Report`}.
        keys: which metrics.
    """
    series, spans = {}, {}
    for name, report in reports.items():
        series[name] = _or_nan(report.metrics.get(k) for k in keys)
        held = [report.intervals.get(k) for k in keys]
        if any(held):
            pairs = [interval or (v, v) for v, interval in zip(series[name], held)]
            low, high = np.array(pairs, float).T
            spans[name] = np.maximum([series[name] - low, high - series[name]], 0)
    figure, (axis,) = style.new_figure(max(6.4, 1.3 * len(keys)), 4.0)
    _grouped_bars(axis, [LABELS.get(k, k).replace(" ", "\n", 1) for k in keys], series, spans)
    style.legend(axis, "above", min(4, len(series)))
    style.tidy(axis, "metric", "percent")
    listed = "; ".join(
        f"{name}: "
        + ", ".join(f"{LABELS.get(k, k)} {style.text(report.metrics.get(k))}" for k in keys)
        for name, report in reports.items()
    )
    places = {" ".join(p for p in (r.dataset, r.split) if p) for r in reports.values()}
    where = places.pop() if len(places) == 1 else "different data sets, so not comparable"
    some = "" if len(spans) == len(reports) else ", where drawn"
    whiskers = f" Whiskers{some}: bootstrap intervals over images." if spans else ""
    caption = f"Metrics in percent on {where}. {listed}.{whiskers}"
    return style.signed(figure, caption, style.any_synthetic(reports))


def draw_type_breakdown(reports, keys=BY_TYPE):
    """Metrics by image type, a bar for each metric.

    Args:
        reports: a :class:`~nucleus_course.evaluation.Report`, or {name: report} of one.
        keys: which metrics.
    """
    (report,) = style.named(reports).values()
    images = Counter(row["type"] for row in report.counts.get("per_image", {}).values())
    ticks = [_wrapped(k) + (f"\n({images[k]})" if k in images else "") for k in report.types]
    figure, (axis,) = style.new_figure(max(6.0, 1.7 * len(ticks)), 4.0)
    series = {LABELS.get(k, k): _or_nan(row.get(k) for row in report.types.values()) for k in keys}
    _grouped_bars(axis, ticks, series)
    style.tidy(axis, "image type (images)", "percent")
    style.legend(axis, "above", 3)
    listed = "; ".join(
        f"{kind}: " + ", ".join(f"{LABELS.get(k, k)} {style.text(row.get(k))}" for k in keys)
        for kind, row in report.types.items()
    )
    return style.signed(figure, f"By image type, percent. {listed}.", report.synthetic)


def _wrapped(kind):
    words = kind.split(" ")
    return kind if len(kind) < 12 else " ".join(words[:-1]) + "\n" + words[-1]


def draw_intervals(report, keys):
    """Bootstrap intervals of a report's metrics as points with bars."""
    known = [key for key in keys if report.intervals.get(key)]
    figure, (axis,) = style.new_figure(7.6, 0.36 * len(known) + 1.0)
    parts = []
    for row, key in enumerate(known):
        low, high = report.intervals[key]
        axis.plot((low, high), (row, row), color=style.BLUE, lw=3, solid_capstyle="butt")
        axis.plot(report.metrics[key], row, "o", color=style.VERMILION, ms=6)
        parts.append(f"{key} {report.metrics[key]:.1f} ({low:.1f} to {high:.1f})")
    style.row_ticks(axis, known)
    axis.grid(axis="x", color="#dddddd", lw=0.8)
    style.tidy(axis, "percent", "")
    images = pluralize(report.counts["images"], "image")
    return figure, f"Each metric and its 95% interval over {images}: {'; '.join(parts)}."


def draw_paired_test(differences, interval, what):
    """The differences of single images (N,), their mean, and its bootstrap interval (low, high)."""
    differences = np.asarray(differences)
    figure, (axis,) = style.new_figure(7.6, 2.4)
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, len(differences))
    axis.plot(differences, jitter, "o", color=style.BLUE, ms=4, alpha=0.5)
    axis.plot(interval, (0.5, 0.5), color=style.VERMILION, lw=4, solid_capstyle="butt")
    axis.plot(np.mean(differences), 0.5, "D", color=style.VERMILION, ms=7)
    axis.axvline(0, color=style.GREY, lw=1)
    axis.set_yticks([0, 0.5], ["each image", "mean and its\n95% interval"], fontsize=style.TEXT)
    axis.set_ylim(-0.4, 0.8)
    style.tidy(axis, what, "")
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return figure, (
        f"{what}: {np.mean(differences):+.2f} on average over {pluralize(len(differences), 'image')}, "
        f"95% interval {interval[0]:+.2f} to {interval[1]:+.2f}; better on {better}, worse on {worse}."
    )
