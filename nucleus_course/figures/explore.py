"""Figures behind the anchor, threshold and error explorers."""

import numpy as np
from matplotlib.figure import Figure

from nucleus_course._util.text import pluralize
from nucleus_course.figures.base import (
    BLUE,
    FOUND,
    TRUTH,
    VERMILION,
    outlined,
    picture,
    rectangle,
    stretch,
    tidy,
)


def draw_proposals(image, boxes, scores, truth, *, level: str, shown: int, what: str):
    """The ``shown`` best boxes of a pyramid level on the image; thicker and darker is a higher score.

    ``image`` uint8 (H, W, 3); ``boxes`` (N, 4) and ``scores`` (N,) sorted by falling score, image pixels;
    ``truth`` (G, 4) boxes of the nuclei.
    """
    figure = Figure(figsize=(5.6, 5.6), layout="constrained")
    axis = figure.subplots()
    picture(axis, stretch(image), f"the {min(shown, len(boxes))} best {what} of {level}")
    for box in truth:
        rectangle(axis, box, TRUTH, style=":", width=1.0)
    for box, score in list(zip(boxes, scores))[:shown][::-1]:
        rectangle(axis, box, FOUND, width=0.6 + 1.8 * float(score))
    axis.set_xlim(-0.5, image.shape[1] - 0.5)
    axis.set_ylim(image.shape[0] - 0.5, -0.5)
    best = scores[: max(shown, 1)]
    covered = _covered(truth, boxes[:shown])
    scored = f", scores {best[-1]:.2f} to {best[0]:.2f}" if len(best) else ""
    return figure, (
        f"{len(boxes)} {what} of {level}; the {min(shown, len(boxes))} best are drawn (light blue{scored}). "
        f"They cover {covered} of {len(truth)} nuclei (dotted orange) with an IoU of 0.5 or more."
    )


def _covered(truth, boxes) -> int:
    from nucleus_course.course.numbers import box_iou_matrix

    if not (len(truth) and len(boxes)):
        return 0
    return int((box_iou_matrix(truth, boxes).max(axis=1) >= 0.5).sum())


def draw_operating_point(image, labels, truth, curve, point, settings: str, counts: dict):
    """Detections on the image beside the precision-recall curve with the operating point on it.

    ``labels`` and ``truth`` are label images (H, W); ``curve`` is (recall, precision), ``point`` the pair
    reached at the present score threshold; ``counts`` holds found, matched, missed and spurious.
    """
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    view = outlined(outlined(stretch(image), truth, TRUTH), labels, FOUND)
    found = pluralize(counts["found"], "detection")
    picture(left, view, f"{found}, {pluralize(counts['nuclei'], 'nucleus', 'nuclei')}")
    right.step(*curve, where="post", color=BLUE, lw=1.5)
    right.plot(*point, "o", color=VERMILION, ms=9)
    right.annotate(
        "here", point, textcoords="offset points", xytext=(-12, -16), ha="right", fontsize=9
    )
    right.set_xlim(0, 1.02)
    right.set_ylim(0, 1.02)
    tidy(right, "recall", "precision", "at IoU 0.5, on this image")
    return figure, (
        f"{settings}: {found}, {counts['matched']} of them matched with a nucleus at an IoU of 0.5 or more and "
        f"{counts['spurious']} not; {counts['missed']} of {counts['nuclei']} nuclei missed. "
        f"Precision {point[1]:.2f}, recall {point[0]:.2f}. Detections light blue, annotation orange."
    )


def draw_case(image, truth, found, box, title: str, margin: int = 14):
    """One error close up: annotation, detection, and the difference of the two foregrounds.

    ``truth`` and ``found`` are bool masks (H, W) of the nucleus and the detection concerned (either may be
    empty); ``box`` (y1, x1, y2, x2) is what the crop is centred on.
    """
    height, width = truth.shape
    y1, x1, y2, x2 = (int(round(float(v))) for v in box)
    rows = slice(max(y1 - margin, 0), min(y2 + margin, height))
    columns = slice(max(x1 - margin, 0), min(x2 + margin, width))
    crop = stretch(image)[rows, columns]
    truth, found = truth[rows, columns], found[rows, columns]
    difference = np.full((*truth.shape, 3), 30, np.uint8)
    difference[truth & found] = 255
    difference[truth & ~found] = (213, 94, 0)
    difference[~truth & found] = (86, 180, 233)
    figure = Figure(figsize=(9.2, 2.7), layout="constrained")
    axes = figure.subplots(1, 4)
    picture(axes[0], crop, "the image")
    picture(axes[1], outlined(crop, truth.astype(np.int32), TRUTH), "annotation")
    picture(axes[2], outlined(crop, found.astype(np.int32), FOUND), "detection")
    picture(axes[3], difference, "white: both, vermilion: missed\nlight blue: too much")
    shared, either = int((truth & found).sum()), int((truth | found).sum())
    iou = shared / either if either else 0.0
    return figure, (
        f"{title}. The annotation covers {pluralize(int(truth.sum()), 'pixel')} here, the detection {found.sum()}, "
        f"{shared} of them shared: IoU {iou:.2f}."
    )
