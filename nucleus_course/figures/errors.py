"""Errors: how many of each class, what they cost in AP, and which nuclei are lost."""

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.figures import style

AXES = {
    "size": "equivalent diameter of the nucleus",
    "crowding": "gap to the nearest nucleus",
    "edge": "distance to the image's edge",
    "contrast": "contrast to its surroundings",
    "type": "image type",
}


def draw_error_counts(analysis):
    """How many nuclei and detections are in each class of error, from an ErrorAnalysis."""
    counts = {name: both for name, both in analysis.counts.items() if name != "matched"}
    figure, (axis,) = style.new_figure(7.6, 3.4)
    for number, (side, label) in enumerate((("nuclei", "nuclei without a detection"), ("detections", "detections without a nucleus"))):  # fmt: skip
        place = np.arange(len(counts)) + 0.38 * number - 0.19
        values = [both[side] for both in counts.values()]
        axis.barh(place, values, 0.36, label=label, **style.bars(number))
    style.row_ticks(axis, list(counts))
    style.legend(axis, "above", 2)
    style.tidy(axis, "count", "")
    listed = "; ".join(
        f"{name} {pluralize(both['nuclei'], 'nucleus', 'nuclei')} and {pluralize(both['detections'], 'detection')}"
        for name, both in counts.items()
    )
    return figure, f"{pluralize(analysis.totals['tp'], 'matched pair')}. Of the rest: {listed}."


def draw_ap_costs(analysis):
    """The gain in AP if one class of error were fixed.

    Args:
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis`.

    Returns:
        (Figure, caption): two bars for each class, COCO AP and AP50, in percentage points, largest first.
    """
    costs, name = analysis.costs, analysis.report.name
    classes = sorted(costs["classes"], key=lambda c: -(costs["classes"][c]["cost_ap"] or 0.0))
    figure, (axis,) = style.new_figure(7.4, 0.5 * len(classes) + 1.4)
    for number, (key, label) in enumerate((("cost_ap", "COCO AP"), ("cost_ap50", "AP50"))):
        gains = [costs["classes"][c][key] or 0.0 for c in classes]
        place = np.arange(len(classes)) + 0.4 * number - 0.2
        label = f"{label}, now {style.text(costs['coco_' + key[5:]])}"
        axis.barh(place, gains, 0.38, label=label, **style.bars(number))
        for row, gain in zip(place, gains):
            style.note(axis, max(gain, 0), row, f"{gain:+.1f}", (3, 0), ha="left", va="center")
    style.row_ticks(axis, classes)
    axis.axvline(0, color=style.GREY, linewidth=0.8)
    axis.margins(x=0.12)
    style.legend(axis, "above", 2)
    style.tidy(
        axis, "gain if this class of error were fixed, percentage points of AP", "class of error"
    )
    listed = ", ".join(f"{c} {style.text(costs['classes'][c]['cost_ap'])}" for c in classes)
    caption = (
        f"What each class of error costs {name}: points of COCO AP that fixing it alone would add to "
        f"{style.text(costs['coco_ap'])}: {listed}. All detections, without threshold (after Bolya et al. 2020); gains do not add up."
    )
    return style.signed(figure, caption, analysis.report.synthetic)


def draw_size_breakdown(analysis, by="size"):
    """What happened to the nuclei of each bin of a property: matched, or lost in which way.

    Args:
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis`.
        by: size, crowding, edge, contrast or type.

    Returns:
        (Figure, caption): stacked bars, percent of the nuclei of a bin; their number stands above.
    """
    table = analysis.breakdown(by)["nuclei"]
    totals = {group: sum(row.values()) for group, row in table.items()}
    shown = [name for name in style.CLASS_COLOURS if any(row.get(name) for row in table.values())]
    figure, (axis,) = style.new_figure(max(8.0, 1.3 * len(table) + 2.4), 3.9)
    bottom = np.zeros(len(table))
    for name in shown:
        share = np.array([100 * row.get(name, 0) / max(totals[g], 1) for g, row in table.items()])
        look = {
            "color": style.CLASS_COLOURS[name],
            "hatch": style.CLASS_HATCHES[name],
            "edgecolor": "white",
        }
        axis.bar(range(len(table)), share, 0.72, bottom=bottom, lw=0.4, label=name, **look)
        bottom += share
    for place, count in enumerate(totals.values()):
        style.note(axis, place, 100, f"n = {count}")
    names = [g.replace(" ", "\n", 1) if by == "type" else g for g in table]
    axis.set_xticks(range(len(table)), names, fontsize=style.TEXT)
    axis.set_ylim(0, 109)
    axis.set_yticks(range(0, 101, 20))
    if shown:
        style.legend(axis, "right", reverse=True, title="nuclei")
    else:
        style.empty(axis, "no nuclei")
    style.tidy(axis, AXES[by], "percent of the nuclei")
    found = "; ".join(
        f"{group}: {100 * row.get('matched', 0) / totals[group]:.0f}% of {totals[group]}"
        for group, row in table.items()
        if totals[group]
    )
    caption = f"Nuclei found (matched at IoU above 0.5, operating point) by {AXES[by]}, and how the others were lost. Found: {found or 'none'}."
    return style.signed(figure, caption, analysis.report.synthetic)
