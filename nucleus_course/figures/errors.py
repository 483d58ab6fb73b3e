"""What goes wrong: what each class of error costs in AP, and how it depends on the nuclei."""

import numpy as np

from nucleus_course.figures.style import (
    BLUE,
    CLASS_COLOURS,
    CLASS_HATCHES,
    GREY,
    SKY,
    empty,
    new_figure,
    signed,
    text,
    tidy,
)

AXES = {
    "size": "equivalent diameter of the nucleus",
    "crowding": "gap to the nearest nucleus",
    "edge": "distance to the image's edge",
    "contrast": "contrast to its surroundings",
    "type": "image type",
}


def draw_ap_costs(costs, *, name="", synthetic=False):
    """Points of AP that fixing one class of error would gain.

    Args:
        costs: an :class:`~nucleus_course.evaluation.ErrorAnalysis`, or its ``costs``.

    Returns:
        (Figure, caption): one pair of bars a class, COCO AP and AP50, in percentage points, largest first.
    """
    if hasattr(costs, "costs"):
        name, synthetic = name or costs.report.name, synthetic or costs.report.synthetic
        costs = costs.costs
    classes = sorted(costs["classes"], key=lambda c: -(costs["classes"][c]["cost_ap"] or 0.0))
    figure, (axis,) = new_figure(6.6, 0.46 * len(classes) + 1.2)
    rows = np.arange(len(classes))
    for key, colour, hatch, shift, label in (
        ("cost_ap", BLUE, "", -0.2, "COCO AP"),
        ("cost_ap50", SKY, "///", 0.2, "AP50"),
    ):
        gains = [costs["classes"][c][key] or 0.0 for c in classes]
        axis.barh(
            rows + shift,
            gains,
            0.38,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            label=f"{label}, now {text(costs['coco_' + key[5:]])}",
        )
        for row, gain in zip(rows, gains):
            axis.annotate(
                f"{gain:+.1f}",
                (max(gain, 0), row + shift),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
            )
    axis.set_yticks(rows, classes, fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.margins(x=0.12)
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    tidy(axis, "gain if this class of error were fixed, percentage points of AP", "class of error")
    listed = ", ".join(f"{c} {text(costs['classes'][c]['cost_ap'])}" for c in classes)
    caption = (
        f"What each class of error costs{' ' + name if name else ''}: points of COCO AP that fixing it alone would add to "
        f"{text(costs['coco_ap'])}: {listed}. All detections, without threshold (after Bolya et al. 2020); gains do not add up."
    )
    return signed(figure, caption, synthetic)


def draw_size_breakdown(analysis, by="size"):
    """How the nuclei of each bin of a property fared: matched, or lost in which way.

    Args:
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis`.
        by: size, crowding, edge, contrast or type.

    Returns:
        (Figure, caption): stacked bars, percent of the nuclei of a bin; their number stands above.
    """
    table = dict(analysis.breakdown(by)["nuclei"].items())
    figure, (axis,) = new_figure(max(7.4, 1.25 * len(table) + 2.0), 3.7)
    totals = {group: sum(row.values()) for group, row in table.items()}
    shown = [name for name in CLASS_COLOURS if any(row.get(name) for row in table.values())]
    bottom = np.zeros(len(table))
    for name in shown:
        share = np.array(
            [100 * row.get(name, 0) / totals[g] if totals[g] else 0.0 for g, row in table.items()]
        )
        axis.bar(range(len(table)), share, 0.72, bottom=bottom, color=CLASS_COLOURS[name], hatch=CLASS_HATCHES[name],
                 edgecolor="white", linewidth=0.4, label=name)  # fmt: skip
        bottom += share
    for place, count in enumerate(totals.values()):
        axis.annotate(
            f"n = {count}",
            (place, 100),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    if not shown:
        empty(axis, "no nuclei")
    axis.set_xticks(
        range(len(table)),
        [g.replace(" ", "\n", 1) if by == "type" else g for g in table],
        fontsize=8,
    )
    axis.set_ylim(0, 107)
    axis.set_yticks(range(0, 101, 20))
    if shown:
        axis.legend(
            fontsize=8,
            frameon=False,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            reverse=True,
            title="nuclei",
            title_fontsize=8,
        )
    tidy(axis, AXES[by], "percent of the nuclei")
    found = "; ".join(
        f"{g}: {100 * row.get('matched', 0) / totals[g]:.0f}% of {totals[g]}"
        for g, row in table.items()
        if totals[g]
    )
    caption = f"Nuclei found (matched at IoU above 0.5, operating point) by {AXES[by]}, and how the others were lost. Found: {found or 'none'}."
    return signed(figure, caption, analysis.report.synthetic)
