"""report.html: an evaluation as one self-contained page, for readers without the package."""

import base64
import html
import io
import re
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

from nucleus_course import __version__
from nucleus_course._util.files import write_file
from nucleus_course.evaluation.errors.taxonomy import CLASSES
from nucleus_course.evaluation.metrics import METRICS
from nucleus_course.figures.style import png

WORST = 4  # images shown with their errors

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
p.sub { color: #555; margin-top: 0; } .note { border-left: 4px solid #d55e00; padding: 0.3rem 0.8rem; background: #fdf3ec; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; margin: 0.6rem 0; }
th, td { padding: 0.25rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; } thead th { border-bottom: 2px solid #666; }
th:first-child, td:first-child, td.t, th.t { text-align: left; } tbody th { font-weight: 600; }
.row { display: flex; flex-wrap: wrap; gap: 1.5rem; } .row figure { flex: 1 1 26rem; min-width: 0; } figure { margin: 1.2rem 0; } figure img { max-width: 100%; height: auto; } figcaption { color: #444; font-size: 0.9rem; }
dt { font-weight: 600; margin-top: 0.5rem; } dd { margin-left: 1.2rem; } code { background: #f1f1f1; padding: 0 0.2em; overflow-wrap: anywhere; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
"""

DEFINITIONS = {
    "IoU": "Intersection over union of two masks: the pixels they share, over the pixels that either has. Masks at the image's own size.",
    "operating point": "Detections scored at the threshold or above, overlaps resolved so that the higher score keeps the pixel. "
    "All metrics but the average precisions use it; those take every detection and its score.",
    "coco_ap, coco_ap50, coco_ap75": "COCO's average precision of masks, the mean over IoU 0.50, 0.55, … 0.95, or at 0.50 or 0.75: "
    "101 recall points, up to 1000 detections an image, because an image can hold 375 nuclei.",
    "coco_ap_maxdets100": "The same at COCO's default cap of 100 detections an image.",
    "mean_mask_iou": "Mean over the annotated nuclei of the IoU with the detection paired to each, one to one with the largest total IoU; "
    "0 where there is none.",
    "matched_mask_iou": "The same over the pairs above 0.5 alone.",
    "foreground_iou": "All detections as one mask against all nuclei as one; mean over images.",
    "dsb_score": "The 2018 Data Science Bowl's: in each image TP / (TP + FP + FN), a match being an IoU above t, mean over t = 0.50, "
    "0.55, … 0.95; mean over images.",
    "matterport_ap": "Average precision of each image at IoU 0.50 as Matterport's Mask_RCNN computes it; mean over images.",
    "f1_50, f1_70": "2 TP / (2 TP + FP + FN) over all images, a match being an IoU above 0.5 or 0.7.",
    "pq": "Panoptic quality: F1 at 0.5 times the mean IoU of the matches, over all images.",
    "aji": "Aggregated Jaccard index (Kumar et al. 2017), over all images.",
    "intervals": "The middle 95% of a metric's values over bootstrap samples of the images.",
}


def write_html(path, dataset, predictions, report, **options):
    """Write the page (:func:`page`) and return its path; it contains no scripts and no links to other files."""
    write_file(path, page(dataset, predictions, report, **options))
    return Path(path)


def page(dataset, predictions, report, *, analysis=None, others=None, bootstrap=1000, worst=WORST):
    """The page as text.

    Args:
        dataset, predictions, report: what was evaluated, and :func:`~nucleus_course.evaluation.evaluate`'s result.
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis`; None computes it.
        others: {name: Report} to compare with.
        bootstrap: samples for the intervals if the report has none; 0 leaves them out.
        worst: how many of the worst images to show.
    """
    from nucleus_course import figures
    from nucleus_course.evaluation import analyse_errors

    point = report.operating_point
    if analysis is None:
        at = {key: point[key] for key in ("score_threshold", "min_area")}
        analysis = analyse_errors(dataset, predictions, progress=False, **at)
    intervals, level, samples = _intervals(report, bootstrap)
    # Keep reports of the same name apart.
    others = {f"{n} (other)" if n == report.name else n: o for n, o in (others or {}).items()}
    several = {report.name: report, **others}
    parts = [
        _head(report),
        "<h2>Metrics</h2>",
        _metrics(report, intervals, level, samples),
        "".join(f"<p class='note'>{_e(text)}</p>" for text in report.warnings),
    ]
    if others:
        parts += ["<h2>Compared</h2>", _picture(figures.draw_comparison(several))]
    parts += [
        "<h2>Precision, recall and the IoU of a match</h2>",
        _side_by_side(figures.draw_pr_curves(report), figures.draw_f1_curve(several)),
        "<h2>By image type</h2>",
        _types(report),
        _picture(figures.draw_type_breakdown(report)),
        "<h2>Errors</h2>",
        _errors(analysis),
        _picture(figures.draw_ap_costs(analysis)),
        _side_by_side(*(figures.draw_size_breakdown(analysis, by) for by in ("size", "crowding"))),
        "<h2>Do the scores mean what they say?</h2>",
        _picture(figures.draw_reliability(analysis)),
    ]
    rows = analysis.worst_images(count=worst)
    if rows:
        parts += ["<h2>The worst images</h2>", _worst(rows)]
        records = [dataset[row["image"]] for row in rows]
        maps = [figures.draw_error_map(record, analysis, predictions) for record in records]
        parts += [_picture(drawn, "png") for drawn in maps]
    definitions = "".join(f"<dt>{_e(k)}</dt><dd>{_e(v)}</dd>" for k, v in DEFINITIONS.items())
    parts += ["<h2>Definitions</h2>", f"<dl>{definitions}</dl>", _footer(predictions, report)]
    title = _e(f"{report.name}: evaluation")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title><style>{STYLE}</style></head>\n<body>\n'
        + "\n".join(part for part in parts if part)
        + "\n</body></html>\n"
    )


def _e(text):
    return html.escape(str(text), quote=True)


def _n(value, digits=1):
    return "–" if value is None else f"{value:.{digits}f}"


def _table(columns, rows, words=()):
    """An HTML table; cells are escaped, columns in ``words`` are aligned left."""
    side = [' class="t"' if i in words else "" for i in range(len(columns))]
    head = "".join(f'<th scope="col"{side[i]}>{_e(c)}</th>' for i, c in enumerate(columns))
    lines = []
    for row in rows:
        cells = [f'<th scope="row"{side[0]}>{_e(row[0])}</th>']
        cells += [f"<td{side[i]}>{_e(c)}</td>" for i, c in enumerate(row) if i]
        lines.append("<tr>" + "".join(cells) + "</tr>")
    head, body = f"<thead><tr>{head}</tr></thead>", "\n".join(lines)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def _picture(drawn, kind="svg"):
    """A figure with its caption, embedded in the page."""
    figure, caption = drawn
    if kind == "svg":
        import matplotlib

        look = {"svg.fonttype": "none", "svg.hashsalt": "nucleus_course"}
        buffer = io.BytesIO()
        with matplotlib.rc_context({**look, "font.family": "sans-serif"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None}, facecolor="white")
        mime, data = "image/svg+xml", buffer.getvalue()
    else:
        mime, data = "image/png", _smaller(png(figure, dpi=110))
    source = base64.b64encode(data).decode("ascii")
    return f'<figure><img alt="{_e(caption)}" src="data:{mime};base64,{source}"><figcaption>{_e(caption)}</figcaption></figure>'


def _side_by_side(*drawn):
    return '<div class="row">' + "".join(map(_picture, drawn)) + "</div>"


def _smaller(data):
    """A PNG with a palette of 256 colours: a third of the size, and outlines stay sharp."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        small.save(buffer, "PNG", optimize=True)
    return min(data, buffer.getvalue(), key=len)


def _intervals(report, samples):
    """(intervals, level, samples): the report's own, computed now, or none."""
    if report.intervals:
        own = report.bootstrap
        return report.intervals, own.get("level", 0.95), own.get("replicates", 0)
    if not samples or not report.scores:
        return {}, 0.95, 0
    from nucleus_course.evaluation.bootstrap import bootstrap_intervals

    return bootstrap_intervals(report.scores, samples), 0.95, samples


def _head(report):
    counts, point = report.counts, report.operating_point
    split = f"split {report.split}" if report.split else ""
    where = " ".join(part for part in (report.dataset, split) if part)
    sources = {
        "given": "given by hand",
        "predictions": "stored with the predictions",
        "none": "none stored: all detections count",
    }
    lines = [
        f"<h1>{_e(report.name)}</h1>",
        f"<p class='sub'>Nucleus segmentation, evaluated on {_e(where or 'a data set without a name')}</p>",
    ]
    if report.synthetic:
        lines.append(
            "<p class='note'>These images are <b>synthetic</b>, drawn by a program: the numbers say nothing about real nuclei.</p>"
        )
    lines.append(
        f"<p>{counts['images']} images with {counts['nuclei']} nuclei; {counts['candidates']} detections, {counts['detections']} of them at the "
        f"operating point: score of at least {point['score_threshold']:g}, at least {point['min_area']} pixels "
        f"({_e(sources.get(point.get('source'), ''))}). There, {counts['tp']} nuclei were found with an IoU above 0.5, {counts['fn']} were "
        f"not, and {counts['fp']} detections match no nucleus.</p>"
    )
    return "\n".join(lines)


def _metrics(report, intervals, level, samples):
    middle = [f"{100 * level:g}% interval"] if intervals else []
    columns = ["metric", "percent", *middle, "what it is"]
    rows = []
    for metric in METRICS:
        row = [metric.key, _n(report.metrics.get(metric.key), 2)]
        if intervals:
            span = intervals.get(metric.key)
            row.append("–" if span is None else f"{span[0]:.1f} to {span[1]:.1f}")
        rows.append([*row, f"{metric.label}: {metric.about}"])
    note = f"<p class='sub'>Intervals: bootstrap over images, {samples} samples.</p>"
    return _table(columns, rows, words={len(columns) - 1}) + (note if intervals else "")


def _types(report):
    images = Counter(row["type"] for row in report.counts.get("per_image", {}).values())
    rows = [["images", *(str(images[kind]) for kind in report.types)]]
    rows += [[m.key, *(_n(values.get(m.key)) for values in report.types.values())] for m in METRICS]
    return _table(["percent", *report.types], rows)


def _errors(analysis):
    classes = analysis.costs["classes"]
    rows = []
    for name in [*CLASSES, *(c for c in classes if c not in CLASSES)]:
        counts, cost = analysis.counts.get(name, {}), classes.get(name, {})
        gains = ["" if cost.get(k) is None else f"{cost[k]:+.1f}" for k in ("cost_ap", "cost_ap50")]
        rows.append([name, counts.get("nuclei", ""), counts.get("detections", ""), *gains])
    gains = [f"{name} gained if fixed" for name in ("AP", "AP50")]
    return _table(["class", "nuclei", "detections", *gains], rows)


def _worst(rows):
    columns = ["image", "type", "dsb_score", "found", "missed", "spurious"]
    counts = [[row[key] for key in ("tp", "fn", "fp")] for row in rows]
    heads = [[row["image"][:16], row["type"], _n(row["value"])] for row in rows]
    return _table(columns, [head + count for head, count in zip(heads, counts)], words={1})


def _footer(predictions, report):
    plain = {k: v for k, v in predictions.info.items() if isinstance(v, (str, int, float))}
    parts = [f"{k} {v}" for k, v in plain.items() if not re.search("path|folder", k)]
    made = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    text = f"nucleus_course {_e(__version__)}, {made}, metric definitions version {report.definitions}."
    text += f" Predictions: {_e('; '.join(parts))}." if parts else ""
    return f"<p class='sub'>{text}</p>"
