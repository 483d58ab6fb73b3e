"""Match every image of a data set once; all metrics are computed from the result.

Of a data set only ``ids`` and, for each id, a record with ``labels`` ((H, W) integers, 0 background)
and ``type`` are used, so any object that has those will do.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course._util.progress import track
from nucleus_course._util.text import pluralize
from nucleus_course.data.labels import renumber
from nucleus_course.evaluation.coco import (
    COCO_MAX_DETECTIONS,
    MAX_DETECTIONS,
    CocoMatches,
    match_image,
)
from nucleus_course.evaluation.matching import iou_from_shared, overlap_matrix, shared_pixels
from nucleus_course.evaluation.metrics import image_sums
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


@dataclass(frozen=True)
class Compared:
    """An image's predictions, compared with its nuclei.

    Attributes:
        image: the :class:`~nucleus_course.prediction.interchange.ImagePredictions`.
        labels: (H, W) int32, the nuclei, 1..G.
        point: (H, W) int32, the detections at the operating point, i + 1 for detection i.
        shared: (N, G) int64, pixels that each whole mask shares with each nucleus.
        overlap: (D + 1, G + 1) int64, the same for ``point``, see
            :func:`~nucleus_course.evaluation.matching.overlap_matrix`.
    """

    image: ImagePredictions
    labels: np.ndarray
    point: np.ndarray
    shared: np.ndarray
    overlap: np.ndarray


def align(dataset, predictions):
    """Pair the images of a data set with their predictions.

    An image without predictions counts as one without detections, and predictions for other images are
    left out; both give a warning. No image in common is an error.

    Returns:
        (pairs, warnings): a list of (image id, :class:`ImagePredictions` or None) in the data set's order; texts.

    Raises:
        PredictionsError: if the data set is empty or has no image in common with the predictions.
    """
    ids = list(dataset.ids)
    if not ids:
        raise PredictionsError("the data set has no images: there is nothing to evaluate")
    missing = [i for i in ids if i not in predictions.images]
    others = sorted(set(predictions.images) - set(ids), key=list(predictions.images).index)
    if len(missing) == len(ids):
        example = f", the predictions have '{others[0]}'" if others else ""
        raise PredictionsError(
            f"no image of the data set has predictions; the data set has '{ids[0]}'{example}: "
            "the stem of file_name is the id"
        )
    warnings = list(predictions.warnings)
    if missing:
        warnings.append(
            f"{len(missing)} of {len(ids)} images have no predictions and count as images without detections: {_some(missing)}"
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
    """The thresholds of an evaluation: those given, else those stored with the predictions, else none.

    Returns:
        (dict(score_threshold, min_area, source), warnings).

    Raises:
        PredictionsError: for a threshold that is not a finite number.
    """
    warnings, source = [], "given"
    if score_threshold is None:
        score_threshold, source = predictions.score_threshold, "predictions"
    if score_threshold is None:
        score_threshold, source = 0.0, "none"
        scores = [image.scores for image in predictions.images.values()]
        if any((own != 1).any() for own in scores):
            warnings.append(
                "the predictions name no score threshold: every detection counts at the operating point"
            )
            score_threshold = min(0.0, min(own.min(initial=0) for own in scores))
    min_area = predictions.info.get("min_area", 0) if min_area is None else min_area
    for name, value in (("score_threshold", score_threshold), ("min_area", min_area)):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if not number or not np.isfinite(value):
            raise PredictionsError(f"{name} is {value!r}, not a number")
    point = {"score_threshold": float(score_threshold), "min_area": int(min_area), "source": source}
    return point, warnings


def compare_image(image_id, record, image, score_threshold=None, min_area=0):
    """Decode an image's predictions and compare them with its nuclei: :class:`Compared`.

    Args:
        record: has ``labels``.
        image: its :class:`ImagePredictions`, or None for no detections.
        score_threshold: the operating point; None takes every detection.
        min_area: pixels.

    Raises:
        PredictionsError: if the sizes differ or a mask is not valid.
    """
    labels = renumber(record.labels)
    height, width = labels.shape
    image = ImagePredictions(height, width) if image is None else image
    if (image.height, image.width) != (height, width):
        raise PredictionsError(
            f"image '{image_id}' is {height} x {width} pixels, its predictions are for {image.height} x {image.width}: "
            "make predictions at the size of the image"
        )
    try:
        point = image.label_image(score_threshold, min_area)
    except PredictionsError as error:
        raise PredictionsError(f"image '{image_id}': {error}") from None
    shared = shared_pixels(image.runs(), labels)
    return Compared(image, labels, point, shared, overlap_matrix(point, labels))


def score_image(image_id, record, compared):
    """The :class:`ImageScore` of a compared image; ``record`` has its ``type``."""
    image, areas = compared.image, compared.image.runs().areas
    best = np.argsort(-image.scores, kind="stable")[:MAX_DETECTIONS]
    nucleus_areas = np.bincount(compared.labels.ravel(), minlength=1)[1:]
    found = match_image(
        iou_from_shared(compared.shared[best], areas[best], nucleus_areas), image.scores[best]
    )
    matches = CocoMatches(found.nuclei, found.scores, found.nucleus, best, found.iou)
    sums = image_sums(compared.overlap, ap_hits=matches.nucleus[0] >= 0)
    kind = str(getattr(record, "type", "unknown"))
    return ImageScore(image_id, kind, matches, sums, len(image), int((areas == 0).sum()))


def score_images(dataset, predictions, score_threshold, min_area, progress=False):
    """Match all images: (list of :class:`ImageScore` in the data set's order, warnings)."""
    pairs, warnings = align(dataset, predictions)
    scores = []
    for image_id, image in track(pairs, "evaluating", show=progress):
        record = dataset[image_id]
        compared = compare_image(image_id, record, image, score_threshold, min_area)
        scores.append(score_image(image_id, record, compared))
    return scores, warnings + cautions(scores)


def cautions(scores):
    """Warnings for readers of the numbers: a list of texts."""
    found = []
    over = [s.image_id for s in scores if s.candidates > MAX_DETECTIONS]
    if over:
        found.append(
            f"AP, Matterport's AP and calibration take the {MAX_DETECTIONS} best detections of an image; {pluralize(len(over), 'image')} with more: {_some(over)}"
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
            "all scores are equal: AP is then one point of a precision-recall curve; do not compare it with AP from ranked scores"
        )
    empty = sum(s.empty_masks for s in scores)
    if empty:
        found.append(
            f"{pluralize(empty, 'empty mask')} among the detections: false positives in AP, left out at the operating point"
        )
    if not any(s.matches.nuclei for s in scores):
        found.append(
            "no image has nuclei: is this a test set without masks? AP and mean IoU are undefined"
        )
    return found
