"""What each class of error costs: the average precision if it were fixed.

After Bolya et al. 2020 (TIDE), section 2.2. The classes are those of :mod:`nucleus_course.evaluation.errors.taxonomy`,
for all detections without threshold, matched in order of score at IoU 0.5 as in AP. To fix a class, each of its nuclei
is given to the best-scored detection of the class that overlaps it, with an IoU of 1; the remaining nuclei and
detections of the class are removed. The costs do not add up: fixing all classes at once gives an AP of 100.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course.evaluation.coco import (
    CocoMatches,
    PrecisionTable,
    average_precisions,
    match_image,
)
from nucleus_course.evaluation.errors.taxonomy import CLASSES, MATCHED

# Matched pairs with an IoU below 1: no error at 0.5, but they lower coco_ap.
BOUNDARY = "boundary of the matched"


@dataclass(frozen=True)
class Classified:
    """One image: COCO's matches, and the class of every detection (in score order) and nucleus."""

    matches: CocoMatches
    detection_class: np.ndarray
    nucleus_class: np.ndarray


def fix(image, names):
    """The matches of an image once the classes ``names`` are fixed: :class:`CocoMatches`."""
    iou, match = image.matches.iou.copy(), image.matches.nucleus[0]
    keep, keep_nucleus = np.ones(iou.shape[0], bool), np.ones(iou.shape[1], bool)
    given = {}
    if BOUNDARY in names:
        given.update((int(d), int(match[d])) for d in np.flatnonzero(match >= 0))
    for name in names:
        if name == BOUNDARY:
            continue
        number = CLASSES.index(name)
        waiting = image.nucleus_class == number
        for d in np.flatnonzero(image.detection_class == number):  # best score first
            reach = np.where(waiting, image.matches.iou[d], 0.0)
            if reach.size and reach.max() > 0:
                given[int(d)] = int(reach.argmax())
                waiting[reach.argmax()] = False
            else:
                keep[d] = False
        keep_nucleus &= ~waiting
    for d, nucleus in given.items():
        iou[d] = 0.0
        iou[:, nucleus] = 0.0  # taken
    for d, nucleus in given.items():
        iou[d, nucleus] = 1.0
    return match_image(iou[keep][:, keep_nucleus], image.matches.scores[keep])


def error_costs(images):
    """AP as it is, and as it would be without each class of error.

    Args:
        images: list of :class:`Classified`.

    Returns:
        dict: ``coco_ap`` and ``coco_ap50`` as they are, and ``classes`` {name: {"coco_ap", "coco_ap50" (after the fix),
        "cost_ap", "cost_ap50" (gain by the fix), "nuclei", "detections"}}; percent, None without nuclei.
    """
    whole = _ap([image.matches for image in images])
    classes = {}
    for name in [*CLASSES[1:], BOUNDARY]:
        number = MATCHED if name == BOUNDARY else CLASSES.index(name)
        fixed = _ap([fix(image, [name]) for image in images])
        gains = [None if a is None or b is None else b - a for a, b in zip(whole, fixed)]
        classes[name] = {
            **dict(zip(("coco_ap", "coco_ap50", "cost_ap", "cost_ap50"), (*fixed, *gains))),
            "nuclei": int(sum((image.nucleus_class == number).sum() for image in images)),
            "detections": int(sum((image.detection_class == number).sum() for image in images)),
        }
    return {"coco_ap": whole[0], "coco_ap50": whole[1], "classes": classes}


def _ap(matches):
    ap, ap50, _ = average_precisions(PrecisionTable(matches).precision())
    return (None, None) if np.isnan(ap) else (100.0 * ap, 100.0 * ap50)
