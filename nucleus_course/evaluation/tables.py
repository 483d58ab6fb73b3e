"""Reports as rich tables that fit 80 columns."""

from collections import Counter

from rich import box
from rich.markup import escape
from rich.table import Table

from nucleus_course._util.text import pluralize
from nucleus_course.evaluation.metrics import METRICS

WIDTH = 80


def _number(value, digits=2):
    return "-" if value is None else f"{value:.{digits}f}"


def _title(report):
    where = " ".join(part for part in (report.dataset, report.split) if part)
    if report.synthetic and "synthetic" not in where:
        where += " (synthetic)"
    return escape(f"{report.name} on {where}" if where else report.name)


def _caption(report):
    counts, point = report.counts, report.operating_point
    lines = []
    if counts:
        lines.append(
            f"{pluralize(counts['images'], 'image')}, {pluralize(counts['nuclei'], 'nucleus', 'nuclei')}, "
            f"{pluralize(counts['detections'], 'detection')} scored "
            f"{point.get('score_threshold', 0):g} or more; percent"
        )
    lines += [f"Note: {text}" for text in report.warnings]
    return escape("\n".join(lines))


def _grid(title, caption, first, *others, fold=False):
    """A table 80 characters wide, the ``first`` column aligned left, the others right; ``fold`` breaks long headers."""
    table = Table(
        title=title, caption=caption or None, box=box.SIMPLE_HEAD, width=WIDTH, title_justify="left",
        caption_justify="left", caption_style="italic", pad_edge=False,
    )  # fmt: skip
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=not fold, overflow="fold")
    return table


def metrics_table(report):
    """Metric, value, interval (if computed) and definition."""
    level = f"{100 * report.bootstrap.get('level', 0.95):g}% interval"
    names = ("value", level) if report.intervals else ("value",)
    table = _grid(_title(report), _caption(report), "metric", *names)
    table.add_column("what it is")
    for metric in METRICS:
        row = [metric.key, _number(report.metrics.get(metric.key))]
        if report.intervals:
            interval = report.intervals.get(metric.key)
            row.append("-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}")
        table.add_row(*row, metric.about)
    return table


def types_table(report):
    """A row for each metric, a column for each image type."""
    images = Counter(row["type"] for row in report.counts.get("per_image", {}).values())
    table = _grid(_title(report), None, "metric", *map(escape, report.types), fold=True)
    if images:
        table.add_row("images", *[str(images[kind]) for kind in report.types])
    for metric in METRICS:
        values = [_number(values.get(metric.key), 1) for values in report.types.values()]
        table.add_row(metric.key, *values)
    return table


def comparison_table(reports, names=None):
    """Several models side by side: a row for each metric, a column for each report.

    Args:
        reports: list of :class:`~nucleus_course.evaluation.report.Report`.
        names: of the reports; their own where None.
    """
    names = names or [report.name for report in reports]
    places = [" ".join(p for p in (report.dataset, report.split) if p) for report in reports]
    several = len(set(places)) > 1
    title = "Percent" if several else f"{escape(places[0])}, percent"
    table = _grid(title, None, "metric", *map(escape, names), fold=True)
    for metric in METRICS:
        values = [report.metrics.get(metric.key) for report in reports]
        best = max((v for v in values if v is not None), default=None)
        cells = [f"[bold]{_number(v)}[/]" if v is not None and v == best else _number(v) for v in values]  # fmt: skip
        table.add_row(metric.key, *cells)
    thresholds = [_number(r.operating_point.get("score_threshold")) for r in reports]
    table.add_row("score threshold", *thresholds)
    if several:
        table.add_row("evaluated on", *map(escape, places))
    return table


def comparison_of_two(comparison):
    """A :class:`~nucleus_course.evaluation.bootstrap.Comparison`: both values, the difference and its interval."""
    caption = (
        f"{100 * comparison.level:g}% intervals of the difference, {comparison.replicates} paired bootstrap samples of "
        f"{pluralize(comparison.images, 'image')}; where an interval contains 0, these images cannot tell the two apart"
    )
    caption = escape("\n".join([caption, *(f"Note: {text}" for text in comparison.warnings)]))
    first, second = escape(comparison.first), escape(comparison.second)
    names = (first, second, "difference", "interval", "better in")
    table = _grid(f"{second} against {first}", caption, "metric", *names, fold=True)
    for metric in METRICS:
        row = comparison.metrics[metric.key]
        gap = "-" if row["difference"] is None else f"{row['difference']:+.2f}"
        interval = "-" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}"
        share = "-" if row["share"] is None else f"{100 * row['share']:.0f}%"
        values = _number(row["first"]), _number(row["second"])
        table.add_row(metric.key, *values, gap, interval, share)
    return table


def errors_table(analysis):
    """Classes of error: how many, and what AP gains if they are fixed."""
    totals, costs = analysis.totals, analysis.costs
    caption = (
        f"{totals['tp']} true positives, {totals['fp']} false positives, {totals['fn']} false negatives at the operating "
        f"point. Gains: what AP ({_number(costs['coco_ap'], 1)}) and AP50 ({_number(costs['coco_ap50'], 1)}) of all "
        "detections would gain if the class were fixed; they do not add up"
    )
    names = ("nuclei", "detections", "AP gains", "AP50 gains")
    table = _grid(f"Errors of {_title(analysis.report)}", caption, "class", *names)
    for name in dict.fromkeys([*analysis.counts, *costs["classes"]]):
        counts = [str(n or "") for n in analysis.counts.get(name, {"": 0, " ": 0}).values()]
        cost = costs["classes"].get(name)
        gains = ["", ""] if cost is None else [_gain(cost[k]) for k in ("cost_ap", "cost_ap50")]
        table.add_row(name, *counts, *gains)
    return table


def _gain(value):
    return "-" if value is None else f"{value:+.1f}"


def breakdown_table(analysis, by):
    """For each bin of a property: the nuclei, how many were found, how the rest were lost, and the share of right detections."""
    rows = analysis.breakdown(by)
    lost = ("poor boundary", "missed", "split", "merged", "cut by the edge")
    names = ("nuclei", "found", *(kind.split(" ")[0] for kind in lost), "right")
    title = f"By {by}: how many nuclei were found, and how the others were lost"
    caption = "found: share of the nuclei that are matched; right: share of the detections that are"
    table = _grid(title, caption, by, *names)
    table.columns[0].no_wrap = False
    for group, classes in rows["nuclei"].items():
        shares = []
        for counts in (classes, rows["detections"].get(group, {})):
            total = sum(counts.values())
            shares.append(f"{100 * counts['matched'] / total:.0f}%" if total else "-")
        cells = [str(classes[kind] or "") for kind in lost]
        table.add_row(escape(group), str(sum(classes.values())), shares[0], *cells, shares[1])
    return table


def _span(mean, two):
    """A mean's interval in words; with two models their difference and its interval; "-" if there is none."""
    if mean["low"] is None:
        return "-"
    if two:
        return f"{mean['difference']:+.1f} ({mean['low']:+.1f} to {mean['high']:+.1f})"
    return f"{mean['low']:.1f} to {mean['high']:.1f}"


def sources_table(table):
    """A :class:`~nucleus_course.evaluation.by_source.SourceTable`: a row for each source, then means over the sources."""
    shown = ("coco_ap", "dsb_score", "mean_mask_iou")
    two = len(table.names) == 2
    caption = f"Percent; {100 * table.level:g}% intervals, {table.replicates} bootstrap samples of the images of each source"
    caption += f"; first {table.names[0]}, second {table.names[1]}" if two else ""
    if table.without_source:
        caption += f"; without a known source and left out: {table.without_source}"
    title = escape(" against ".join(table.names)) + " by source"
    grid = _grid(title, escape(caption), "source", "images", "met", *shown, fold=True)

    def cells(values):
        pairs = ([values[k][name] for name in ("first", "second")[: 1 + two]] for k in shown)
        return [" / ".join(_number(v, 1) for v in pair) for pair in pairs]

    for name, row in table.sources.items():
        by_key = {k: {n: row[n][k] for n in ("first", "second")[: 1 + two]} for k in shown}
        met = "yes" if row["met"] else "no"
        grid.add_row(name, str(row["images"]), met, *cells(by_key))
    grid.add_section()
    for kind, means in table.means.items():
        grid.add_row(f"mean, {kind}", "", "", *cells(means))
        spans = [_span(means[k], two) for k in shown]
        if any(span != "-" for span in spans):
            grid.add_row("  difference" if two else "  interval", "", "", *spans)
    return grid
