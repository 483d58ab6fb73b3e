"""Reports as rich tables that fit 80 columns."""

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


def _grid(title, caption=None):
    return Table(
        title=title, caption=caption or None, box=box.SIMPLE_HEAD, width=WIDTH, title_justify="left",
        caption_justify="left", pad_edge=False,
    )  # fmt: skip


def metrics_table(report):
    """Metric, value, interval (where there is one) and definition."""
    table = _grid(_title(report), _caption(report))
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    if report.intervals:
        table.add_column(
            f"{100 * report.bootstrap.get('level', 0.95):g}% interval",
            justify="right",
            no_wrap=True,
        )
    table.add_column("what it is", style="dim")
    for metric in METRICS:
        row = [metric.key, _number(report.metrics.get(metric.key))]
        if report.intervals:
            interval = report.intervals.get(metric.key)
            row.append("-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}")
        table.add_row(*row, metric.about)
    return table


def types_table(report):
    """A row for each metric, a column for each image type."""
    images = {}
    for row in report.counts.get("per_image", {}).values():
        images[row["type"]] = images.get(row["type"], 0) + 1
    table = _grid(_title(report))
    table.add_column("metric", no_wrap=True)
    for kind in report.types:
        table.add_column(escape(kind), justify="right", overflow="fold")
    if images:
        table.add_row("images", *[str(images.get(kind, 0)) for kind in report.types])
    for metric in METRICS:
        table.add_row(
            metric.key, *[_number(values.get(metric.key), 1) for values in report.types.values()]
        )
    return table


def comparison_table(reports, names=None):
    """Several models side by side: a row for each metric, a column for each report.

    Args:
        reports: list of :class:`~nucleus_course.evaluation.report.Report`, or {name: report}.
    """
    if isinstance(reports, dict):
        names, reports = list(reports), list(reports.values())
    names = names or [report.name for report in reports]
    places = {(report.dataset, report.split) for report in reports}
    table = _grid(
        "Percent"
        if len(places) > 1
        else escape(" ".join(p for p in places.pop() if p)) + ", percent"
    )
    table.add_column("metric", no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right", overflow="fold")
    for metric in METRICS:
        values = [report.metrics.get(metric.key) for report in reports]
        best = max((v for v in values if v is not None), default=None)
        cells = [
            f"[bold]{_number(v)}[/]" if v is not None and v == best else _number(v) for v in values
        ]
        table.add_row(metric.key, *cells)
    table.add_row(
        "score threshold", *[_number(r.operating_point.get("score_threshold")) for r in reports]
    )
    if len(places) > 1:
        table.add_row("evaluated on", *[escape(f"{r.dataset} {r.split}") for r in reports])
    return table


def comparison_of_two(comparison):
    """A :class:`~nucleus_course.evaluation.bootstrap.Comparison`: both values, the difference and its interval."""
    caption = (
        f"{100 * comparison.level:g}% intervals of the difference, {comparison.replicates} paired bootstrap samples of "
        f"{pluralize(comparison.images, 'image')}; an interval that holds 0 shows no difference"
    )
    caption = escape("\n".join([caption, *(f"Note: {text}" for text in comparison.warnings)]))
    table = _grid(escape(f"{comparison.second} against {comparison.first}"), caption)
    table.add_column("metric", no_wrap=True)
    for name in (comparison.first, comparison.second):
        table.add_column(escape(name), justify="right", overflow="fold")
    for name in ("difference", "interval", "better in"):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in METRICS:
        row = comparison.metrics[metric.key]
        gap = "-" if row["difference"] is None else f"{row['difference']:+.2f}"
        interval = "-" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}"
        share = "-" if row["share"] is None else f"{100 * row['share']:.0f}%"
        table.add_row(
            metric.key, _number(row["first"]), _number(row["second"]), gap, interval, share
        )
    return table


def errors_table(analysis):
    """Classes of error: how many, and what AP gains if they are fixed."""
    totals, costs = analysis.totals, analysis.costs
    caption = (
        f"{totals['tp']} true positives, {totals['fp']} false positives, {totals['fn']} false negatives at the operating "
        f"point. Gains: what AP ({_number(costs['coco_ap'], 1)}) and AP50 ({_number(costs['coco_ap50'], 1)}) of all "
        "detections would gain if the class were fixed; they do not add up"
    )
    table = _grid(f"Errors of {_title(analysis.report)}", caption)
    table.add_column("class", no_wrap=True)
    for name in ("nuclei", "detections", "AP gains", "AP50 gains"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, row in analysis.counts.items():
        cost = costs["classes"].get(name)
        gains = ["", ""] if cost is None else [_gain(cost["cost_ap"]), _gain(cost["cost_ap50"])]
        table.add_row(name, *[str(n) if n else "" for n in row.values()], *gains)
    for name in (n for n in costs["classes"] if n not in analysis.counts):
        cost = costs["classes"][name]
        table.add_row(name, "", "", _gain(cost["cost_ap"]), _gain(cost["cost_ap50"]))
    return table


def _gain(value):
    return "-" if value is None else f"{value:+.1f}"


def breakdown_table(analysis, by):
    """For each bin of a property: nuclei, how many were found and how the rest were lost; detections, how many right."""
    rows = analysis.breakdown(by)
    table = _grid(f"By {by}: how many nuclei were found, and how the others were lost")
    table.add_column(by, overflow="fold")
    kinds = {
        "poor boundary": "poor",
        "missed": "missed",
        "split": "split",
        "merged": "merged",
        "cut by the edge": "cut",
    }
    for name in ("nuclei", "found", *kinds.values(), "right"):
        table.add_column(name, justify="right", no_wrap=True)
    for group, classes in rows["nuclei"].items():
        made = rows["detections"].get(group, {})
        shares = [
            _share(counts.get("matched", 0), sum(counts.values())) for counts in (classes, made)
        ]
        lost = [str(classes[kind] or "") for kind in kinds]
        table.add_row(escape(group), str(sum(classes.values())), shares[0], *lost, shares[1])
    table.caption = (
        "found: share of the nuclei that are matched; right: share of the detections that are"
    )
    return table


def _share(part, whole):
    return "-" if not whole else f"{100 * part / whole:.0f}%"


def sources_table(table):
    """A :class:`~nucleus_course.evaluation.by_source.SourceTable`: a row a source, then means that count each once."""
    shown = ("coco_ap", "dsb_score", "mean_mask_iou")
    two = len(table.names) == 2
    caption = f"Percent; {100 * table.level:g}% intervals, {table.replicates} bootstrap samples of the images of each source"
    caption += f"; first {table.names[0]}, second {table.names[1]}" if two else ""
    grid = _grid(escape(" against ".join(table.names)) + " by source", escape(caption))
    for name in ("source", "images", "met"):
        grid.add_column(name, justify="left" if name == "source" else "right", no_wrap=True)
    for name in shown:
        grid.add_column(name, justify="right")
    for name, row in table.sources.items():
        cells = [
            _number(row["first"][key], 1) + (f" / {_number(row['second'][key], 1)}" if two else "")
            for key in shown
        ]
        grid.add_row(name, str(row["images"]), "yes" if row["met"] else "no", *cells)
    grid.add_section()
    for kind, means in table.means.items():
        cells = [
            _number(means[k]["first"], 1) + (f" / {_number(means[k]['second'], 1)}" if two else "")
            for k in shown
        ]
        grid.add_row(f"mean, {kind}", "", "", *cells)
        spans = [(means[k]["difference"], means[k]["low"], means[k]["high"]) for k in shown]
        text = [
            f"{d:+.1f} ({a:+.1f} to {b:+.1f})" if two else f"{a:.1f} to {b:.1f}"
            for d, a, b in spans
            if a is not None
        ]
        if text:
            grid.add_row("  difference" if two else "  interval", "", "", *text)
    return grid
