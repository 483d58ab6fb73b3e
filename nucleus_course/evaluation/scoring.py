"""Match every image of a data set once; all numbers are made from what is kept here.

Of a data set only ``ids`` and, for each id, a record with ``labels`` ((H, W) integers, 0 background) and ``type``
are used, so anything that has those will do.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.text import pluralize
from nucleus_course.evaluation.coco import (
    COCO_MAX_DETECTIONS,
    MAX_DETECTIONS,
    CocoMatches,
    match_image,
)
from nucleus_course.evaluation.matching import mask_iou, overlap_matrix
from nucleus_course.evaluation.metrics import image_sums
from nucleus_course.geometry.rle import rle_from_labels
from nucleus_course.prediction.interchange import ImagePredictions, PredictionsError


@dataclass(frozen=True)
class ImageScore:
    """One image after matching.

    Attributes:
        image_id, type: of the image.
        matches: COCO's matching, all detections.
        sums: (len(COLUMNS),) float64, see :mod:`nucleus_course.evaluation.metrics`.
        candidates: detections in the predictions, before any threshold or cap.
        empty_masks: how many of those hold no pixel.
    """

    image_id: str
    type: str
    matches: CocoMatches
    sums: np.ndarray
    candidates: int
    empty_masks: int


def compact_labels(labels):
    """A label image with its labels renumbered 1..n in rising order: (H, W) int32."""
    labels = np.asarray(labels)
    present = np.unique(labels)
    present = present[present != 0]
    if present.size == 0 or (present[0] == 1 and present[-1] == present.size):
        return labels.astype(np.int32, copy=False)
    return ((np.searchsorted(present, labels) + 1) * (labels != 0)).astype(np.int32)


def align(dataset, predictions):
    """Pair the images of a data set with their predictions.

    An image without predictions counts as one without detections, predictions for other images are left out; both
    are warned of. No image in common is an error.

    Returns:
        (pairs, warnings): a list of (image id, :class:`ImagePredictions` or None) in the data set's order; texts.

    Raises:
        PredictionsError: if the data set is empty or has no image in common with the predictions.
    """
    ids = list(dataset.ids)
    if not ids:
        raise PredictionsError("the data set holds no image: nothing to evaluate")
    missing = [i for i in ids if i not in predictions.images]
    known = set(ids)
    others = [i for i in predictions.images if i not in known]
    if len(missing) == len(ids):
        example = f"; the data set has '{ids[0]}'" + (
            f", the predictions have '{others[0]}'" if others else ""
        )
        raise PredictionsError(
            f"no image of the data set has predictions{example}: the stem of file_name is the id"
        )
    warnings = []
    if missing:
        warnings.append(
            f"{len(missing)} of {len(ids)} images have no predictions and count as having no detections: {_some(missing)}"
        )
    if others:
        warnings.append(
            f"predictions for {len(others)} images that are not in the data set were left out: {_some(others)}"
        )
    return [(i, predictions.images.get(i)) for i in ids], warnings


def _some(names, at_most=3):
    names = [str(n) if len(str(n)) <= 20 else f"{str(n)[:17]}..." for n in names]
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")


def operating_point(predictions, score_threshold=None, min_area=None):
    """The thresholds an evaluation uses: those given, else those stored with the predictions, else none.

    Returns:
        (dict(score_threshold, min_area, source), warnings).

    Raises:
        PredictionsError: for a threshold that is no finite number.
    """
    warnings, source = [], "given"
    if score_threshold is None:
        score_threshold, source = predictions.score_threshold, "predictions"
    if score_threshold is None:
        score_threshold, source = 0.0, "none"
        if any((image.scores != 1).any() for image in predictions.images.values()):
            warnings.append(
                "the predictions name no score threshold: every detection counts at the operating point"
            )
            score_threshold = min(
                0.0, min(image.scores.min(initial=0) for image in predictions.images.values())
            )
    min_area = predictions.info.get("min_area", 0) if min_area is None else min_area
    for name, value in (("score_threshold", score_threshold), ("min_area", min_area)):
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float, np.number))
            or not np.isfinite(value)
        ):
            raise PredictionsError(f"{name} is {value!r}, not a number")
    point = {
        "score_threshold": float(score_threshold),
        "min_area": int(min_area or 0),
        "source": source,
    }
    return point, warnings


def checked(image_id, record, image):
    """The predictions of an image, or empty ones; an error if they are of another size."""
    height, width = np.asarray(record.labels).shape
    if image is None:
        return ImagePredictions(height, width)
    if (image.height, image.width) != (height, width):
        raise PredictionsError(
            f"image '{image_id}' is {height} x {width} pixels, its predictions are for {image.height} x {image.width}: "
            "predict at the image's own size"
        )
    return image


def score_image(image_id, record, image, score_threshold, min_area):
    """Match one image.

    Args:
        record: has ``labels`` and ``type``.
        image: its :class:`ImagePredictions`, or None for no detections.

    Returns:
        :class:`ImageScore`.

    Raises:
        PredictionsError: if the sizes differ or a mask is not valid.
    """
    image = checked(image_id, record, image)
    labels = compact_labels(record.labels)
    try:
        areas = image.runs().areas
        point = image.label_image(score_threshold, min_area)
    except PredictionsError as error:
        raise PredictionsError(f"image '{image_id}': {error}") from None
    best = np.argsort(-image.scores, kind="mergesort")[:MAX_DETECTIONS]
    iou = mask_iou([image.rles[i] for i in best], rle_from_labels(labels)[1])
    found = match_image(iou, image.scores[best])
    matches = CocoMatches(found.nuclei, found.scores, found.nucleus, best, found.iou)
    sums = image_sums(overlap_matrix(point, labels), ap_hits=matches.nucleus[0] >= 0)
    kind = str(getattr(record, "type", "unknown"))
    return ImageScore(image_id, kind, matches, sums, len(image), int((areas == 0).sum()))


def score_images(dataset, predictions, score_threshold, min_area, progress=False):
    """Match all images: (list of :class:`ImageScore` in the data set's order, warnings)."""
    pairs, warnings = align(dataset, predictions)
    scores = [
        score_image(image_id, dataset[image_id], image, score_threshold, min_area)
        for image_id, image in track(pairs, "evaluating", progress)
    ]
    return scores, warnings + cautions(scores)


def cautions(scores):
    """What a reader of the numbers should know about these predictions."""
    found = []
    over = [s.image_id for s in scores if s.candidates > MAX_DETECTIONS]
    if over:
        found.append(
            f"AP sees the {MAX_DETECTIONS} best detections of an image; {pluralize(len(over), 'image')} with more: {_some(over)}"
        )
    over = sum(s.candidates > COCO_MAX_DETECTIONS for s in scores)
    crowded = sum(s.matches.nuclei > COCO_MAX_DETECTIONS for s in scores)
    if over or crowded:
        found.append(
            f"the cap of {COCO_MAX_DETECTIONS} in coco_ap_maxdets100 bites: more detections than that in "
            f"{pluralize(over, 'image')}, more nuclei in {crowded}"
        )
    values = np.concatenate([s.matches.scores for s in scores])
    if values.size > 1 and np.ptp(values) == 0:
        found.append(
            "all scores are equal: AP is then one point of a precision-recall curve, not comparable with ranked ones"
        )
    empty = sum(s.empty_masks for s in scores)
    if empty:
        found.append(
            f"{pluralize(empty, 'empty mask')} among the detections: false positives in AP, absent at the operating point"
        )
    if not any(s.matches.nuclei for s in scores):
        found.append(
            "no image has nuclei: is this a test set without masks? AP and mean IoU are undefined"
        )
    return found


def track(items, text, progress):
    """Iterate with a progress bar on stderr, if asked for."""
    if not progress:
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(items, description=text, console=Console(stderr=True), transient=True)
