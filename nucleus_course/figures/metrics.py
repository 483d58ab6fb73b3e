"""Metrics as bars: several models side by side, and one model by image type."""

import numpy as np

from nucleus_course.evaluation.metrics import METRICS
from nucleus_course.figures.style import (
    GREY,
    MODEL_COLOURS,
    MODEL_HATCHES,
    any_synthetic,
    named,
    new_figure,
    signed,
    text,
    tidy,
)

COMPARED = ("coco_ap", "coco_ap50", "coco_ap75", "dsb_score", "mean_mask_iou", "f1_70", "aji")
BY_TYPE = ("coco_ap", "dsb_score", "mean_mask_iou")
LABELS = {metric.key: metric.label for metric in METRICS}


def _bars(axis, groups, series, spans=None):
    """Grouped bars: ``series[name]`` (len(groups),) percent, NaN for none; ``spans[name]`` (2, len(groups)) error bars."""
    width = 0.8 / max(1, len(series))
    for number, (name, values) in enumerate(series.items()):
        place = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        values = np.asarray(values, float)
        bars = axis.bar(place, np.nan_to_num(values), width * 0.94, color=MODEL_COLOURS[number % 6], hatch=MODEL_HATCHES[number % 6],
                        edgecolor="white", linewidth=0.5, label=name)  # fmt: skip
        span = None if spans is None else spans.get(name)
        if span is not None:
            axis.errorbar(
                place, values, yerr=span, fmt="none", ecolor="black", elinewidth=1, capsize=2
            )
        if len(series) * len(groups) <= 24:
            tops = values if span is None else values + np.nan_to_num(span[1])
            for x, top, value in zip(place, tops, values):
                if np.isfinite(value):
                    axis.annotate(
                        f"{value:.0f}",
                        (x, top),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=7,
                    )
                else:
                    axis.annotate(
                        "none",
                        (x, 0),
                        (0, 2),
                        textcoords="offset points",
                        ha="center",
                        fontsize=7,
                        color=GREY,
                    )
        bars.set_label(name)
    axis.set_xticks(range(len(groups)), groups, fontsize=8)
    axis.set_ylim(0, 108)
    axis.set_yticks(range(0, 101, 20))


def draw_comparison(reports, keys=COMPARED):
    """Several models' metrics side by side, with intervals where the reports hold them.

    Args:
        reports: {name: :class:`~nucleus_course.evaluation.Report`}, or a list of reports.
        keys: which metrics.

    Returns:
        (Figure, caption).
    """
    reports = named(reports)
    series, spans = {}, {}
    for name, report in reports.items():
        series[name] = [
            np.nan if report.metrics.get(k) is None else report.metrics[k] for k in keys
        ]
        held = [report.intervals.get(k) for k in keys]
        if any(interval is not None for interval in held):
            spans[name] = np.array([
                (0, 0) if interval is None else (max(0, v - interval[0]), max(0, interval[1] - v)) for v, interval in zip(series[name], held)
            ]).T  # fmt: skip
    figure, (axis,) = new_figure(max(6.4, 1.3 * len(keys)), 3.8)
    _bars(axis, [LABELS.get(k, k).replace(" ", "\n", 1) for k in keys], series, spans)
    axis.legend(
        fontsize=8,
        frameon=False,
        ncols=min(4, len(series)),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
    )
    tidy(axis, "", "percent")
    axis.set_xlabel("metric", fontsize=9)
    listed = "; ".join(
        f"{name}: " + ", ".join(f"{LABELS.get(k, k)} {text(report.metrics.get(k))}" for k in keys)
        for name, report in reports.items()
    )
    places = {" ".join(p for p in (r.dataset, r.split) if p) for r in reports.values()}
    where = places.pop() if len(places) == 1 else "different data sets, so not comparable"
    whiskers = (
        f" Whiskers{'' if len(spans) == len(reports) else ', where drawn'}: bootstrap intervals over images."
        if spans
        else ""
    )
    return signed(
        figure, f"Metrics in percent on {where}. {listed}.{whiskers}", any_synthetic(reports)
    )


def draw_type_breakdown(reports, keys=BY_TYPE):
    """Metrics by image type.

    Args:
        reports: one :class:`~nucleus_course.evaluation.Report` (bars: the metrics), or {name: report} (a panel a metric).

    Returns:
        (Figure, caption).
    """
    reports = named(reports)
    single = len(reports) == 1
    kinds = sorted({kind for report in reports.values() for kind in report.types})
    first = next(iter(reports.values()))
    counts = {}
    for row in first.counts.get("per_image", {}).values():
        counts[row["type"]] = counts.get(row["type"], 0) + 1
    ticks = [_wrapped(kind) + (f"\n({counts[kind]})" if kind in counts else "") for kind in kinds]

    def values(report, key):
        return [
            np.nan if report.types.get(kind, {}).get(key) is None else report.types[kind][key]
            for kind in kinds
        ]

    figure, axes = new_figure(
        max(5.5, 1.5 * len(kinds)) if single else 5.6, 3.8 if single else 3.0 * len(keys)
    )
    if single:
        _bars(axes[0], ticks, {LABELS.get(k, k): values(first, k) for k in keys})
    else:
        figure.clear()
        axes = list(figure.subplots(len(keys), 1, squeeze=False)[:, 0])
        for axis, key in zip(axes, keys):
            _bars(axis, ticks, {name: values(report, key) for name, report in reports.items()})
            axis.set_title(LABELS.get(key, key), fontsize=10)
    for axis in axes:
        tidy(axis, "image type (images)", "percent", axis.get_title())
    axes[0].legend(
        fontsize=8,
        frameon=False,
        ncols=3,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0 if single else 1.08),
    )
    listed = "; ".join(
        f"{kind}: " + ", ".join(f"{'' if single else name + ' '}{LABELS.get(k, k)} {text(report.types.get(kind, {}).get(k))}"
                                for name, report in reports.items() for k in keys) for kind in kinds)  # fmt: skip
    return signed(figure, f"By image type, percent. {listed}.", any_synthetic(reports))


def _wrapped(kind):
    words = kind.split(" ")
    return kind if len(kind) < 12 else " ".join(words[:-1]) + "\n" + words[-1]
